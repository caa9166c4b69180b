"""All settings of a training run, one comment each, and presets to start from."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

from rsepm_edu.errors import UserError
from rsepm_edu.models.backbones import check_backbone

Method = Literal["cam", "puzzle", "rs", "rs+epm"]
Mixing = Literal["edgepredictmix", "classmix", "cda", "cutmix", "saliency-grafting"]
Optimizer = Literal["sgd", "adamw"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

WITHOUT_DECODER: tuple[Method, ...] = ("cam", "puzzle")
"""Methods that train the classifier alone, and no decoder."""


def method_name(method: Method, mixing: Mixing) -> str:
    """For logs and tables: the method, with another mixing than EPM named in its place, such as rs+cutmix."""
    return f"rs+{mixing}" if method == "rs+epm" and mixing != "edgepredictmix" else method


GREATEST = 3.4e38
"""What float32 can hold: settings beyond it would become infinite where they are used."""


KINDS = {int: "a whole number", bool: "True or False", str: "text"}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= GREATEST


@dataclass(frozen=True)
class Settings:
    """What every dataclass of settings can do: check itself, be written and read."""

    def _kinds(self) -> None:
        """Check that every value is of its default's kind and numbers are finite; comes before all ranges."""
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            if isinstance(default, tuple):
                if not (isinstance(value, tuple) and value and all(_is_number(part) for part in value)):
                    raise UserError(f"{field.name}: expected numbers like {default}, got {value!r}")
            elif isinstance(default, float) and not _is_number(value):
                raise UserError(f"{field.name}: expected a number up to {GREATEST:.2g}, got {value!r}")
            elif type(default) in KINDS and type(value) is not type(default):
                raise UserError(f"{field.name}: expected {KINDS[type(default)]}, got {value!r}")

    def _at_most(self, name: str, most: int) -> None:
        if getattr(self, name) > most:
            raise UserError(f"{name}: expected at most {most}, got {getattr(self, name)}")

    def _rates(self, name: str) -> None:
        if not all(type(rate) is int and 1 <= rate <= 999 for rate in getattr(self, name)):
            raise UserError(f"{name}: expected whole numbers from 1 to 999, got {getattr(self, name)}")

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise UserError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")

    def _at_least(self, name: str, least: int) -> None:
        if not getattr(self, name) >= least:  # so written, "not a number" is refused too
            raise UserError(f"{name}: expected at least {least}, got {getattr(self, name)}")

    def _positive(self, name: str) -> None:
        if not 0 < getattr(self, name) < math.inf:
            raise UserError(f"{name}: expected a number above 0, got {getattr(self, name)}")

    def _share(self, name: str) -> None:
        if not 0 <= getattr(self, name) < 1:
            raise UserError(f"{name}: expected 0 or more and less than 1, got {getattr(self, name)}")

    def _check_scale(self, scale: tuple[float, float]) -> None:
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(f"scale: expected 0 < smallest <= greatest <= 1, got {scale}")

    def to_dict(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self)

    def to_json(self) -> str:
        """The settings as JSON, one a line."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings from a plain dictionary, as ``to_dict`` or JSON gives it.

        Raises:
            UserError: an unknown name or a value out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = [name for name in values if name not in known]
        if unknown:
            raise UserError(f"config: expected settings of {cls.__name__}, got {', '.join(unknown)}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Settings of single-stage training; sources in brackets ([J]: Jo, Yu & Kim 2022; ours: chosen here)."""

    # --- what is learnt
    method: Method = "rs+epm"  # tags alone (cam, puzzle), with RecurSeed (rs), with mixing too (rs+epm)
    split: str = "trainaug"  # pictures; only their tags are read, never masks
    seed: int = 0  # of weights, order, crops and mixing

    # --- network
    backbone: str = "resnet50"  # see rsepm_edu.models.backbones.build_backbone [J: resnet50]
    weights: str = "imagenet"  # "none", "imagenet" (downloaded) or a file
    output_stride: int = 16  # pixels per position of the CAM [J]
    decoder_channels: int = 256  # width of the decoder [J]
    decoder_rates: tuple[int, ...] = (6, 12, 18)  # dilations of ASPP [DeepLabv3+ at stride 16]
    separable: bool = False  # light decoder, for CPUs (ours)
    freeze_stages: int = 0  # backbone stages (0-4) that keep their weights (ours, for CPUs)
    freeze_batch_norm: bool = False  # batch norm keeps its statistics: for small batches (ours)

    # --- schedule, in epochs
    epochs: int = 20  # (ours; the authors' number is not known)
    seed_start: int = 5  # classification alone before this epoch [J]
    mix_start: int = 15  # mixing from this epoch on [J]

    # --- optimiser
    optimizer: Optimizer = "sgd"  # sgd [Puzzle-CAM]; adamw learns faster from random weights (ours)
    learning_rate: float = 0.1  # of the backbone (published for Puzzle-CAM, same authors)
    head_factor: float = 10.0  # new layers learn that much faster [Puzzle-CAM]
    bias_factor: float = 2.0  # biases learn that much faster [Puzzle-CAM]
    momentum: float = 0.9  # Nesterov [Puzzle-CAM]; adamw keeps its own (0.9, 0.999)
    weight_decay: float = 1e-4  # [Puzzle-CAM]
    poly_power: float = 0.9  # learning rate × (1 − step / steps) ^ power [J]
    batch_size: int = 32  # pictures per optimiser step, of all processes together [Puzzle-CAM]
    accumulate: int = 1  # parts a batch is split into, to fit memory
    clip_norm: float = 10.0  # greatest length of the gradient; keeps one bad batch from ending a run (ours)
    # 0.997 remembers 333 steps, an epoch of VOC; MovingAverage's fast start would not reach 0.999 in that run's 6,600.
    ema_decay: float = 0.997  # per step, of the averaged weights that are saved and scored [J: EMA; number ours]

    # --- losses
    cam_weight: float = 1.0  # RS, head A [J]
    decoder_weight: float = 1.0  # RS, head B [J]
    mix_tag_weight: float = 1.0  # mixed pictures, classification [J]
    mix_cam_weight: float = 1.0  # mixed pictures, head A [J]
    mix_decoder_weight: float = 1.0  # mixed pictures, head B [J]
    certain: float = 0.55  # conditional filter: foreground from here [J]
    uncertain: float = 0.10  # conditional filter: background up to here [J]
    scg_threshold: float = 0.50  # SCG: cosine similarities below count as 0 [J]
    pamr_stride: int = 4  # pixels per position of PAMR and of the pseudo masks (ours)
    puzzle_alpha: float = 4.0  # method puzzle: weight of the maps' difference, from half of the steps on [Puzzle-CAM]
    mixing: Mixing = "edgepredictmix"  # of method rs+epm [J; the others: what they compare EPM with]

    # --- pictures
    size: int = 512  # crop, pixels [Puzzle-CAM]
    scale: tuple[float, float] = (0.35, 1.0)  # share of the picture's area in a crop (ours)
    jitter: float = 0.3  # brightness, contrast, saturation, changed on the device (ours)
    workers: int = 8  # processes that read ahead, for each GPU

    # --- running
    precision: Precision = "auto"  # auto: bf16 or fp16 on a GPU that has it, else fp32
    panel_every: int = 5  # epochs between pictures of the state; 0: none
    checkpoint_every: int = 1  # epochs between checkpoints
    checkpoint_minutes: float = 10.0  # minutes between checkpoints within an epoch; 0: none

    def __post_init__(self) -> None:
        self._kinds()
        self._choice("method", get_args(Method))
        self._choice("mixing", get_args(Mixing))
        self._choice("optimizer", get_args(Optimizer))
        self._choice("precision", get_args(Precision))
        check_backbone(self.backbone)
        for name in ("epochs", "batch_size", "accumulate", "size", "decoder_channels", "pamr_stride"):
            self._at_least(name, 1)
        for name in ("seed_start", "mix_start", "workers", "panel_every", "freeze_stages", "jitter"):
            self._at_least(name, 0)
        for name in ("cam_weight", "decoder_weight", "mix_tag_weight", "mix_cam_weight", "mix_decoder_weight"):
            self._at_least(name, 0)
        for name in ("head_factor", "bias_factor", "weight_decay", "poly_power"):
            self._at_least(name, 0)
        self._at_least("puzzle_alpha", 0)
        self._at_least("checkpoint_every", 1)
        self._at_least("checkpoint_minutes", 0)
        if self.freeze_stages > 4:
            raise UserError(f"freeze_stages: expected 0 to 4, got {self.freeze_stages}")
        if self.batch_size % self.accumulate:
            raise UserError(f"accumulate: expected a divisor of batch_size {self.batch_size}, got {self.accumulate}")
        if not 0 <= self.scg_threshold <= 1:
            raise UserError(f"scg_threshold: expected 0 to 1, got {self.scg_threshold}")
        if not 0 <= self.uncertain < self.certain <= 1:
            raise UserError(
                f"certain, uncertain: expected 0 <= uncertain < certain <= 1, got {self.certain}, {self.uncertain}"
            )
        self._rates("decoder_rates")
        for name, most in (("decoder_channels", 8192), ("size", 8192), ("workers", 512), ("epochs", 10**6)):
            self._at_most(name, most)
        self._check_scale(self.scale)
        self._positive("learning_rate")
        self._positive("clip_norm")
        self._share("momentum")
        self._share("ema_decay")


