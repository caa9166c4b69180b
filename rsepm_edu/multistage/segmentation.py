"""The last stage: a DeepLabv2 or DeepLabv3+ learns from pseudo masks, as if these were the truth.

Nothing here reads a true mask: the labels are those that the stages before have written.

In other people's code this is the stage whose loss becomes "not a number". What prevents it here:
    * no statistics of a batch: the backbone's batch norm keeps those it came with, the new layers have group norm
      (DeepLabv3+) or none (DeepLabv2);
    * a batch in which every pixel is void costs 0: the sum over no pixel is divided by 1, not by 0;
    * logits become float32 before the soft-max, also where the network runs in half precision;
    * the gradient's length is bounded (``clip_norm``);
    * a loss or gradient that is not finite stops the run before the step is taken, and at the end of an epoch the
      weights are tried once more before they may take the place of the last good ones: the run ends with one line, and
      last.pt holds numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack, get_args

import torch
from torch import Tensor

from rsepm_edu.data.voc import read_classes
from rsepm_edu.errors import UserError
from rsepm_edu.methods.recurseed import decoder_loss
from rsepm_edu.models.backbones import check_backbone
from rsepm_edu.models.segmenters import Head, Segmenter, build_segmenter
from rsepm_edu.multistage.labelled import LabelledConfig, Running, Task, read_labelled, train_labelled
from rsepm_edu.training.checkpoint import read_classes_of, restored
from rsepm_edu.training.config import Optimizer, Precision
from rsepm_edu.training.optimizer import freeze, make_optimizer

FORMAT = "segmenter 1"


@dataclass(frozen=True)
class SegmentationConfig(LabelledConfig):
    """Settings of the training; sources in brackets ([P]: Puzzle-CAM's last stage, Jo & Yu 2021; ours: chosen here)."""

    # --- what is learnt
    head: Head = "deeplabv3+"  # or deeplabv2 [P: both]
    seed: int = 0  # of weights, order, crops and dropout

    # --- network
    backbone: str = "resnet101"  # see rsepm_edu.models.backbones.BACKBONES [P: ResNet-101 or ResNeSt]
    weights: str = "imagenet"  # "none", "imagenet" (downloaded) or a file, where no backbone is given [P]
    output_stride: int = 16  # pixels per position of the last stage [P]
    channels: int = 256  # width of DeepLabv3+'s decoder [DeepLabv3+]
    rates: tuple[int, ...] = (6, 12, 18)  # dilations; DeepLabv2 has one more [DeepLabv3+ at stride 16; DeepLabv2]
    separable: bool = False  # light decoder, for CPUs (ours)
    freeze_stages: int = 0  # backbone stages (0-4) that keep their weights (ours, for CPUs)

    # --- optimiser
    optimizer: Optimizer = "sgd"  # Nesterov [P]; adamw learns faster in few steps (ours)
    epochs: int = 50  # [P]
    learning_rate: float = 0.007  # of the backbone [P]
    head_factor: float = 10.0  # new layers learn that much faster (ours: as published for Puzzle-CAM's first stage)
    bias_factor: float = 2.0  # biases learn that much faster (ours: the same)
    momentum: float = 0.9  # [P]; adamw keeps its own (0.9, 0.999)
    weight_decay: float = 4e-5  # [P]
    poly_power: float = 0.9  # learning rate × (1 − step / steps) ^ power [P]
    batch_size: int = 32  # [P]
    clip_norm: float = 10.0  # greatest length of the gradient (ours)

    # --- pictures
    size: int = 512  # crop, pixels [P]
    scale: tuple[float, float] = (0.35, 1.0)  # share of the picture's area in a crop (ours)
    jitter: float = 0.0  # brightness, contrast, saturation (ours)
    workers: int = 8  # processes that read ahead

    # --- running
    precision: Precision = "auto"  # auto: bf16 or fp16 on a GPU that has it, else fp32

    def __post_init__(self) -> None:
        self._choice("head", get_args(Head))
        check_backbone(self.backbone)
        self._choice("optimizer", get_args(Optimizer))
        self._at_least("channels", 1)
        self._at_most("channels", 8192)
        self._rates("rates")
        for name in ("freeze_stages", "weight_decay", "head_factor", "bias_factor"):
            self._at_least(name, 0)
        if self.freeze_stages > 4:
            raise UserError(f"freeze_stages: expected 0 to 4, got {self.freeze_stages}")
        self._share("momentum")
        self._check()


SEGMENTATION_PRESETS: dict[str, SegmentationConfig] = {
    # Generated pictures of 96 pixels on a CPU; starts from the backbone of a network trained on their tags. The batches
    # are small, as pictures are few and nothing depends on a batch's statistics.
    "creatures-cpu": SegmentationConfig(
        backbone="creatures",
        weights="none",
        channels=48,
        rates=(2, 4, 6),
        separable=True,
        optimizer="adamw",
        epochs=24,  # after 8, 200 steps on 200 pictures, it still missed a third of the area
        # That backbone has learnt already. At the head's own rate, 3e-3, the training loss came down more slowly.
        learning_rate=3e-4,
        weight_decay=0.01,
        batch_size=8,
        size=96,
        scale=(0.5, 1.0),
        workers=0,
    ),
    # Photographs with a short side of 224, MobileNetV2 whose first half is fixed, two CPU cores. Not run in full yet.
    "voc-sample-cpu": SegmentationConfig(
        backbone="mobilenet_v2",
        channels=64,
        separable=True,
        freeze_stages=2,
        optimizer="adamw",
        epochs=10,
        learning_rate=1e-4,
        weight_decay=0.01,
        batch_size=16,
        size=192,
        workers=0,
    ),
    # VOC 2012 trainaug on one GPU. Not run yet: the published settings where there are any.
    "voc-gpu": SegmentationConfig(),
}


def segmenter_from_config(
    config: SegmentationConfig, classes: Sequence[str], *, weights: str | None = None
) -> Segmenter:
    """The network of a run, with the backbone's weights it starts from or those named by ``weights``."""
    return build_segmenter(
        config.head,
        config.backbone,
        classes,
        output_stride=config.output_stride,
        weights=config.weights if weights is None else weights,
        channels=config.channels,
        rates=config.rates,
        separable=config.separable,
    )


def is_segmenter(path: str | Path) -> bool:
    """Whether a file is a checkpoint of this training; False also where there is none or it cannot be read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whoever reads the file in earnest says what is wrong with it
        return False
    return isinstance(state, dict) and state.get("format") == FORMAT


def read_segmenter(path: str | Path) -> tuple[Segmenter, SegmentationConfig]:
    """The network of a checkpoint, on the CPU, in evaluation mode, and the settings it was trained with.

    Raises:
        UserError: missing, unreadable, or not a checkpoint of this training.
    """
    config, state = read_labelled(Path(path), FORMAT, SegmentationConfig)
    classes = read_classes_of(Path(path), state)
    network = restored(Path(path), lambda: segmenter_from_config(config, classes, weights="none"), state.get("network"))
    return network, config


def load_segmenter(path: str | Path) -> Segmenter:
    """The network of a checkpoint; see ``read_segmenter``."""
    return read_segmenter(path)[0]


def train_segmenter(
    config: SegmentationConfig,
    root: str | Path,
    split: str,
    labels: str | Path,
    out: str | Path,
    **running: Unpack[Running],
) -> Segmenter:
    """Train on pseudo masks; see ``train_labelled`` for what it takes, leaves and raises.

    Args:
        config: the settings.
        root, split, labels, out: see ``train_labelled``.
        running: see ``Running``.

    Returns:
        The network, in evaluation mode.
    """
    classes = read_classes(root)

    def build(weights: str) -> Segmenter:
        network = segmenter_from_config(config, classes, weights=weights)
        freeze(network, config)
        return network

    def optimizer(network: Segmenter) -> torch.optim.Optimizer:
        return make_optimizer(network, config)

    task = Task(config.head, FORMAT, build, optimizer, segmentation_loss, {"classes": list(classes)})
    return train_labelled(config, task, root, split, labels, out, **running)


def segmentation_loss(network: Segmenter, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the pixels of a batch that are not void, 0 where all are.

    Args:
        network: whose logits are enlarged to the labels' size.
        images: B×3×H×W normalised.
        labels: B×H×W uint8, 255 void.

    Returns:
        A scalar, float32 or better.
    """
    return decoder_loss(network(images), labels.long())
