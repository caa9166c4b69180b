"""Settings of a multi-stage run: those between the networks, those of the two trainings, and presets of all three."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.inference import SCALES
from rsepm_edu.models.segmenters import Head
from rsepm_edu.multistage.crf import FINAL_SIGMAS, LABEL_SIGMAS, Sigmas
from rsepm_edu.multistage.segmentation import SEGMENTATION_PRESETS, SegmentationConfig
from rsepm_edu.multistage.stages import SeedMap
from rsepm_edu.multistage.walk import WALK_PRESETS, Kind, WalkConfig
from rsepm_edu.training.config import Settings

Walk = Literal["boundary", "affinity", "none"]


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
    foreground: float = 0.30  # background score of the pass whose classes are trusted [I]
    background: float = 0.05  # background score of the pass whose background is trusted [I]
    walk_radius: int = 5  # of the pairs, in positions [I]
    walk_steps: int = 256  # [I]
    threshold: float | None = None  # background score of the pseudo masks; None: chosen by colour, without masks
    # (ours: no fixed number fits all seeds, see results/creatures_multistage; IRNet has 0.25)
    crf: bool = True  # dense CRF on the pseudo masks, and beside the segmenter's own result
    label_sigmas: Sigmas = LABEL_SIGMAS  # CRF on labels: smoothness, appearance (pixels), colour [I]
    final_sigmas: Sigmas = FINAL_SIGMAS  # CRF on the segmenter's result: the same three [K]
    final_scales: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)  # of the segmenter's result, each with its mirror image [P]

    def __post_init__(self) -> None:
        self._choice("seed_map", get_args(SeedMap))
        self._choice("walk", get_args(Walk))
        self._at_least("seed_stride", 1)
        self._at_least("walk_radius", 2)
        self._at_least("walk_steps", 0)
        if self.threshold is not None:
            self._share("threshold")
        if not 0 <= self.background < self.foreground < 1:
            raise UserError(
                f"background, foreground: expected 0 <= background < foreground < 1, "
                f"got {self.background}, {self.foreground}"
            )
        for name in ("scales", "final_scales"):
            if not getattr(self, name) or not min(getattr(self, name)) > 0:
                raise UserError(f"{name}: expected positive numbers, got {getattr(self, name)}")
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
        seed_stride=1,
        walk_steps=32,
        label_sigmas=(1.0, 13.0, 5.0),
        final_sigmas=(1.0, 17.0, 3.0),
        final_scales=(0.5, 1.0, 1.5),
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


@dataclass(frozen=True)
class MultistageConfig:
    """Settings of all stages; what two of them share (split, kind of walk) is that of ``stages``."""

    stages: StageConfig = field(default_factory=StageConfig)
    walk: WalkConfig = field(default_factory=WalkConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)

    def __post_init__(self) -> None:
        kind: Kind = self.walk.kind if self.stages.walk == "none" else self.stages.walk
        radius = min(self.walk.radius, 5) if kind == "affinity" else self.walk.radius  # as each was published
        split = self.stages.split
        object.__setattr__(self, "walk", replace(self.walk, kind=kind, radius=radius, split=split))
        object.__setattr__(self, "segmentation", replace(self.segmentation, split=split))

    def to_dict(self) -> dict[str, Any]:
        """The settings by part and name, weights without their folder."""
        parts = {"stages": self.stages, "walk": self.walk, "segmentation": self.segmentation}
        values = {part: settings.to_dict() for part, settings in parts.items()}
        for part in ("walk", "segmentation"):
            values[part]["weights"] = Path(values[part]["weights"]).name
        return values

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
        if stages.get("walk") == "affinity" and name in AFFINITY_STEPS:
            stages = {"walk_steps": AFFINITY_STEPS[name]} | stages
        return cls(
            replace(STAGE_PRESETS[name], **stages),
            replace(WALK_PRESETS[name], seed=seed),
            replace(SEGMENTATION_PRESETS[name], seed=seed, head=head),
        )
