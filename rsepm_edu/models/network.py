"""One network, two heads: A says what is in the picture and gives the CAM, B (the decoder) says where."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from rsepm_edu.methods.cam import cam_from_features
from rsepm_edu.models.backbone import Backbone
from rsepm_edu.models.backbones import build_backbone
from rsepm_edu.models.decoder import DeepLabV3PlusDecoder


class Outputs(NamedTuple):
    """What a forward pass gives.

    tag_logits: B×K. cam: B×K×h×w raw scores at the last stage's stride, whose mean is tag_logits.
    seg_logits: B×(K+1)×h×w at stage 2's stride, or None. stages: the backbone's four feature maps.
    """

    tag_logits: Tensor
    cam: Tensor
    seg_logits: Tensor | None
    stages: tuple[Tensor, ...]


class SingleStageNetwork(nn.Module):
    """Backbone, head A (bias-free 1×1 convolution to K maps) and head B (DeepLabv3+ decoder).

    ``learnt`` names the heads whose maps mean something, of "cam" and "decoder". A new network claims both, for whoever
    makes it trains it; one that is read from a file claims what its training had reached.

    Args:
        backbone: see ``build_backbone``.
        classes: names of the K classes, background not among them.
        decoder_channels: width of the decoder.
        decoder_rates: dilations of its ASPP.
        separable: light decoder, for CPUs.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        *,
        decoder_channels: int = 256,
        decoder_rates: tuple[int, ...] = (6, 12, 18),
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.learnt: tuple[str, ...] = ("cam", "decoder")
        self.backbone = backbone
        self.classifier = nn.Conv2d(backbone.channels[-1], len(self.classes), 1, bias=False)
        self.decoder = DeepLabV3PlusDecoder(
            backbone.channels[-1],
            backbone.channels[0],
            len(self.classes) + 1,
            channels=decoder_channels,
            rates=decoder_rates,
            separable=separable,
        )

    @property
    def num_classes(self) -> int:
        """K, background not counted."""
        return len(self.classes)

    @property
    def stride(self) -> int:
        """Pixels per position of the CAM."""
        return self.backbone.strides[-1]

    def forward(self, images: Tensor, *, decode: bool = True) -> Outputs:
        """B×3×H×W normalised images to ``Outputs``; ``decode=False`` leaves the decoder out."""
        stages = self.backbone(images)
        cam = cam_from_features(stages[-1], self.classifier.weight)
        seg_logits = self.decoder(stages[0], stages[-1]) if decode else None
        return Outputs(cam.mean(dim=(2, 3)), cam, seg_logits, stages)


def build_network(
    backbone: str,
    classes: Sequence[str],
    *,
    output_stride: int = 16,
    weights: str | os.PathLike[str] = "none",
    decoder_channels: int = 256,
    decoder_rates: tuple[int, ...] = (6, 12, 18),
    separable: bool = False,
) -> SingleStageNetwork:
    """Make a network from names; see ``build_backbone`` and ``SingleStageNetwork`` for the arguments."""
    return SingleStageNetwork(
        build_backbone(backbone, output_stride=output_stride, weights=weights),
        classes,
        decoder_channels=decoder_channels,
        decoder_rates=decoder_rates,
        separable=separable,
    )
