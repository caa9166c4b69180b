"""Backbones of timm, an optional extra (``pip install 'rsepm-edu[timm]'``): ResNeSt, MiT, PVT, EfficientNet, ConvNeXt …

MiT, the backbone of SegFormer (Xie et al., NeurIPS 2021) and AFA (Ru et al., CVPR 2022), is not in timm. It is the same
network as PVTv2 (Wang et al., 2022), which is, but for the hidden layers: four times as wide as their stage throughout,
where PVTv2-B0 to B4 have eight times in the first two stages. So it is made of timm's PVTv2; weights load in its layout
and in that of SegFormer's files.
"""

import difflib
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsepm_edu.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from rsepm_edu.errors import UserError, one_line
from rsepm_edu.models.backbone import Backbone
from rsepm_edu.saved import drop_parallel, expect_finite, read_saved

MITS = ("mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5")
TIMM = "timm:"
"""Before the name of a network of timm."""

MIT_RATIO = 4.0  # width of the hidden layers, in widths of their stage
TRIAL_SIZE = (64, 96)  # of the picture that shows what a network gives


class StageShare(nn.Module):
    """The modules of a network that belong to one stage, to be frozen or put in evaluation mode together.

    They are registered in the network alone, so nothing is saved or averaged twice.

    Args:
        network: holds the modules.
        names: of the stage's parameters within it.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        # Lists in a list: nn.Module does not look for modules there.
        self._owned = [(name, *_owner(network, name)) for name in names]

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The stage's parameters by their names in the network."""
        for name, owner, own_name in self._owned:
            yield f"{prefix}{name}", getattr(owner, own_name)

    def train(self, mode: bool = True) -> "StageShare":
        """Put the modules that have parameters in that mode."""
        super().train(mode)
        for _, owner, _ in self._owned:
            owner.training = mode
        return self


class TimmBackbone(Backbone):
    """A network of timm that gives features of several stages; the last four of them are ours.

    ``stages`` are its parameters' shares (see ``StageShare``): a parameter belongs to the first stage that needs it.

    Args:
        network: made with ``features_only=True``.
        stages: names of each stage's parameters.
        channels, strides: of the four outputs.
        last: whether the network gives its features with the channels last, B×h×w×C, as Swin does.
        mean, std: of the pictures that the network's published weights were trained on, where not ImageNet's.
    """

    factor: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        stages: Sequence[Sequence[str]],
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        last: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__([StageShare(network, names) for names in stages], channels, strides)
        self.network = network
        self.last = last
        # (x · s + m - mean) / std, where x was normalised with m and s
        m, s, mean_, std_ = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD, mean, std))
        self.register_buffer("factor", s / std_, persistent=False)
        self.register_buffer("shift", (m - mean_) / std_, persistent=False)
        self.own_statistics = (tuple(mean), tuple(std)) != (IMAGENET_MEAN, IMAGENET_STD)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """B×3×H×W images normalised with ImageNet's statistics to a tuple of four B×C×h×w."""
        if self.own_statistics:
            images = images * self.factor + self.shift
        features = self.network(images)[-4:]
        return tuple(maps.permute(0, 3, 1, 2) if self.last else maps for maps in features)


def check_timm_name(name: str) -> None:
    """Refuse a network that timm does not have.

    Args:
        name: one of ``MITS``, or "timm:" and a name of timm, with or without the tag of its weights.

    Raises:
        UserError: unknown, or timm is not installed.
    """
    timm = _timm(name)
    short = name.removeprefix(TIMM)
    if name in MITS:
        return
    if timm.is_model(short):
        try:
            timm.get_pretrained_cfg(short)
        except RuntimeError as error:
            raise UserError(
                f"backbone: expected a network and a tag of timm, got {name!r}: {one_line(error)}"
            ) from error
        return
    close = difflib.get_close_matches(short.partition(".")[0], timm.list_models(), n=5)
    hint = f"; it has {', '.join(close)}" if close else ""
    raise UserError(f"backbone: expected the name of a network in timm {timm.__version__}, got {name!r}{hint}")


