from typing import Any

import pytest
import torch
from torch import nn

from rsepm_edu.models.network import SingleStageNetwork, build_network

CLASSES = ("cat", "dog", "cow")
SMALL: dict[str, Any] = {"decoder_channels": 16, "decoder_rates": (1, 2)}


@pytest.fixture(params=["creatures", "resnet18", "mobilenet_v2"])
def network(request: pytest.FixtureRequest) -> SingleStageNetwork:
    torch.manual_seed(0)
    return build_network(request.param, CLASSES, separable=request.param != "resnet18", **SMALL)


@pytest.mark.parametrize(
    ("backbone", "output_stride", "strides"),
    [("creatures", 16, (2, 4, 4, 4)), ("resnet18", 16, (4, 8, 16, 16)), ("resnet18", 8, (4, 8, 8, 8))],
)
def test_both_heads_have_their_shapes(backbone: str, output_stride: int, strides: tuple[int, ...]) -> None:
    network = build_network(backbone, CLASSES, output_stride=output_stride, **SMALL).eval()
    outputs = network(torch.randn(2, 3, 64, 96))
    assert network.stride == strides[-1]
    assert network.classes == CLASSES and network.num_classes == 3
    assert outputs.tag_logits.shape == (2, 3)
    assert outputs.cam.shape == (2, 3, 64 // strides[-1], 96 // strides[-1])
    assert outputs.seg_logits.shape == (2, 4, 64 // strides[0], 96 // strides[0])
    assert [maps.shape[-1] for maps in outputs.stages] == [96 // stride for stride in strides]


def test_tag_logits_are_the_mean_of_the_cam_and_the_cam_is_the_classifier(network: SingleStageNetwork) -> None:
    outputs = network.eval()(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(outputs.tag_logits, outputs.cam.mean((2, 3)))
    torch.testing.assert_close(outputs.cam, network.classifier(outputs.stages[-1]))
    assert network.classifier.bias is None


def test_without_the_decoder_the_rest_is_the_same(network: SingleStageNetwork) -> None:
    images = torch.randn(2, 3, 64, 64)
    whole, part = network.eval()(images), network(images, decode=False)
    assert part.seg_logits is None
    assert torch.equal(part.cam, whole.cam) and torch.equal(part.tag_logits, whole.tag_logits)


@pytest.mark.parametrize("size", [(65, 50), (33, 97)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    network = build_network("resnet18", CLASSES, **SMALL).eval()
    outputs = network(torch.randn(1, 3, *size))
    assert outputs.seg_logits.shape[2:] == outputs.stages[0].shape[2:] == tuple(-(-side // 4) for side in size)


def without_gradient(network: nn.Module) -> set[str]:
    return {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not bool((parameter.grad != 0).any())
    }


def test_a_small_batch_trains_and_gradients_go_where_they_should(network: SingleStageNetwork) -> None:
    network.train()
    images = torch.randn(2, 3, 64, 64)
    names = {name for name, _ in network.named_parameters()}

    network(images, decode=False).cam.square().mean().backward()
    assert without_gradient(network) == {name for name in names if name.startswith("decoder.")}

    network.zero_grad()
    network(images).seg_logits.square().mean().backward()
    assert without_gradient(network) == {"classifier.weight"}

    network.zero_grad()
    outputs = network(images)
    (outputs.seg_logits.square().mean() + outputs.tag_logits.square().mean()).backward()
    assert without_gradient(network) == set()


def test_settings_of_the_decoder_are_passed_on() -> None:
    network = build_network("creatures", CLASSES, decoder_channels=24, decoder_rates=(1, 2, 3, 4), separable=True)
    assert len(network.decoder.aspp.branches) == 5
    assert network.decoder.refine[-1].weight.shape == (4, 24, 1, 1)
    assert network.decoder.aspp.branches[1][0].groups == 24
