"""Backbones: from a picture to feature maps of four stages, at strides 4, 8, 16 and 16 (or 8; see each).

Torchvision's ResNets and MobileNets, and a small network for Creatures; timm's are in timm_backbones.py.

Stages are counted as in the papers on ResNet: stage 2 is the decoder's low-level input, stage 5 carries the
CAM, stages 4 and 5 feed SCG.
"""

import os
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from rsepm_edu.errors import UserError
from rsepm_edu.models.backbone import Backbone
from rsepm_edu.models.timm_backbones import MITS, TIMM, build_timm_backbone, check_timm_name
from rsepm_edu.saved import fill, read_saved

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
# Where torchvision's `features` of each MobileNet reach strides 4, 8, 16 and end: stages are the pieces between.
MOBILENETS = {"mobilenet_v2": (4, 7, 14), "mobilenet_v3_large": (4, 7, 13)}
PRETEXT = "creatures_pretext.pt"
BACKBONES = ("creatures", *RESNETS, *MOBILENETS)


class Residual(nn.Module):
    """Two convolutions around a shortcut, batch norm after each; with ``kernel`` 1 they see no farther than before."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, kernel, 1, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def creatures_backbone() -> Backbone:
    """A small network for small pictures: 0.23 million weights, strides 2, 4, 4, 4, all random.

    Stage 2 stays at stride 2, so that the decoder can follow legs that are two pixels wide. The last stage looks at one
    position at a time: a position sees 55 pixels, about an animal's length. SCG compares what lies at two positions.
    """
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
    return Backbone(
        [
            nn.Sequential(stem, Residual(16, 16)),
            nn.Sequential(Residual(16, 32, stride=2), Residual(32, 48)),
            Residual(48, 96),
            Residual(96, 128, kernel=1),
        ],
        channels=(16, 48, 96, 128),
        strides=(2, 4, 4, 4),
    )


def check_backbone(name: str) -> None:
    """Refuse a name that ``build_backbone`` does not know.

    Raises:
        UserError: an unknown name, or one that needs timm where timm is not installed.
    """
    if name in MITS or name.startswith(TIMM):
        check_timm_name(name)
    elif name not in BACKBONES:
        known = f"{', '.join(BACKBONES)}, with timm installed {MITS[0]} to {MITS[-1]} or {TIMM}NAME"
        raise UserError(f"backbone: expected one of {known}, got {name!r}")


def build_backbone(name: str, *, output_stride: int = 16, weights: str | os.PathLike[str] = "none") -> Backbone:
    """Make a backbone.

    Args:
        name: one of ``BACKBONES``; or, with timm, one of ``MITS`` or "timm:" and the name of one of its networks, such
            as "timm:resnest50d" (see ``build_timm_backbone``).
        output_stride: 8 or 16, of the last stage; strides beyond become dilation (Chen et al. 2017), but for ResNets
            at 16, whose last stage just keeps its resolution (Jo et al. 2022). The small
            network for Creatures always has 4, some of timm's always 32: ``strides`` of the backbone tells.
        weights: "none" (random), "pretext" (creatures: learnt from tags of other made-up animals, see
            data_scripts/train_pretext.py), "imagenet" (downloaded: torchvision's first for ResNets, which is what the
            authors started from (Jo et al. 2022), else the newest of torchvision or timm's own), or the path of a state
            dict of torchvision's or timm's network of that name.

    Raises:
        UserError: unknown name, stride or weights.
    """
    check_backbone(name)
    if name in MITS or name.startswith(TIMM):
        return build_timm_backbone(name, output_stride=output_stride, weights=weights)
    if name == "creatures":
        if str(weights) == "imagenet":
            raise UserError("weights: the creatures backbone takes 'pretext', 'none' or a file, got 'imagenet'")
        backbone = creatures_backbone()
        if str(weights) == "pretext":
            with as_file(files("rsepm_edu.models") / PRETEXT) as path:
                load_weights(backbone, path)
        elif str(weights) != "none":
            load_weights(backbone, Path(weights))
        return backbone
    if output_stride not in (8, 16):
        raise UserError(f"output_stride: expected 8 or 16, got {output_stride}")
    known = "IMAGENET1K_V1" if name in RESNETS else "DEFAULT"
    try:
        network: Any = torchvision.models.get_model(name, weights=known if str(weights) == "imagenet" else None)
    except (OSError, RuntimeError) as error:  # no connection, or a broken download
        raise UserError(
            f"weights: expected torchvision's ImageNet weights of {name} to download, got: {error}; "
            f"--set weights=FILE takes a file that you have, weights=none random ones"
        ) from error
    if str(weights) not in ("none", "imagenet"):
        load_weights(network, Path(weights))
    if name in RESNETS:
        stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        stages = [
            nn.Sequential(stem, network.layer1),
            network.layer2,
            network.layer3,
            network.layer4,
        ]
    else:
        ends = MOBILENETS[name]
        parts = list(network.features)
        cuts = (0, *ends, len(parts))
        stages = [nn.Sequential(*parts[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    dilation, strides = 1, [4, 8]
    for stage in stages[2:]:
        if strides[-1] * 2 > output_stride:
            strides.append(strides[-1])
            if name in RESNETS and output_stride == 16:
                keep_resolution(stage)
            else:
                dilation = trade_stride_for_dilation(stage, dilation)
        else:
            strides.append(strides[-1] * 2)
    return Backbone(stages, _channels(stages), strides)


def keep_resolution(stage: nn.Module) -> None:
    """Keep a stage at its input's resolution by stride 1 alone, as the authors' ResNets at stride 16 (Jo et al. 2022).

    Its convolutions then see half as far as they were trained to; ``trade_stride_for_dilation`` avoids that.

    Args:
        stage: changed in place.
    """
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


def trade_stride_for_dilation(stage: nn.Module, dilation: int) -> int:
    """Keep a stage at its input's resolution without changing what its weights see (Chen et al. 2017, atrous).

    The strided convolution keeps the dilation that was due before it, those after it get twice as much.

    Args:
        stage: changed in place.
        dilation: due at the stage's input.

    Returns:
        The dilation due at its output.
    """
    after = 2 * dilation
    passed = False
    for module in stage.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        strided = module.stride != (1, 1)
        if module.kernel_size != (1, 1):
            use = after if passed else dilation
            module.dilation = (use, use)
            module.padding = tuple((k - 1) // 2 * use for k in module.kernel_size)
            passed = passed or strided
        module.stride = (1, 1)
    return after


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict from a file, strictly; names may begin with "module.", as DataParallel leaves them.

    Raises:
        UserError: missing, damaged, not finite, or made for another network.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a file of weights (or 'none', 'imagenet'), got no file")
    fill(network, read_saved(path, f"weights of {type(network).__name__}"), path)


def copy_weights(source: Backbone, target: Backbone, name: str) -> None:
    """Give a backbone the weights of another.

    Args:
        source: left as it is.
        target: takes them.
        name: of the target, for the error.

    Raises:
        UserError: the two are not of one kind.
    """
    try:
        target.load_state_dict(source.state_dict())
    except RuntimeError as error:  # names or shapes
        raise UserError(f"backbone: expected one of {name}, got other weights: {str(error).splitlines()[0]}") from error


@torch.no_grad()
def _channels(stages: Sequence[nn.Module]) -> list[int]:
    """Read the stages' channels off one small picture, whatever the blocks inside are."""
    x, channels = torch.zeros(1, 3, 64, 64), []
    for stage in stages:
        x = stage.eval()(x)
        stage.train()
        channels.append(x.shape[1])
    return channels
