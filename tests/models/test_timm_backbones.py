import copy
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rsepm_edu.data.transforms import normalise
from rsepm_edu.errors import UserError
from rsepm_edu.models.backbones import build_backbone, check_backbone

CHANNELS = {
    "timm:resnest14d": (256, 512, 1024, 2048),
    "timm:efficientnet_b0": (24, 40, 112, 320),
    "timm:convnext_atto": (40, 80, 160, 320),
    "timm:pvt_v2_b0": (32, 64, 160, 256),
    "mit_b0": (32, 64, 160, 256),
}


def test_without_timm_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for name in ("timm:resnest50d", "mit_b1"):
        with pytest.raises(UserError, match=rf"^backbone: expected timm to be installed for '{name}' \(pip install"):
            build_backbone(name)
    check_backbone("resnet50")


timm = pytest.importorskip("timm")


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", CHANNELS)
def test_stages_have_the_strides_and_channels_they_name(name: str, output_stride: int) -> None:
    backbone = build_backbone(name, output_stride=output_stride)
    assert all(module.training for module in backbone.modules())
    assert backbone.strides == (4, 8, output_stride, output_stride)
    assert backbone.channels == CHANNELS[name]
    with torch.no_grad():
        features = backbone.eval()(torch.randn(2, 3, 96, 64))
    shapes = [tuple(maps.shape) for maps in features]
    assert shapes == [(2, c, 96 // s, 64 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)]
    assert all(float(maps.std()) > 0 for maps in features)


def test_a_network_that_cannot_trade_its_stride_says_so_in_strides() -> None:
    backbone = build_backbone("timm:edgenext_xx_small", output_stride=8).eval()
    assert backbone.strides == (4, 8, 16, 32)
    with torch.no_grad():
        assert [maps.shape[-1] for maps in backbone(torch.zeros(1, 3, 64, 64))] == [16, 8, 4, 2]


def test_channels_at_the_end_are_brought_to_the_front() -> None:
    backbone = build_backbone("timm:swin_tiny_patch4_window7_224").eval()
    assert backbone.channels == (96, 192, 384, 768) and backbone.strides == (4, 8, 16, 32)
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(maps.shape[1:]) for maps in features] == [(96, 16, 24), (192, 8, 12), (384, 4, 6), (768, 2, 3)]


def test_batch_norm_has_seen_nothing_yet() -> None:
    backbone = build_backbone("timm:resnest14d")
    counts = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert counts and all(module.num_batches_tracked == 0 for module in counts)


# stages as shares of the parameters


@pytest.mark.parametrize("name", ["timm:convnext_atto", "mit_b0", "timm:efficientnet_b0"])
def test_stages_share_out_what_learns_and_register_nothing_twice(name: str) -> None:
    backbone = build_backbone(name)
    learning = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    shares = [{id(parameter) for parameter in stage.parameters()} for stage in backbone.stages]
    assert set().union(*shares) == learning and sum(map(len, shares)) == len(learning)
    assert all(key.startswith("network.") for key in backbone.state_dict())
    # A stage's features change with its own parameters and those before, never with those after.
    backbone.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone(images)
        for parameter in backbone.stages[2].parameters():
            parameter.add_(0.1)
        after = backbone(images)
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True, True, False, False]


def test_a_stage_is_frozen_alone_and_a_copy_has_stages_of_its_own() -> None:
    backbone = build_backbone("timm:efficientnet_b0")
    other = copy.deepcopy(backbone)
    other.stages[0].requires_grad_(False).eval()
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert all(module.training for module in backbone.modules())
    frozen = {name for name, parameter in other.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"network.{name}" for name, _ in other.stages[0].named_parameters()}
    norms = [module for module in other.network.modules() if isinstance(module, nn.BatchNorm2d)]
    still = [module for module in norms if not module.training]
    assert 0 < len(still) < len(norms) and all(not module.weight.requires_grad for module in still)


# dilation of PVTv2 and MiT, which is ours


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_computes_the_original_features_and_those_between(output_stride: int, tmp_path: Path) -> None:
    """With attention, which looks everywhere, left out: every second (fourth) position is the original's."""
    torch.manual_seed(0)
    original = timm.create_model("pvt_v2_b0").double().eval()
    with torch.no_grad():
        for stage in original.stages:
            for block in stage.blocks:
                block.attn.proj.weight.zero_()
                block.mlp.dwconv.weight.normal_()
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone("timm:pvt_v2_b0", output_stride=output_stride, weights=tmp_path / "weights.pth")
    images = torch.randn(1, 3, 96, 128, dtype=torch.float64)
    with torch.no_grad():
        dense = backbone.double().eval()(images)
        wanted, x = [], original.patch_embed(images)
        for stage in original.stages:
            x = stage(x)
            wanted.append(x)
    for maps, plain in zip(dense, wanted, strict=True):
        step = maps.shape[-1] // plain.shape[-1]
        torch.testing.assert_close(maps[..., ::step, ::step], plain, rtol=1e-5, atol=1e-6)  # the file is float32
    assert dense[3].shape[-1] == 128 // output_stride


# MiT


