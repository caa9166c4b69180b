import re
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops.misc import SqueezeExcitation

from rsepm_edu.errors import UserError
from rsepm_edu.models.backbone import Backbone
from rsepm_edu.models.backbones import BACKBONES, build_backbone, trade_stride_for_dilation

CHANNELS = {
    "creatures": (16, 48, 96, 128),
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "resnet101": (256, 512, 1024, 2048),
    "mobilenet_v2": (24, 32, 96, 1280),
    "mobilenet_v3_large": (24, 40, 112, 960),
}


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", BACKBONES)
def test_stages_have_the_strides_and_channels_they_name(name: str, output_stride: int) -> None:
    backbone = build_backbone(name, output_stride=output_stride)
    expected = (2, 4, 4, 4) if name == "creatures" else (4, 8, output_stride, output_stride)
    assert backbone.strides == expected
    assert backbone.channels == CHANNELS[name]
    with torch.no_grad():
        features = backbone.eval()(torch.randn(2, 3, 64, 96))
    assert len(features) == 4
    for maps, channels, stride in zip(features, backbone.channels, backbone.strides, strict=True):
        assert maps.shape == (2, channels, 64 // stride, 96 // stride)


def test_building_leaves_batch_norm_as_it_was_and_everything_in_training_mode() -> None:
    backbone = build_backbone("mobilenet_v2")
    for module in backbone.modules():
        assert module.training
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked == 0 and (module.running_mean == 0).all()


def test_the_small_network_is_small() -> None:
    count = sum(parameter.numel() for parameter in build_backbone("creatures").parameters())
    assert count == pytest.approx(228_000, rel=0.02)


# stride traded for dilation


def original_stages(name: str, network: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """Features of torchvision's own network, at strides 4, 8, 16 and 32, by following its forward pass."""
    if name.startswith("resnet"):
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        stages = []
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = layer(x)
            stages.append(x)
        return stages
    stages, x = [], images
    for part in network.features:
        smaller = part(x)
        if smaller.shape[-1] < x.shape[-1] and x.shape[-1] * 2 < images.shape[-1]:
            stages.append(x)  # the last map at its stride, from 4 on
        x = smaller
    return [*stages, x]


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large"])
def test_dilation_computes_the_original_features_and_those_between(
    name: str, output_stride: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second (fourth) position of the dense features is what the network with all its strides gives."""
    # Squeeze and excitation takes a mean over all positions, so there it is not the same; it is left out on both sides.
    monkeypatch.setattr(SqueezeExcitation, "forward", lambda self, x: x)
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone(name, output_stride=output_stride, weights=tmp_path / "weights.pth")
    images = torch.randn(1, 3, 96, 128, dtype=torch.float64)
    with torch.no_grad():
        dense = backbone.double().eval()(images)
        original = original_stages(name, network.double().eval(), images)
    assert [maps.shape[-1] for maps in original] == [32, 16, 8, 4]
    last = 3 if name.startswith("resnet") and output_stride == 16 else 4  # their stage 5 is not dilated, see below
    for maps, wanted in zip(dense[:last], original[:last], strict=True):
        step = maps.shape[-1] // wanted.shape[-1]
        torch.testing.assert_close(maps[..., ::step, ::step], wanted, rtol=1e-9, atol=0.0)
    assert dense[3].shape[-1] == 128 // output_stride
    assert dense[3].std() > 0


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_stage_5_of_a_resnet_at_stride_16_keeps_its_resolution_without_dilation(name: str, tmp_path: Path) -> None:
    """Resnet50's first block gives the original features and those between; the others see their direct neighbours."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).double().eval()
    torch.save(network.float().state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone(name, weights=tmp_path / "weights.pth").double().eval()
    images = torch.randn(1, 3, 96, 128, dtype=torch.float64)
    with torch.no_grad():
        stage4, stage5 = backbone(images)[2:]
        first, *others = network.double().layer4
        x = backbone.stages[3][0](stage4)
        if name == "resnet50":  # whose strided convolution has only a 1×1 behind it
            torch.testing.assert_close(x[..., ::2, ::2], first(stage4), rtol=1e-9, atol=0.0)
        for block in others:  # of the network as it came
            x = block(x)
    assert stage5.shape[2:] == stage4.shape[2:]
    torch.testing.assert_close(stage5, x, rtol=1e-9, atol=0.0)


def test_kernels_after_the_stride_see_twice_as_far() -> None:
    stage = nn.Sequential(
        nn.Conv2d(1, 1, 3, 1, 1), nn.Conv2d(1, 1, 1, 2), nn.Conv2d(1, 1, 5, 2, 2), nn.Conv2d(1, 1, 3, 1, 1)
    )
    assert trade_stride_for_dilation(stage, 2) == 4
    convolutions = [module for module in stage if isinstance(module, nn.Conv2d)]
    assert [module.dilation for module in convolutions] == [(2, 2), (1, 1), (2, 2), (4, 4)]
    assert [module.padding for module in convolutions] == [(2, 2), (0, 0), (4, 4), (4, 4)]
    assert {module.stride for module in convolutions} == {(1, 1)}
    assert stage(torch.zeros(1, 1, 9, 11)).shape == (1, 1, 9, 11)


# weights


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    network = torchvision.models.get_model("resnet18", weights=None)
    path = tmp_path / "resnet18.pth"
    torch.save(network.state_dict(), path)
    backbone = build_backbone("resnet18", weights=str(path))
    assert torch.equal(backbone.stages[0][0][0].weight, network.conv1.weight)
    assert torch.equal(backbone.stages[3][1].conv2.weight, network.layer4[1].conv2.weight)
    assert not torch.equal(build_backbone("resnet18").stages[0][0][0].weight, network.conv1.weight)


def write_nothing_useful(path: Path, kind: str) -> None:
    state = torchvision.models.get_model("resnet18", weights=None).state_dict()
    if kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "wrapped":
        torch.save({"state_dict": state}, path)
    elif kind == "other network":
        torch.save(state, path)
    elif kind == "no tensors":
        torch.save([1, 2, 3], path)


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "truncated", "wrapped", "other network", "no tensors"])
def test_a_wrong_file_of_weights_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    write_nothing_useful(path, kind)
    name = "resnet34" if kind == "other network" else "resnet18"
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: expected .*weights.*, got") as info:
        build_backbone(name, weights=path)
    assert "\n" not in str(info.value)


def test_weights_of_data_parallel_are_loaded(tmp_path: Path) -> None:
    network = torchvision.models.get_model("resnet18", weights=None)
    torch.save(nn.DataParallel(network).state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone("resnet18", weights=tmp_path / "weights.pth")
    assert torch.equal(backbone.stages[3][1].conv2.weight, network.layer4[1].conv2.weight)


def test_weights_that_are_not_finite_or_have_a_flipped_bit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = torchvision.models.get_model("mobilenet_v2", weights=None).state_dict()
    torch.save(state, path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(
        UserError, match=rf"^{re.escape(str(path))}: expected weights of MobileNetV2, got: a damaged one"
    ):
        build_backbone("mobilenet_v2", weights=path)
    state["features.3.conv.0.0.weight"][1] = float("inf")
    torch.save(state, path)
    with pytest.raises(
        UserError, match=rf"^{re.escape(str(path))}: expected finite numbers, got .* in features.3.conv"
    ):
        build_backbone("mobilenet_v2", weights=path)


def test_weights_that_cannot_be_downloaded_are_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(
        UserError, match="^weights: expected .* of resnet50 to download, got: .*no route to host.*; --set weights=FILE"
    ):
        build_backbone("resnet50", weights="imagenet")


def test_imagenet_means_the_authors_weights_for_resnets_else_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    make = torchvision.models.get_model

    def record(name: str, *, weights: str | None) -> nn.Module:
        asked.append((name, weights))
        return make(name, weights=None)

    monkeypatch.setattr(torchvision.models, "get_model", record)
    build_backbone("mobilenet_v2", weights="imagenet")
    build_backbone("mobilenet_v2")
    build_backbone("resnet18", weights="imagenet")
    assert asked == [("mobilenet_v2", "DEFAULT"), ("mobilenet_v2", None), ("resnet18", "IMAGENET1K_V1")]
    assert hasattr(torchvision.models.ResNet50_Weights, "IMAGENET1K_V1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg16"}, r"^backbone: expected one of creatures, resnet18, .*, got 'vgg16'$"),
        ({"name": "resnet18", "output_stride": 32}, r"^output_stride: expected 8 or 16, got 32$"),
        (
            {"name": "creatures", "weights": "imagenet"},
            r"^weights: .* creatures .* 'pretext', 'none' or a file, got 'imagenet'$",
        ),
    ],
)
def test_unknown_names(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_backbone(**arguments)


def test_real_weights_give_features_that_are_alive(imagenet_weights: Path) -> None:
    backbone: Backbone = build_backbone("mobilenet_v2", weights=imagenet_weights).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, 96, 96))
    assert all(bool(maps.isfinite().all()) and float(maps.std()) > 0.01 for maps in features)
