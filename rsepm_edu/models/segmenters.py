"""Networks of the last stage: DeepLabv2 and DeepLabv3+, trained on pseudo masks alone.

Nothing depends on the statistics of a batch, as in Puzzle-CAM's last stage: the backbone's batch norm is fixed, the
new layers have group norm (DeepLabv3+) or none (DeepLabv2). With few pictures a step, batch statistics are one way to a
loss that is not a number.
"""

import os
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rsepm_edu.errors import UserError
from rsepm_edu.models.backbone import Backbone
from rsepm_edu.models.backbones import build_backbone
from rsepm_edu.models.decoder import DeepLabV3PlusDecoder

Head = Literal["deeplabv2", "deeplabv3+"]


class DeepLabV2Head(nn.Module):
    """Dilated 3×3 convolutions of stage 5 side by side, summed up (Chen et al., TPAMI 2018, ASPP-L).

    Args:
        inputs: channels of stage 5.
        labels: K + 1.
        rates: dilations, in positions of the feature map.
    """

    def __init__(self, inputs: int, labels: int, *, rates: Sequence[int] = (6, 12, 18, 24)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(inputs, labels, 3, padding=rate, dilation=rate) for rate in rates)
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d) and branch.bias is not None
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Stage 5 to seg_logits, B×(K+1)×h×w; ``low`` (stage 2) is not used."""
        return torch.stack([branch(high) for branch in self.branches]).sum(dim=0)


class Segmenter(nn.Module):
    """A backbone and a segmentation head; in training mode too, the backbone's batch norm keeps its statistics.

    Args:
        backbone: see ``build_backbone``.
        head: from (stage 2, stage 5) to seg_logits.
        classes: names of the K classes, background not among them.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.backbone = backbone
        self.head = head

    @property
    def stride(self) -> int:
        """Pixels per position of the last stage."""
        return self.backbone.strides[-1]

    def train(self, mode: bool = True) -> "Segmenter":
        """Put the head in training mode; the backbone stays in evaluation mode (its weights learn all the same)."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """B×3×H×W normalised images to seg_logits B×(K+1)×h×w, at the head's stride."""
        stages = self.backbone(images)
        logits: Tensor = self.head(stages[0], stages[-1])
        return logits


def build_segmenter(
    head: str,
    backbone: str,
    classes: Sequence[str],
    *,
    output_stride: int = 16,
    weights: str | os.PathLike[str] = "none",
    channels: int = 256,
    rates: tuple[int, ...] = (6, 12, 18),
    separable: bool = False,
) -> Segmenter:
    """Make a segmenter from names.

    Args:
        head: "deeplabv2" (uses ``rates`` and one more, their last step further on) or "deeplabv3+".
        backbone, output_stride, weights: see ``build_backbone``.
        classes: names of the K classes.
        channels, separable: of the DeepLabv3+ decoder.
        rates: dilations.

    Raises:
        UserError: an unknown head, or what ``build_backbone`` raises.
    """
    if head not in get_args(Head):
        raise UserError(f"head: expected {' or '.join(get_args(Head))}, got {head!r}")
    body = build_backbone(backbone, output_stride=output_stride, weights=weights)
    labels = len(classes) + 1
    if head == "deeplabv2":
        step = rates[-1] - rates[-2] if len(rates) > 1 else rates[-1]
        top: nn.Module = DeepLabV2Head(body.channels[-1], labels, rates=(*rates, rates[-1] + step))
    else:
        low, high = body.channels[0], body.channels[-1]
        narrow = max(16, channels * 48 // 256)  # DeepLabv3+'s 48 beside 256
        top = DeepLabV3PlusDecoder(
            high,
            low,
            labels,
            channels=channels,
            low_channels=narrow,
            rates=rates,
            separable=separable,
            norm="group",
        )
    return Segmenter(body, top, classes)