PRESETS: dict[str, TrainConfig] = {
    # Generated pictures of 96 pixels, a network from scratch, two CPU cores, minutes.
    "creatures-cpu": TrainConfig(
        backbone="creatures",
        weights="none",
        decoder_channels=48,
        decoder_rates=(2, 4, 6),
        separable=True,
        epochs=36,
        seed_start=22,
        mix_start=31,
        optimizer="adamw",
        learning_rate=3e-3,
        head_factor=1.0,
        weight_decay=0.01,
        batch_size=16,
        ema_decay=0.99,
        # The small network's features are smoother than a ResNet's, so fewer pairs may count as alike; and with the
        # authors' 0.10 too little of the ground counts as background. ORACLE: tuned on masks of the training pictures.
        scg_threshold=0.85,
        certain=0.55,
        uncertain=0.35,
        pamr_stride=2,
        size=96,
        scale=(0.5, 1.0),
        jitter=0.0,
        workers=0,
    ),
    # Photographs with a short side of 224, MobileNetV2 whose first half is fixed, two CPU cores, an hour or two.
    "voc-sample-cpu": TrainConfig(
        backbone="mobilenet_v2",
        decoder_channels=64,
        separable=True,
        freeze_stages=2,
        freeze_batch_norm=True,
        epochs=10,
        seed_start=2,
        mix_start=7,
        # With SGD at 0.01 the first steps of the decoder spoilt the features. ORACLE: seen on masks of `train`.
        optimizer="adamw",
        learning_rate=1e-4,
        weight_decay=0.01,
        batch_size=16,
        ema_decay=0.99,
        # With the authors' 0.10 the decoder paints the wide void around an object as object, with 0.35 it shrinks. SCG
        # at 0.50 spreads these coarse maps too far. ORACLE: compared on 150 masks of `train` after one epoch of RS.
        scg_threshold=0.7,
        uncertain=0.20,
        size=192,
        jitter=0.0,
        workers=0,
    ),
    # The sample of photographs on a GPU: everything learns, from larger crops, for longer (ours). Not run yet.
    "voc-sample-gpu": TrainConfig(
        backbone="mobilenet_v2",
        epochs=20,
        seed_start=4,
        mix_start=14,
        # As in voc-sample-cpu, where they were found.
        optimizer="adamw",
        learning_rate=1e-4,
        weight_decay=0.01,
        scg_threshold=0.7,
        uncertain=0.20,
        batch_size=16,
        ema_decay=0.99,  # 100 of the 162 steps of an epoch
        size=256,
        workers=4,
    ),
    # VOC 2012 trainaug on one large GPU. Not run yet: the published settings where there are any.
    "voc-gpu": TrainConfig(),
    # The same batch in four parts, for the 16 GB of a T4 and the two cores beside it (Colab); fp16 follows from "auto",
    # since a T4 has no bf16. Batch norm sees 8 pictures at a time, and mixing finds partners among them (ours).
    "voc-t4": TrainConfig(accumulate=4, workers=2),
    # Several GPUs, by torchrun: 32 pictures in all, and readers for each GPU.
    "voc-multi-gpu": TrainConfig(workers=4),
    # COCO 2014 as get_coco.py lays it out, on one large GPU. The schedule is ours: a quarter of the epochs classifies,
    # the last quarter mixes, as in voc-gpu; with 2,565 steps an epoch that makes three times voc-gpu's steps.
    "coco-gpu": TrainConfig(
        split="train",
        epochs=8,
        seed_start=2,
        mix_start=6,
        ema_decay=0.999,  # 1,000 steps, 0.4 of an epoch
    ),
}


def preset(name: str, **changes: Any) -> TrainConfig:
    """A preset with some settings changed.

    Raises:
        UserError: unknown preset or setting.
    """
    if name not in PRESETS:
        raise UserError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    known = {field.name for field in fields(TrainConfig)}
    unknown = [key for key in changes if key not in known]
    if unknown:
        raise UserError(f"config: expected settings of TrainConfig, got {', '.join(unknown)}")
    return replace(PRESETS[name], **changes)
