"""AffinityNet and IRNet's class-boundary branch on our backbones: which neighbouring positions belong together.

Our reading, where it differs from the released codes:
    * the backbone is fixed in both, as in IRNet; AffinityNet trained all but its first layers;
    * IRNet has a branch on the stem too; here stem and stage 2 are one, so there are four branches, not five;
    * IRNet works at stride 4, here at the stride of stage 2 (4; 2 for Creatures); AffinityNet at that of stage 3 (8);
    * AffinityNet's branches are an eighth of their stage wide, at least 16: 64 + 128 + 256 = 448 channels on ResNet-50,
      as many as the original has on its Wide ResNet-38.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsepm_edu.methods.random_walk import edge_affinity, feature_affinity, propagate, propagate_affinity
from rsepm_edu.models.backbone import Backbone


class WalkNetwork(nn.Module):
    """A fixed backbone below a head that learns affinities: what both networks share.

    Args:
        backbone: becomes part of the network; its weights get no gradient and its batch norm keeps its statistics.
    """

    published_stride: int
    """Pixels per position in the published network, for whose maps radius and steps of the walk were chosen."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()

    @property
    def stride(self) -> int:
        """Pixels of the picture per position of the affinities."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "WalkNetwork":
        """Put the head in training mode; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def stages(self, images: Tensor) -> tuple[Tensor, ...]:
        """The backbone's four stages, without gradient."""
        with torch.no_grad():
            return self.backbone(images)

    def affinity(self, images: Tensor, *, radius: int) -> Tensor:
        """Affinities of pairs, B×N×h×w planes (see ``random_walk``), with gradient."""
        raise NotImplementedError

    @torch.no_grad()
    def walk(
        self, images: Tensor, seed: Tensor, *, size: torch.Size | None = None, steps: int = 256, **settings: Any
    ) -> Tensor:
        """Let a seed walk by what the network sees in the pictures.

        Args:
            images: B×3×H×W normalised.
            seed: B×K×h×w of any size; resized to the affinities' and the result to ``size``, bilinearly.
            size: of the result; None: the pictures'.
            steps: see ``random_walk``. No step: the seed.
            settings: see ``walk_by``.

        Returns:
            B×K×H×W, without gradient, in the dtype of ``seed``.
        """
        size = images.shape[2:] if size is None else size
        if steps == 0:
            return _resize(seed, size)
        return self.walk_by(self.evidence(images), seed, size, steps=steps, **settings)

    def evidence(self, images: Tensor) -> Tensor:
        """What a walk on the pictures goes by, made once for any number of walks: B×C×h×w."""
        raise NotImplementedError

    def walk_by(
        self,
        evidence: Tensor,
        seed: Tensor,
        size: torch.Size,
        *,
        radius: int = 5,
        beta: float | None = None,
        steps: int = 256,
        clear_edges: bool = True,
    ) -> Tensor:
        """``walk`` of at least one step by ``evidence``, resized to ``size``.

        radius, beta: see ``random_walk``; None: the beta published for the network. clear_edges: see ``propagate``; a
        network without a map of edges has nothing to clear.
        """
        raise NotImplementedError


