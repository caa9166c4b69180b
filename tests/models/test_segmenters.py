import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rsepm_edu.errors import UserError
from rsepm_edu.models.decoder import DeepLabV3PlusDecoder
from rsepm_edu.models.segmenters import DeepLabV2Head, build_segmenter

CLASSES = ("cat", "dog")


@pytest.mark.parametrize(("head", "size"), [("deeplabv2", (12, 16)), ("deeplabv3+", (24, 32))])
def test_logits_come_at_the_heads_stride(head: str, size: tuple[int, int]) -> None:
    network = build_segmenter(head, "creatures", CLASSES, channels=16, rates=(1, 2))
    logits = network(torch.randn(2, 3, 48, 64))
    assert logits.shape == (2, 3, *size)
    assert network.classes == CLASSES and network.stride == 4


def test_deeplabv2_is_the_sum_of_its_dilated_convolutions() -> None:
    head = DeepLabV2Head(4, 3, rates=(1, 3)).double()
    high = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    total = 0
    for rate, branch in zip((1, 3), head.branches, strict=True):
        padded = F.pad(high, (rate,) * 4)
        for i in range(3):
            for j in range(3):
                part = padded[:, :, i * rate : i * rate + 7, j * rate : j * rate + 9]
                total = total + torch.einsum("bchw,kc->bkhw", part, branch.weight[:, :, i, j])
        total = total + branch.bias[:, None, None]
    torch.testing.assert_close(head(high, high), total)


def test_deeplabv2_takes_one_rate_more_than_the_decoder() -> None:
    head = build_segmenter("deeplabv2", "creatures", CLASSES, rates=(2, 4, 6)).head
    assert [branch.dilation for branch in head.branches] == [(rate, rate) for rate in (2, 4, 6, 8)]


def test_new_layers_have_no_batch_statistics() -> None:
    for head in ("deeplabv2", "deeplabv3+"):
        modules = list(build_segmenter(head, "creatures", CLASSES, channels=32, rates=(1, 2)).head.modules())
        assert not [module for module in modules if isinstance(module, nn.BatchNorm2d)]


def test_in_training_the_backbones_batch_norm_stays_and_its_weights_learn() -> None:
    network = build_segmenter("deeplabv3+", "creatures", CLASSES, channels=16, rates=(1, 2)).train()
    assert network.head.training and not any(module.training for module in network.backbone.modules())
    before = {name: value.clone() for name, value in network.backbone.named_buffers()}
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in network.backbone.named_buffers())
    assert all(parameter.grad is not None for parameter in network.backbone.parameters())


@pytest.mark.parametrize("channels", [32, 10])
def test_group_norm_gives_a_picture_the_same_logits_alone_and_in_a_batch(channels: int) -> None:
    torch.manual_seed(0)
    decoder = DeepLabV3PlusDecoder(8, 6, 3, channels=channels, rates=(1, 2), norm="group").train()
    for module in decoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    low, high = torch.randn(3, 6, 8, 8), torch.randn(3, 8, 4, 4)
    torch.testing.assert_close(decoder(low, high)[:1], decoder(low[:1], high[:1]), rtol=1e-4, atol=1e-5)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(UserError, match=r"head: expected deeplabv2 or deeplabv3\+, got 'unet'"):
        build_segmenter("unet", "creatures", CLASSES)
