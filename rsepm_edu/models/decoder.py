"""The DeepLabv3+ decoder (Chen et al., ECCV 2018): many fields of view, then back to the objects' edges."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "group"]


def convolution(
    inputs: int, outputs: int, kernel: int, *, dilation: int = 1, separable: bool = False, norm: Norm = "batch"
) -> nn.Sequential:
    """Convolution, norm, ReLU; ``separable`` splits it into one per channel and a 1×1 across channels.

    ``norm``: "batch", or "group", which needs no statistics of the batch (16 channels a group, or all in one).
    """
    padding = (kernel - 1) // 2 * dilation
    if separable:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, inputs, kernel, 1, padding, dilation=dilation, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
        ]
    else:
        layers = [
            nn.Conv2d(inputs, outputs, kernel, 1, padding, dilation=dilation, bias=False),
        ]
    groups = outputs // 16 if outputs % 16 == 0 else 1
    layers.append(nn.GroupNorm(groups, outputs) if norm == "group" else nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


WIDE = 4
"""From inputs this many times as wide as its outputs, a separable ASPP starts with a 1×1 that makes them as narrow."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1×1, one dilated 3×3 per rate, and the mean of the picture, side by side.

    Dropout 0.5 follows (Jo et al. 2022, their code). Separable, this is a light one for CPUs (ours): dropout 0.1, and
    no batch norm after the mean, which so may come from a single picture.

    Separable, on inputs much wider than its outputs (MobileNetV2's 1,280 channels beside 64), it reduces them first:
    else the 3×3 convolutions of every single channel would be the costliest part of a training step.

    Args:
        inputs, outputs: channels.
        rates: dilations, in positions of the feature map.
        separable, norm: see ``convolution``.
    """

    def __init__(
        self, inputs: int, outputs: int, *, rates: tuple[int, ...], separable: bool, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        reduce = separable and inputs > WIDE * outputs
        self.reduce = convolution(inputs, outputs, 1, norm=norm) if reduce else nn.Identity()
        inputs = outputs if reduce else inputs
        self.branches = nn.ModuleList(
            [convolution(inputs, outputs, 1, norm=norm)]
            + [convolution(inputs, outputs, 3, dilation=rate, separable=separable, norm=norm) for rate in rates]
        )
        if separable:
            self.pooled = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True))
        else:
            self.pooled = convolution(inputs, outputs, 1, norm=norm)
        dropout = nn.Dropout(0.1 if separable else 0.5)
        self.join = nn.Sequential(convolution(outputs * (len(rates) + 2), outputs, 1, norm=norm), dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        pooled = self.pooled(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.join(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))


class DeepLabV3PlusDecoder(nn.Module):
    """Stage 5 through ASPP, enlarged to stage 2 and joined with it, to K+1 logits at its stride (4; 2 for Creatures).

    As in the authors' code (Jo et al. 2022): dropout 0.5 and 0.1 after the two 3×3 convolutions, the last one 3×3
    without bias. Separable, a light one for CPUs (ours): narrow low-level features, dropout 0.1 alone, the last 1×1.

    Args:
        inputs: channels of stage 5.
        low_inputs: channels of stage 2.
        labels: K + 1.
        channels: width; 256 in the paper, less on a CPU.
        low_channels: of the low-level features; None: ``channels``, as in RS+EPM (DeepLabv3+ has 48 beside 256), or,
            separable, as narrow as there.
        rates: (6, 12, 18) at output stride 16, (12, 24, 36) at 8; smaller for small pictures.
        separable: atrous separable convolutions, as in the paper's fast variant.
        norm: see ``convolution``.
    """

    def __init__(
        self,
        inputs: int,
        low_inputs: int,
        labels: int,
        *,
        channels: int = 256,
        low_channels: int | None = None,
        rates: tuple[int, ...] = (6, 12, 18),
        separable: bool = False,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        low = low_channels or (max(16, channels * 48 // 256) if separable else channels)
        self.aspp = ASPP(inputs, channels, rates=rates, separable=separable, norm=norm)
        self.low = convolution(low_inputs, low, 1, norm=norm)
        first = convolution(channels + low, channels, 3, separable=separable, norm=norm)
        second = convolution(channels, channels, 3, separable=separable, norm=norm)
        if separable:
            layers = [first, second, nn.Dropout(0.1), nn.Conv2d(channels, labels, 1)]
        else:
            last = nn.Conv2d(channels, labels, 3, padding=1, bias=False)
            layers = [first, nn.Dropout(0.5), second, nn.Dropout(0.1), last]
        self.refine = nn.Sequential(*layers)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Stage 2 (B×C×h×w) and stage 5 to seg_logits, B×(K+1)×h×w."""
        context = F.interpolate(self.aspp(high), size=low.shape[2:], mode="bilinear", align_corners=False)
        return self.refine(torch.cat([context, self.low(low)], dim=1))
