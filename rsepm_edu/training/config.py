"""All settings of a training run, one comment each, and presets to start from."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

from rsepm_edu.errors import UserError
from rsepm_edu.models.backbones import check_backbone
from rsepm_edu.training.mixings import Mixing

Method = Literal["cam", "puzzle", "rs"]
Crop = Literal["pad", "zoom"]
Optimizer = Literal["sgd", "adamw"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

WITHOUT_DECODER: tuple[Method, ...] = ("cam", "puzzle")
"""Methods that train the classifier alone, and no decoder."""


def method_name(method: Method, mixing: Mixing) -> str:
    """For logs, folders and tables: the method with its mixing, such as rs+epm."""
    return method if mixing == "none" else f"{method}+{mixing}"


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
    method: Method = "rs"  # tags alone (cam, puzzle), or with RecurSeed (rs)
    mixing: Mixing = "epm"  # with rs, from mix_start on: EdgePredictMix [J], what they compare it with, or none
    split: str = "trainaug"  # pictures; only their tags are read, never masks
    seed: int = 0  # of weights, order, crops and mixing

    # --- network
    backbone: str = "resnet50"  # see rsepm_edu.models.backbones.build_backbone [J: resnet50]
    weights: str = "imagenet"  # "none", "imagenet" (downloaded), "pretext" (creatures) or a file
    output_stride: int = 16  # pixels per position of the CAM [J]
    decoder_channels: int = 256  # width of the decoder [J]
    decoder_rates: tuple[int, ...] = (6, 12, 18)  # dilations of ASPP [J]
    separable: bool = False  # light decoder, for CPUs (ours)
    freeze_stages: int = 0  # backbone stages (0-4) that keep their weights (ours, for CPUs)
    freeze_batch_norm: bool = False  # batch norm keeps its statistics: for small batches (ours)

    # --- schedule, in epochs
    epochs: int = 30  # [J: their slides show t = 5, 15, 30]
    rs_start: int = 5  # classification alone before this epoch [J]
    mix_start: int = 15  # mixing from this epoch on [J]
    puzzle_start: int = 0  # method puzzle: classification alone before this epoch [Puzzle-CAM: 0]

    # --- optimiser. RS's own is not known: these are of later code of the same authors (DHR, COIN: [H]). Puzzle-CAM's
    # released code has SGD at 0.1 with weight decay 1e-4, batch 32 and, since it hands the decay over by position, a
    # momentum of 1e-4 where 0.9 was meant.
    optimizer: Optimizer = "sgd"  # sgd [H]; adamw learns faster from random weights (ours)
    learning_rate: float = 1e-3  # of the backbone [H]
    head_factor: float = 10.0  # new layers learn that much faster [H, Puzzle-CAM]
    bias_factor: float = 2.0  # biases learn that much faster [H, Puzzle-CAM]
    momentum: float = 0.9  # of sgd, without Nesterov [H]; adamw keeps its own (0.9, 0.999)
    weight_decay: float = 4e-5  # [H]
    poly_power: float = 0.9  # learning rate × (1 − step / steps) ^ power [J]
    batch_size: int = 16  # pictures per optimiser step, of all processes together [H]
    accumulate: int = 1  # parts a batch is split into, to fit memory
    clip_norm: float = 10.0  # greatest length of the gradient; keeps one bad batch from ending a run (ours)
    ema_decay: float = 0.999  # per step, of the averaged weights: the teacher, saved and scored [H; as teacher: ours]

    # --- losses
    cam_weight: float = 1.0  # L_rec [J]
    decoder_weight: float = 1.0  # L_seg [J]
    mix_tag_weight: float = 0.0  # mixed pictures, classification [J: none in the newest figure; 1.0 in April 2022]
    mix_cam_weight: float = 1.0  # mixed pictures, L_rec [J]
    mix_decoder_weight: float = 1.0  # mixed pictures, L_seg [J]
    certain: float = 0.55  # conditional filter: foreground from here [J]
    uncertain: float = 0.10  # conditional filter: background up to here [J]
    scg_threshold: float = 0.50  # SCG: cosine similarities below count as 0 [J]
    pamr_stride: int = 4  # pixels per position of PAMR and of the pseudo masks (ours)
    puzzle_alpha: float = 4.0  # method puzzle: weight of the maps' difference, half of the way on [Puzzle-CAM]

    # --- pictures
    size: int = 512  # crop, pixels [J]
    crop: Crop = (
        "pad"  # pad: resized as a whole, cut or padded with zeros [J]; zoom: a random part of it, resized (ours)
    )
    # pad: long side of the picture, in crops [J: 320 to 640 of 512]; zoom: share of the picture's area (ours)
    scale: tuple[float, float] = (0.625, 1.25)
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
        if self.method in WITHOUT_DECODER and self.mixing != "none":
            raise UserError(f"mixing: expected none with method {self.method}, got {self.mixing!r}")
        self._choice("crop", get_args(Crop))
        self._choice("optimizer", get_args(Optimizer))
        self._choice("precision", get_args(Precision))
        check_backbone(self.backbone)
        for name in ("epochs", "batch_size", "accumulate", "size", "decoder_channels", "pamr_stride"):
            self._at_least(name, 1)
        for name in ("rs_start", "mix_start", "puzzle_start", "workers", "panel_every", "freeze_stages", "jitter"):
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
        if self.batch_size // self.accumulate < 2 and not self.separable and self.method not in WITHOUT_DECODER:
            raise UserError(
                "accumulate: expected at least 2 pictures at a time for the decoder's batch norm, "
                f"got {self.batch_size // self.accumulate} (batch_size {self.batch_size}, accumulate {self.accumulate})"
            )
        if not 0 <= self.scg_threshold <= 1:
            raise UserError(f"scg_threshold: expected 0 to 1, got {self.scg_threshold}")
        if not 0 <= self.uncertain < self.certain <= 1:
            raise UserError(
                f"certain, uncertain: expected 0 <= uncertain < certain <= 1, got {self.certain}, {self.uncertain}"
            )
        self._rates("decoder_rates")
        for name, most in (("decoder_channels", 8192), ("size", 8192), ("workers", 512), ("epochs", 10**6)):
            self._at_most(name, most)
        if self.crop == "zoom":
            self._check_scale(self.scale)
        elif len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 4:
            raise UserError(f"scale: expected 0 < smallest <= greatest <= 4 crops, got {self.scale}")
        self._positive("learning_rate")
        self._positive("clip_norm")
        self._share("momentum")
        self._share("ema_decay")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """See ``Settings``; names of an earlier version of the package are understood."""
        return super().from_dict(_with_names_of_now(values))


def _with_names_of_now(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a checkpoint of before ``crop`` and ``rs_start``, as they would be written now."""
    if "seed_start" not in values:
        return values
    now = dict(values)
    now["rs_start"] = now.pop("seed_start")
    mixed = now["method"] == "rs+epm"
    now["method"] = "rs" if mixed else now["method"]
    name = now.get("mixing", "edgepredictmix")  # the only one, once
    now["mixing"] = {"edgepredictmix": "epm"}.get(name, name) if mixed else "none"
    return {"crop": "zoom"} | now