class BoundaryNetwork(WalkNetwork):
    """IRNet's class-boundary branch (Ahn, Cho & Kwak 2019).

    Each stage goes through a 1×1 convolution and group norm (4 groups), is enlarged to stage 2's size, and through a
    ReLU; all together go through a 1×1 convolution to one channel and a sigmoid.

    Args:
        backbone: see ``WalkNetwork``.
        channels: width of each stage's branch, a multiple of 4.
    """

    published_stride = 4

    def __init__(self, backbone: Backbone, *, channels: int = 32) -> None:
        super().__init__(backbone)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, channels, 1, bias=False), nn.GroupNorm(4, channels))
            for inputs in backbone.channels
        )
        self.join = nn.Conv2d(channels * len(backbone.channels), 1, 1)

    @property
    def stride(self) -> int:
        """That of stage 2."""
        return self.backbone.strides[0]

    def logits(self, images: Tensor) -> Tensor:
        """B×3×H×W normalised images to the edge map before the sigmoid, B×1×h×w."""
        stages = self.stages(images)
        size = stages[0].shape[2:]
        parts = [_resize(branch(stage), size).relu() for branch, stage in zip(self.branches, stages, strict=True)]
        return self.join(torch.cat(parts, dim=1))

    def forward(self, images: Tensor) -> Tensor:
        """B×3×H×W normalised images to the edge map, B×1×h×w in [0, 1]."""
        return self.logits(images).sigmoid()

    def affinity(self, images: Tensor, *, radius: int) -> Tensor:
        """See ``edge_affinity``."""
        return edge_affinity(self(images), radius=radius)

    def evidence(self, images: Tensor) -> Tensor:
        """See ``mirrored_edge``."""
        return self.mirrored_edge(images)

    @torch.no_grad()
    def mirrored_edge(self, images: Tensor) -> Tensor:
        """The edge map of a picture and its mirror image together, as in IRNet's inference: their logits' mean."""
        logits, mirrored = self.logits(images), self.logits(images.flip(-1)).flip(-1)
        return ((logits + mirrored) / 2).sigmoid()

    @torch.no_grad()
    def walk_by(
        self,
        evidence: Tensor,
        seed: Tensor,
        size: torch.Size,
        *,
        radius: int = 5,
        beta: float | None = None,
        steps: int = 256,
        clear_edges: bool = True,
    ) -> Tensor:
        """See ``propagate``; beta is 10 unless given, and each picture's maximum about 1."""
        beta = 10.0 if beta is None else beta
        seed = _resize(seed, evidence.shape[2:])
        walked = propagate(seed, evidence, radius=radius, beta=beta, steps=steps, clear_edges=clear_edges)
        return _resize(walked, size)


class AffinityNetwork(WalkNetwork):
    """AffinityNet (Ahn & Kwak 2018): features whose L1 distance says how little two positions belong together.

    Stages 3, 4 and 5 each go through a 1×1 convolution, are enlarged to stage 3's size, and through an ELU; all
    together go through a 1×1 convolution and an ELU.

    Args:
        backbone: see ``WalkNetwork``.
    """

    published_stride = 8

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        inputs = backbone.channels[1:]
        widths = [max(16, channels // 8) for channels in inputs]
        branches = [nn.Conv2d(channels, width, 1, bias=False) for channels, width in zip(inputs, widths, strict=True)]
        for branch in branches:
            nn.init.kaiming_normal_(branch.weight)
        self.branches = nn.ModuleList(branches)
        self.join = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)
        # As in the released code: from a smaller start all distances are small and all affinities near 1.
        nn.init.xavier_uniform_(self.join.weight, gain=4)

    @property
    def stride(self) -> int:
        """That of stage 3."""
        return self.backbone.strides[1]

    def forward(self, images: Tensor) -> Tensor:
        """B×3×H×W normalised images to features, B×C×h×w."""
        stages = self.stages(images)[1:]
        size = stages[0].shape[2:]
        parts = [F.elu(_resize(branch(stage), size)) for branch, stage in zip(self.branches, stages, strict=True)]
        return F.elu(self.join(torch.cat(parts, dim=1)))

    def affinity(self, images: Tensor, *, radius: int) -> Tensor:
        """See ``feature_affinity``."""
        return feature_affinity(self(images), radius=radius)

    @torch.no_grad()
    def evidence(self, images: Tensor) -> Tensor:
        """The features."""
        features: Tensor = self(images)
        return features

    @torch.no_grad()
    def walk_by(
        self,
        evidence: Tensor,
        seed: Tensor,
        size: torch.Size,
        *,
        radius: int = 5,
        beta: float | None = None,
        steps: int = 256,
        clear_edges: bool = True,
    ) -> Tensor:
        """See ``propagate_affinity``: the background walks as a channel of the seed; beta is 8 unless given."""
        beta = 8.0 if beta is None else beta
        walked = propagate_affinity(_resize(seed, evidence.shape[2:]), evidence, radius=radius, beta=beta, steps=steps)
        return _resize(walked, size)


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    """Bilinear; smoothed first where it gets smaller, as a seed at the picture's size does."""
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=True)
