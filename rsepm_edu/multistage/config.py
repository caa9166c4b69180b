"""Settings of a multi-stage run: those between the networks, those of the two trainings, and presets of all three."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rsepm_edu.data.loading import batches_of
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.crf import FINAL_SIGMAS, LABEL_SIGMAS, Sigmas
from rsepm_edu.evaluation.inference import GREATEST_SCALE, LEAST_SCALE, NEAR_SCALES, SCALES
from rsepm_edu.models.segmenters import Head
from rsepm_edu.multistage.reach import PUBLISHED_SIDE, median_short_side
from rsepm_edu.multistage.segmentation import SEGMENTATION_PRESETS, SegmentationConfig
from rsepm_edu.multistage.stages import SeedMap
from rsepm_edu.multistage.walk import WALK_PRESETS, WalkConfig
from rsepm_edu.training.config import Settings, TrainConfig

Walk = Literal["boundary", "affinity", "none"]

FULL_MARGINS = 0.40
"""The θ from which the margins of the confident labels count in full; those of a smaller θ are smaller in proportion
(ours). The seeds of photographs have such a θ; that of a CAM which is high on heads alone can be 0.02."""


@dataclass(frozen=True)
class StageConfig(Settings):
    """Settings between the networks; sources in brackets.

    [I]: IRNet, Ahn et al. 2019. [P]: Puzzle-CAM, Jo & Yu 2021. [K]: Krähenbühl & Koltun 2011. Ours: chosen here.
    """

    split: str = "trainaug"  # pictures that get pseudo masks; their tags are given
    seed_map: SeedMap = "decoder"  # cam, or decoder where the network has trained one
    scales: tuple[float, ...] = SCALES  # of the seeds, each with its mirror image [P]
    seed_stride: int = 4  # pixels per stored value and side (ours: as fine as the decoder's maps)
    walk: Walk = "boundary"  # boundary [I], affinity, or none: the seeds themselves
    # Background scores of the passes whose classes and whose background are trusted; None: the seeds' own θ, chosen by
    # colour (``high_threshold``), with a margin (ours: IRNet's 0.30 and 0.05 are right for its seeds alone)
    foreground: float | None = None
    background: float | None = None
    margins: tuple[float, float] = (0.15, 0.10)  # above and below a θ ≥ FULL_MARGINS (ours, after what users report)
    walk_radius: int = 5  # of the pairs, in positions [I]
    walk_steps: int = 64  # (ours: [I]'s 256 go too far, by masks, an ORACLE, and by colour: results/voc_sample_walks)
    walk_scaled: bool = True  # as far over each picture as over one of IRNet's size, smaller ones seen enlarged (ours)
    walk_clears_edges: bool = False  # the seed times (1 - edge) first [I: yes]; a decoder's seed loses its rim (ours)
    threshold: float | None = None  # background score of the pseudo masks; None: chosen by colour, without masks
    # (ours: no fixed number fits all seeds, see results/creatures_multistage; IRNet has 0.25)
    crf: bool = True  # dense CRF on the pseudo masks, and beside the segmenter's own result
    skip: bool = True  # leave out a walk or a CRF that does not raise the mask-free score (ours, see judging.py)
    label_sigmas: Sigmas = LABEL_SIGMAS  # CRF on labels: smoothness, appearance (pixels), colour [I]
    final_sigmas: Sigmas = FINAL_SIGMAS  # CRF on the segmenter's result: the same three [K]
    final_scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)  # of the segmenter's result, each with its mirror image [P]

    def __post_init__(self) -> None:
        self._kinds()
        self._choice("seed_map", get_args(SeedMap))
        self._choice("walk", get_args(Walk))
        self._at_least("seed_stride", 1)
        self._at_least("walk_radius", 2)
        self._at_least("walk_steps", 0)
        for name in ("threshold", "foreground", "background"):
            if getattr(self, name) is not None:
                self._share(name)
        if self.foreground is not None and self.background is not None and self.background >= self.foreground:
            raise UserError(
                f"background, foreground: expected 0 <= background < foreground < 1, "
                f"got {self.background}, {self.foreground}"
            )
        if len(self.margins) != 2 or not min(self.margins) > 0 or not max(self.margins) < 1:
            raise UserError(f"margins: expected two numbers above 0 and below 1, got {self.margins}")
        for name in ("scales", "final_scales"):
            if not all(LEAST_SCALE <= scale <= GREATEST_SCALE for scale in getattr(self, name)):
                raise UserError(
                    f"{name}: expected numbers from {LEAST_SCALE} to {GREATEST_SCALE}, got {getattr(self, name)}"
                )
        for name in ("label_sigmas", "final_sigmas"):
            if len(getattr(self, name)) != 3 or not min(getattr(self, name)) > 0:
                raise UserError(f"{name}: expected three numbers above 0, got {getattr(self, name)}")


# Lengths are those of photographs, made smaller with the pictures, without a look at masks. CRF: pixels times picture
# side / 375, the short side of most of VOC's photographs; at least 1, below which a smoothness kernel holds a pixel
# alone. Its colours stay as they are: a smaller picture has no other colours.
STAGE_PRESETS: dict[str, StageConfig] = {
    # A walk of n steps reaches as far as √n: IRNet's 256 steps on a map of 128 positions are 32 or so on one of 48.
    "creatures-cpu": StageConfig(
        split="train",
        scales=NEAR_SCALES,
        seed_stride=1,
        walk_steps=32,
        walk_scaled=False,
        label_sigmas=(1.0, 13.0, 5.0),
        final_sigmas=(1.0, 17.0, 3.0),
        final_scales=NEAR_SCALES,
    ),
    # Without the published scale 2.0, as where their single-stage network is scored.
    "voc-sample-cpu": StageConfig(
        scales=(1.0, 0.5, 1.5),
        label_sigmas=(2.0, 30.0, 5.0),
        final_sigmas=(1.0, 40.0, 3.0),
        final_scales=(0.5, 1.0, 1.5),
    ),
    "voc-gpu": StageConfig(),
}

# AffinityNet's maps are coarser than IRNet's: 12 positions for a picture of 96 pixels, beside 64 for a crop of 512.
AFFINITY_STEPS = {"creatures-cpu": 8}

RUN_PRESETS = {"creatures": "creatures-cpu", "mobilenet_v2": "voc-sample-cpu"}
"""Which preset goes with the backbone of a run; voc-gpu with all others."""

LEAST_STEPS = 100
"""Of a walk network whose settings nobody has named; 175 were enough for results/voc_sample_walks."""

AFFINITY_RADIUS = 5
"""Of the pairs that AffinityNet learns from, as published; presets whose radius is smaller keep theirs."""


@dataclass(frozen=True)
class MultistageConfig:
    """Settings of all stages: what lies between the networks, and of each training what is its own."""

    stages: StageConfig = field(default_factory=StageConfig)
    walk: WalkConfig = field(default_factory=WalkConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)

    def settings(self) -> dict[str, Any]:
        """Every setting by name: those between the networks as they are, those of the trainings as walk.… and so on."""
        parts = {"": self.stages, "walk.": self.walk, "segmentation.": self.segmentation}
        return {prefix + name: value for prefix, part in parts.items() for name, value in part.to_dict().items()}

    def with_settings(self, changes: dict[str, Any]) -> "MultistageConfig":
        """The same with other values of some settings, named as in ``settings``.

        Raises:
            UserError: a value out of range.
        """
        parts: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            part, _, own = name.rpartition(".")
            parts.setdefault(part or "stages", {})[own] = value
        return replace(self, **{part: replace(getattr(self, part), **own) for part, own in parts.items()})

    def unused(self) -> dict[str, str]:
        """Settings that change nothing beside the others, each with the reason."""
        found: dict[str, str] = {}
        if self.stages.walk == "none":
            walk = (
                "walk_radius",
                "walk_steps",
                "walk_scaled",
                "walk_clears_edges",
                "foreground",
                "background",
                "margins",
            )
            own = (name for name in self.settings() if name.startswith("walk."))
            found |= dict.fromkeys((*walk, *own), "there is no walk")
        elif None not in (self.stages.foreground, self.stages.background):
            found["margins"] = "foreground and background are given"
        if not self.stages.crf and self.stages.walk == "none":
            found["skip"] = "there is neither a CRF nor a walk"
        if not self.stages.crf:
            found["final_sigmas"] = "there is no CRF"
            if self.stages.walk == "none":
                found["label_sigmas"] = "there is neither a CRF nor a walk"
        if self.segmentation.head == "deeplabv2":
            found |= dict.fromkeys(("segmentation.channels", "segmentation.separable"), "DeepLabv2 has no decoder")
        if self.segmentation.optimizer == "adamw":
            found["segmentation.momentum"] = "adamw keeps its own"
        if self.stages.walk == "affinity":
            found["walk_clears_edges"] = "AffinityNet has no map of edges"
        for part, settings in (("walk", self.walk), ("segmentation", self.segmentation)):
            if settings.backbone == "creatures":
                found[f"{part}.output_stride"] = "the creatures backbone always has 4"
        return found

    def to_dict(self) -> dict[str, Any]:
        """The settings by part and name, weights without their folder."""
        parts = {"stages": self.stages, "walk": self.walk, "segmentation": self.segmentation}
        values = {part: settings.to_dict() for part, settings in parts.items()}
        for part in ("walk", "segmentation"):
            values[part]["weights"] = Path(values[part]["weights"]).name
        return values

    @classmethod
    def of_run(
        cls, run: TrainConfig, dataset: VocDataset, *, seed: int = 0, head: Head = "deeplabv3+", **stages: Any
    ) -> "MultistageConfig":
        """Settings for the network of any run, where no preset is named: all are chosen by the run and the pictures.

        The preset is that of the run's backbone, lengths in pixels follow the size of the pictures. Both later networks
        start from the run's own backbone and learn from crops of its size; of few pictures the walk network sees more
        epochs, so that it takes ``LEAST_STEPS``.

        Args:
            run: settings of the single-stage network.
            dataset: pictures with tags that get pseudo masks.
            seed, head, stages: see ``preset``.

        Raises:
            UserError: a value out of range.
        """
        name = RUN_PRESETS.get(run.backbone, "voc-gpu")
        scale = median_short_side(dataset) / PUBLISHED_SIDE
        sigmas = {
            name: (max(1.0, round(smooth * scale, 1)), max(1.0, round(appearance * scale, 1)), colour)
            for name, (smooth, appearance, colour) in (("label_sigmas", LABEL_SIGMAS), ("final_sigmas", FINAL_SIGMAS))
        }
        config = cls.preset(name, seed=seed, head=head, **{"split": dataset.split, **sigmas, **stages})
        own: dict[str, Any] = {
            "backbone": run.backbone,
            "output_stride": run.output_stride,
            "weights": "none",
            "size": run.size,
            "batch_size": run.batch_size,
            "workers": run.workers,
            "precision": run.precision,
        }
        epochs = max(config.walk.epochs, math.ceil(LEAST_STEPS / batches_of(len(dataset), run.batch_size)))
        return replace(
            config,
            walk=replace(config.walk, epochs=epochs, **own),
            segmentation=replace(config.segmentation, **own),
        )

    @classmethod
    def preset(cls, name: str, *, seed: int = 0, head: Head = "deeplabv3+", **stages: Any) -> "MultistageConfig":
        """Settings to start from.

        Args:
            name: creatures-cpu, voc-sample-cpu or voc-gpu.
            seed: of both trainings.
            head: of the segmenter.
            stages: changes of ``StageConfig``.

        Raises:
            UserError: unknown preset, or a value out of range.
        """
        if name not in STAGE_PRESETS:
            raise UserError(f"preset: expected one of {', '.join(STAGE_PRESETS)}, got {name!r}")
        walk = WALK_PRESETS[name]
        if stages.get("walk") == "affinity":
            walk = replace(walk, radius=min(walk.radius, AFFINITY_RADIUS))
            if name in AFFINITY_STEPS:
                stages = {"walk_steps": AFFINITY_STEPS[name]} | stages
        return cls(
            replace(STAGE_PRESETS[name], **stages),
            replace(walk, seed=seed),
            replace(SEGMENTATION_PRESETS[name], seed=seed, head=head),
        )