def build_timm_backbone(
    name: str, *, output_stride: int = 16, weights: str | os.PathLike[str] = "none"
) -> TimmBackbone:
    """Make a backbone of a network of timm.

    Where timm can trade stride for dilation (ResNet, ResNeSt, RegNet, EfficientNet, MobileNet, ConvNeXt and others), it
    does. PVTv2 and MiT do it here: the step to a stage keeps its input's resolution, and the depthwise convolutions
    after it see twice as far (AFA, Ru et al. 2022, does the first with MiT's last stage). All others, Swin, HRNet and
    DenseNet for instance, keep their own last strides, 16 and 32: look at ``strides``. HRNet and a few others want
    pictures whose sides are multiples of 32.

    Args:
        name: one of ``MITS``, or "timm:" and a name of timm, such as "timm:resnest50d", or with the tag of its
            weights, "timm:convnext_tiny.fb_in1k".
        output_stride: 8 or 16, of the last stage, where the network can have it.
        weights: "none" (random); "imagenet": those timm has under that name or tag, downloaded (without a tag its
            first choice, which for some networks has seen more than ImageNet-1k's pictures); or the path of a state
            dict of timm's whole network of that name, or of one that timm can convert.

    Raises:
        UserError: unknown name, stride or weights, timm not installed, or a network that has no stages at strides 4, 8,
            16 and 32 for pictures of any size.
    """
    check_timm_name(name)
    if output_stride not in (8, 16):
        raise UserError(f"output_stride: expected 8 or 16, got {output_stride}")
    network, features = _network_and_features(name, output_stride, _pretrained(name, weights))
    channels = network.feature_info.channels()[-4:]
    last = features[0].shape[2] != TRIAL_SIZE[0] // 4
    config = getattr(network, "pretrained_cfg", {})
    backbone = TimmBackbone(
        network,
        _parameters_by_stage(network, features),
        channels,
        network.feature_info.reduction()[-4:],
        last=last,
        mean=config.get("mean", IMAGENET_MEAN),
        std=config.get("std", IMAGENET_STD),
    )
    return backbone.train()


def _timm(name: str) -> Any:
    """The library, imported only where it is asked for."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UserError(
            f"backbone: expected timm to be installed for {name!r} (pip install 'rsepm-edu[timm]'), got: {error}"
        ) from error


def _create(name: str, **options: Any) -> Any:
    """timm's network of a name."""
    if name in MITS:
        return _timm(name).create_model(f"pvt_v2_{name.removeprefix('mit_')}", mlp_ratios=MIT_RATIO, **options)
    return _timm(name).create_model(name.removeprefix(TIMM), **options)