PRESETS: dict[str, TrainConfig] = {
    # Generated pictures of 96 pixels, a small network that knows other made-up animals, two CPU cores, minutes.
    "creatures-cpu": TrainConfig(
        backbone="creatures",
        weights="pretext",
        decoder_channels=48,
        decoder_rates=(2, 4, 6),
        separable=True,
        # What its pretext has taught it goes when the whole of it learns five classes from 1,000 pictures: then SCG
        # no longer spreads from heads to bodies. ORACLE: compared on masks of `train`.
        freeze_stages=3,
        epochs=18,
        rs_start=10,
        mix_start=14,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        batch_size=8,  # an epoch costs what it costs with 16, and the decoder takes twice the steps
        ema_decay=0.99,
        # ORACLE: compared on masks of `train`.
        scg_threshold=0.30,
        certain=0.30,
        uncertain=0.05,
        pamr_stride=2,
        size=96,
        crop="zoom",
        scale=(0.6, 1.0),
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
        rs_start=2,
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
        crop="zoom",  # padding would be a third of what these two cores compute
        scale=(0.35, 1.0),
        jitter=0.0,
        workers=0,
    ),
    # The sample of photographs on a GPU: everything learns, from larger crops, for longer (ours).
    "voc-sample-gpu": TrainConfig(
        backbone="mobilenet_v2",
        epochs=14,
        rs_start=2,
        mix_start=9,
        # As in voc-sample-cpu, where they were found.
        optimizer="adamw",
        learning_rate=1e-4,
        weight_decay=0.01,
        scg_threshold=0.7,
        uncertain=0.20,
        batch_size=16,
        ema_decay=0.99,  # 100 of the 162 steps of an epoch
        size=256,
        crop="zoom",
        scale=(0.35, 1.0),
        workers=4,
    ),
    # VOC 2012 trainaug on one large GPU: what the authors' figures and code give, see the comments above.
    "voc-gpu": TrainConfig(),
    # The same batch in two parts, for the 16 GB of a T4 and the two cores beside it (Colab); fp16 follows from "auto",
    # since a T4 has no bf16. Batch norm sees 8 pictures at a time, and mixing finds partners among them (ours).
    "voc-t4": TrainConfig(accumulate=2, workers=2),
    # Several GPUs, by torchrun: 16 pictures in all, and readers for each GPU.
    "voc-multi-gpu": TrainConfig(workers=4),
    # COCO 2014 as get_coco.py lays it out, on one large GPU. The schedule is ours: a quarter of the epochs classifies,
    # the last quarter mixes; with 5,130 steps an epoch that makes twice voc-gpu's steps.
    "coco-gpu": TrainConfig(
        split="train",
        epochs=8,
        rs_start=2,
        mix_start=6,
    ),
}


def preset(name: str, **changes: Any) -> TrainConfig:
    """A preset with some settings changed; a method that cannot mix does not, unless asked to.

    Raises:
        UserError: unknown preset or setting.
    """
    if name not in PRESETS:
        raise UserError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    known = {field.name for field in fields(TrainConfig)}
    unknown = [key for key in changes if key not in known]
    if unknown:
        raise UserError(f"config: expected settings of TrainConfig, got {', '.join(unknown)}")
    if changes.get("method") in WITHOUT_DECODER:
        changes = {"mixing": "none"} | changes
    return replace(PRESETS[name], **changes)
