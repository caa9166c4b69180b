"""Learning where seeds may walk: confident labels from seeds, then AffinityNet or IRNet's boundaries from the labels.

Nothing here reads a mask. The labels come from a trained network's seeds, refined by a function that is given
(in the papers a dense CRF), and lie in a folder of their own, so that they can be looked at and made once (stages.py).

Our reading, where it differs from IRNet's released code:
    * crops are cut and resized as in the training of the single-stage network, not scaled by 0.5 to 1.5 and padded;
    * labels are taken at the middle of each position of the affinities, not at its upper left corner;
    * AffinityNet learns from the same labels as IRNet; in its own code the two passes differ in the power of the
      background, not in a threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.methods.random_walk import affinity_labels, affinity_loss, confident_labels
from rsepm_edu.models.affinity import AffinityNetwork, BoundaryNetwork, WalkNetwork
from rsepm_edu.models.backbones import build_backbone, check_backbone
from rsepm_edu.multistage.labelled import LabelledConfig, Running, Task, read_labelled, train_labelled
from rsepm_edu.training.checkpoint import entry, restored
from rsepm_edu.training.config import Precision

FORMAT = "walk 1"

Kind = Literal["boundary", "affinity"]
"""IRNet's class boundaries, or AffinityNet's features."""
Refine = Callable[[Tensor, Tensor], Tensor]
"""Pictures B×3×H×W uint8 and label maps B×H×W int64 (0 background, 1 … K) to better label maps."""


@dataclass(frozen=True)
class WalkConfig(LabelledConfig):
    """Settings of the training; sources in brackets ([I]: IRNet, Ahn et al. 2019; ours: chosen here)."""

    # --- what is learnt
    seed: int = 0  # of weights, order and crops
    radius: int = 10  # of the pairs, in positions [I]; AffinityNet has 5

    # --- network
    backbone: str = "resnet50"  # see rsepm_edu.models.backbones.build_backbone [I]
    weights: str = "imagenet"  # "none", "imagenet" (downloaded) or a file, where no backbone is given [I]
    output_stride: int = 16  # [I]

    # --- optimiser: SGD
    epochs: int = 3  # [I]
    learning_rate: float = 0.1  # [I]
    momentum: float = 0.0  # [I: in effect 1e-4, the weight decay being passed in its place]; 0.9 learns faster (ours)
    weight_decay: float = 1e-4  # [I]
    poly_power: float = 0.9  # learning rate × (1 − step / steps) ^ power [I]
    batch_size: int = 32  # [I]
    clip_norm: float = 10.0  # greatest length of the gradient (ours)

    # --- pictures
    size: int = 512  # crop, pixels [I]
    scale: tuple[float, float] = (0.35, 1.0)  # share of the picture's area in a crop (ours)
    jitter: float = 0.0  # brightness, contrast, saturation [I]
    workers: int = 8  # processes that read ahead

    # --- running
    precision: Precision = "auto"  # auto: bf16 or fp16 on a GPU that has it, else fp32

    def __post_init__(self) -> None:
        check_backbone(self.backbone)
        self._at_least("radius", 2)
        self._at_least("weight_decay", 0)
        self._share("momentum")
        self._check()


WALK_PRESETS: dict[str, WalkConfig] = {
    # Generated pictures of 96 pixels on a CPU, above the backbone of a network trained on their tags.
    "creatures-cpu": WalkConfig(
        radius=5,
        backbone="creatures",
        weights="none",
        epochs=5,
        momentum=0.9,
        batch_size=16,
        size=96,
        scale=(0.5, 1.0),
        workers=0,
    ),
    # Photographs with a short side of 224, above the MobileNetV2 of the single-stage network. What the walk it leads
    # does to seeds: results/voc_sample_walks.
    "voc-sample-cpu": WalkConfig(
        radius=5,
        backbone="mobilenet_v2",
        weights="none",
        momentum=0.9,
        batch_size=16,
        size=192,
        workers=0,
    ),
    # VOC 2012 trainaug on one GPU. Not run yet: the published settings where there are any.
    "voc-gpu": WalkConfig(),
}


def walk_labels(
    images: Tensor, seed: Tensor, refine: Refine, *, foreground: float = 0.30, background: float = 0.05
) -> Tensor:
    """Confident labels of a batch: two passes, one that trusts the classes and one that trusts the background.

    Args:
        images: B×3×H×W uint8.
        seed: B×K×H×W in [0, 1], absent classes 0.
        refine: a dense CRF on labels in the papers.
        foreground: background score of the first pass; 0.30 in IRNet, 0.40 in Puzzle-CAM.
        background: background score of the second; 0.05 in IRNet, 0.10 in Puzzle-CAM.

    Returns:
        B×H×W, 0 background, 1 … K, 255 void (see ``confident_labels``).

    Raises:
        ValueError: the thresholds are not 0 <= background < foreground < 1.
    """
    if not 0 <= background < foreground < 1:
        raise ValueError(f"expected 0 <= background < foreground < 1, got {background} and {foreground}")
    first, second = (refine(images, labels_at(seed, threshold)) for threshold in (foreground, background))
    return confident_labels(first, second)


def build_walk_network(config: WalkConfig, kind: Kind, *, weights: str | None = None) -> WalkNetwork:
    """The network of a run, with the backbone's weights it starts from or those named by ``weights``.

    Raises:
        UserError: an unknown kind, or what ``build_backbone`` raises.
    """
    if kind not in get_args(Kind):
        raise UserError(f"walk: expected one of {', '.join(get_args(Kind))}, got {kind!r}")
    backbone = build_backbone(
        config.backbone,
        output_stride=config.output_stride,
        weights=config.weights if weights is None else weights,
    )
    return {"boundary": BoundaryNetwork, "affinity": AffinityNetwork}[kind](backbone)


def load_walk_network(path: str | Path) -> WalkNetwork:
    """The network of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        UserError: missing, unreadable, or not a checkpoint of this training.
    """
    config, state = read_labelled(Path(path), FORMAT, WalkConfig)
    kind = entry(Path(path), state, "kind", str)
    return restored(Path(path), lambda: build_walk_network(config, kind, weights="none"), state.get("network"))


def train_walk(
    config: WalkConfig,
    kind: Kind,
    root: str | Path,
    split: str,
    labels: str | Path,
    out: str | Path,
    **running: Unpack[Running],
) -> WalkNetwork:
    """Train on confident labels; see ``train_labelled`` for what it takes, leaves and raises.

    Args:
        config: the settings.
        kind: of the network.
        root, split, labels, out: see ``train_labelled``.
        running: see ``Running``.

    Returns:
        The network, in evaluation mode.
    """

    def build(weights: str) -> WalkNetwork:
        return build_walk_network(config, kind, weights=weights)

    def optimizer(network: WalkNetwork) -> torch.optim.Optimizer:
        learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return torch.optim.SGD(
            [{"params": learnt, "factor": 1.0}],
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )

    def loss(network: WalkNetwork, images: Tensor, labels: Tensor) -> Tensor:
        return pair_loss(network, images, labels, radius=config.radius)

    task = Task(kind, FORMAT, build, optimizer, loss, {"kind": kind})
    return train_labelled(config, task, root, split, labels, out, **running)


def pair_loss(network: WalkNetwork, images: Tensor, labels: Tensor, *, radius: int) -> Tensor:
    """The loss of either network on a batch.

    Args:
        network: whose affinities are compared with the labels.
        images: B×3×H×W normalised.
        labels: B×H×W uint8, 255 void; taken at the middle of each position of the affinities.
        radius: of the pairs, in positions.

    Returns:
        A scalar (see ``affinity_loss``).
    """
    affinity = network.affinity(images, radius=radius)
    at_stride = F.interpolate(labels[:, None].float(), size=affinity.shape[2:], mode="nearest-exact")[:, 0]
    return affinity_loss(affinity, affinity_labels(at_stride.to(torch.uint8), radius=radius))