def _pretrained(name: str, weights: str | os.PathLike[str]) -> dict[str, Any]:
    """The options of timm for weights."""
    if str(weights) == "none":
        return {"pretrained": False}
    if str(weights) == "imagenet":
        if name in MITS:
            raise UserError(
                f"weights: expected 'none' or a file for {name}, of which timm has no weights; got 'imagenet'"
            )
        return {"pretrained": True}
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"{path}: expected a file of weights (or 'none', 'imagenet'), got no file")
    state = read_saved(path, f"weights of {name}")
    if isinstance(state, dict):
        drop_parallel(state)
    expect_finite(state, path)
    try:
        # Into the whole network, which is strict; one that gives features would leave out what does not fit.
        whole = _create(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})
    except Exception as error:  # timm raises many kinds: runtime, key, attribute errors
        raise UserError(f"{path}: expected weights of {name}, got: {one_line(error)}") from error
    return {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": whole.state_dict()}}


def _network_and_features(name: str, output_stride: int, pretrained: dict[str, Any]) -> tuple[Any, list[Tensor]]:
    """The network that gives features, at that stride if it can, and what ``_trial`` makes of it."""
    refused: Exception | None = None
    # Whether a network takes these options only shows when it is asked: some refuse them (with AssertionError where 32
    # is the only stride), some pass over them. Without the second Swin takes pictures of one size only.
    for options in ({"output_stride": output_stride}, {"strict_img_size": False}, {}):
        try:
            network = _create(name, features_only=True, **options, **pretrained)
        except (TypeError, AssertionError) as error:
            refused = error
            continue
        except Exception as error:  # timm raises many kinds, above all on downloads
            if pretrained["pretrained"]:
                raise UserError(
                    f"weights: expected timm's weights of {name} to download, got: {one_line(error)}; "
                    f"--set weights=FILE takes a file that you have, weights=none random ones"
                ) from error
            raise UserError(f"backbone: expected a network with stages, got {name}: {one_line(error)}") from error
        _dilate_pvt(network, output_stride)
        try:
            return network, _trial(name, network)
        except UserError as error:
            refused = error
    if isinstance(refused, UserError):
        raise refused
    raise UserError(f"backbone: expected a network with stages, got {name}: {one_line(refused or TypeError())}")


def _dilate_pvt(network: Any, output_stride: int) -> None:
    """Keep the last stages of PVTv2 or MiT at their input's resolution; other networks stay as they are."""
    stride, dilation = 4, 1
    stages = [module for module in network.modules() if type(module).__name__ == "PyramidVisionTransformerStage"]
    for stage, info in zip(stages[1:], network.feature_info.info[1:], strict=True) if stages else ():
        if stride * 2 <= output_stride:
            stride *= 2
            continue
        info["reduction"] = stride
        _dilate(stage.downsample.proj, dilation)
        stage.downsample.proj.stride = (1, 1)
        dilation *= 2
        for block in stage.blocks:
            _dilate(block.mlp.dwconv, dilation)


def _dilate(convolution: nn.Conv2d, dilation: int) -> None:
    convolution.dilation = (dilation, dilation)
    convolution.padding = (dilation, dilation)  # of a 3×3


def _trial(name: str, network: Any) -> list[Tensor]:
    """The last four stages of a small picture, with gradient, shapes checked; leaves the network in eval mode."""
    said = network.feature_info.reduction()[-4:]
    if len(said) < 4 or said[:2] != [4, 8]:
        raise UserError(f"backbone: expected a network with stages at strides 4, 8, 16 and 32, got {name} with {said}")
    height, width = TRIAL_SIZE
    network.eval()
    try:
        with torch.enable_grad():
            features = list(network(torch.zeros(1, 3, height, width))[-4:])
    except Exception as error:  # networks fail in their own ways on pictures of another size
        raise UserError(
            f"backbone: expected a network for pictures of any size, got {name}, which fails at {height}×{width}: "
            f"{one_line(error)}"
        ) from error
    got = [tuple(maps.shape[1:]) for maps in features]
    shapes = [
        (channels, height // stride, width // stride)
        for channels, stride in zip(network.feature_info.channels()[-4:], said, strict=True)
    ]
    if got != shapes and got != [(h, w, channels) for channels, h, w in shapes]:
        raise UserError(f"backbone: expected {name} to give stages {shapes} of {height}×{width} pixels, got {got}")
    return features


def _parameters_by_stage(network: nn.Module, features: Sequence[Tensor]) -> list[list[str]]:
    """Names of the parameters that each stage needs and none before it does.

    Parameters that no stage needs are fixed: no gradient would ever come to them.
    """
    left = dict(network.named_parameters())
    stages: list[list[str]] = []
    for maps in features:
        needed = []
        if left:  # VGG's last stage is a pool alone
            gradients = torch.autograd.grad(maps.sum(), list(left.values()), allow_unused=True, retain_graph=True)
            needed = [name for name, gradient in zip(left, gradients, strict=True) if gradient is not None]
        stages.append(needed)
        left = {name: parameter for name, parameter in left.items() if name not in needed}
    for parameter in left.values():
        parameter.requires_grad_(False)
    return stages


def _owner(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, and the parameter's name there."""
    path, _, own_name = name.rpartition(".")
    return network.get_submodule(path), own_name