@pytest.mark.parametrize(("name", "parameters"), [("mit_b0", 3_319_392), ("mit_b1", 13_151_424)])
def test_mit_is_as_large_as_published(name: str, parameters: int) -> None:
    """Sizes of transformers' SegformerModel; Xie et al. 2021, table 1, say 3.4 and 13.1 million."""
    assert sum(parameter.numel() for parameter in build_backbone(name).parameters()) == parameters


def published_name(name: str) -> str:
    """A parameter's name in the files of PVT and SegFormer, such as block1.0.mlp.dwconv.dwconv.bias."""
    name = name.replace("dwconv", "dwconv.dwconv")
    name = re.sub(r"^patch_embed", "patch_embed1", name)
    name = re.sub(r"^stages\.(\d)\.downsample", lambda m: f"patch_embed{int(m[1]) + 1}", name)
    name = re.sub(r"^stages\.(\d)\.blocks", lambda m: f"block{int(m[1]) + 1}", name)
    return re.sub(r"^stages\.(\d)\.norm", lambda m: f"norm{int(m[1]) + 1}", name)


@pytest.mark.parametrize("published", [False, True])
def test_weights_of_mit_load_in_either_layout(published: bool, tmp_path: Path) -> None:
    network = timm.create_model("pvt_v2_b0", mlp_ratios=4.0)
    state = {published_name(name) if published else name: value for name, value in network.state_dict().items()}
    torch.save(state, tmp_path / "mit_b0.pth")
    backbone = build_backbone("mit_b0", weights=tmp_path / "mit_b0.pth")
    loaded = dict(backbone.network.named_parameters())
    assert torch.equal(loaded["stages_2.blocks.1.mlp.dwconv.weight"], network.stages[2].blocks[1].mlp.dwconv.weight)
    assert torch.equal(loaded["patch_embed.proj.weight"], network.patch_embed.proj.weight)


# weights


def test_weights_come_from_a_file_of_timms_whole_network(tmp_path: Path) -> None:
    network = timm.create_model("resnest14d")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    loaded = build_backbone("timm:resnest14d", weights=str(tmp_path / "weights.pth")).network.state_dict()
    wanted = network.state_dict()
    assert set(wanted) - set(loaded) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.items())


@pytest.mark.parametrize("kind", ["missing", "text", "wrapped", "other network", "half", "no tensors"])
def test_a_wrong_file_of_weights_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = timm.create_model("convnext_atto").state_dict()
    contents: dict[str, Any] = {
        "wrapped": {"weights": state},
        "other network": {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        "half": {name: value for name, value in state.items() if not name.startswith("stages.3")},
        "no tensors": [1, 2, 3],
    }
    if kind == "text":
        path.write_text("<html>404</html>")
    elif kind in contents:
        torch.save(contents[kind], path)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: expected .*weights.*, got") as info:
        build_backbone("timm:convnext_atto", weights=path)
    assert "\n" not in str(info.value)


def test_imagenet_means_the_weights_of_timm_and_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def offline(name: str, **options: Any) -> nn.Module:
        asked.append({"name": name} | options)
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        UserError, match="^weights: expected timm's weights of timm:resnest14d to download, got: no route"
    ):
        build_backbone("timm:resnest14d", weights="imagenet")
    assert asked[0] == {"name": "resnest14d", "features_only": True, "output_stride": 16, "pretrained": True}
    with pytest.raises(UserError, match="^weights: expected 'none' or a file for mit_b1, of which timm has no weights"):
        build_backbone("mit_b1", weights="imagenet")


def test_pictures_are_normalised_as_the_networks_own_weights_expect() -> None:
    backbone = build_backbone("timm:resnetv2_50").eval()  # mean and deviation 0.5
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        wanted = backbone.network((pixels / 255 - 0.5) / 0.5)[-4:]
        features = backbone(normalise(pixels))
    for maps, plain in zip(features, wanted, strict=True):
        torch.testing.assert_close(maps, plain, rtol=1e-3, atol=1e-4)


# names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnest50", r"expected the name of a network in timm .*, got 'timm:resnest50'; it has resnest50d"),
        ("timm:", r"expected the name of a network in timm .*, got 'timm:'$"),
        ("timm:hf-hub:someone/something", r"expected the name of a network in timm"),
        ("timm:convnext_atto.nope", r"expected a network and a tag of timm, got 'timm:convnext_atto.nope'"),
        ("timm:vit_tiny_patch16_224", r"stages at strides 4, 8, 16 and 32, got timm:vit_tiny_patch16_224 with \[16"),
        ("timm:maxvit_nano_rw_256", r"for pictures of any size, got timm:maxvit_nano_rw_256, which fails at 64×96: "),
        ("mit_b6", r"expected one of creatures, .* mit_b0 to mit_b5 or timm:NAME, got 'mit_b6'$"),
    ],
)
def test_what_cannot_be_a_backbone(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^backbone: .*{message}"):
        build_backbone(name)


def test_output_stride() -> None:
    with pytest.raises(UserError, match="^output_stride: expected 8 or 16, got 32$"):
        build_backbone("mit_b0", output_stride=32)
