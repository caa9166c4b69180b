"""From a single-stage network to a segmenter of its own: all stages in a row, each with its folder.

    1_seeds                         the network's maps, tags given
    2_labels                        confident labels: two passes of the dense CRF            (only for a walk)
    3_walk_boundary                 IRNet's boundaries, or AffinityNet (…_affinity)          (only for a walk)
    4_walked_boundary               the seeds after their random walk                        (only for a walk)
    5_masks_boundary_0.25_crf       pseudo masks: background score, then a dense CRF or not
    6_deeplabv3+_boundary_0.25_crf  the segmenter trained on them, and its predictions

A run that is called again goes on where it stopped: whole files stay, networks resume from their last epoch. Beside its
files each folder has a stage.json with the settings that led to them, those of the earlier stages too; with others it
is refused, not silently used. The background score, the walk and the CRF are part of a folder's name: to try another,
only what comes after it is made.

Nothing sees a true mask before the scoring. What keeps the last stage from collapsing is told in segmentation.py.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.crf import FINAL_SIGMAS, LABEL_SIGMAS, Sigmas, refine_labels, refine_probabilities
from rsepm_edu.evaluation.inference import SCALES
from rsepm_edu.evaluation.stored import choose_stored_threshold, score_stored_masks, sweep_stored_seeds
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.evaluation.thresholds import THRESHOLDS
from rsepm_edu.files import atomic_write_text, read_bytes
from rsepm_edu.models.affinity import WalkNetwork
from rsepm_edu.models.device import resolve_device
from rsepm_edu.models.segmenters import Head, Segmenter
from rsepm_edu.training.checkpoint import load_checkpoint, load_network
from rsepm_edu.training.config import WITHOUT_DECODER, Settings
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.labelled import RESUMABLE, LabelledConfig
from rsepm_edu.training.segmentation import SEGMENTATION_PRESETS, SegmentationConfig, train_segmenter
from rsepm_edu.training.stages import (
    SeedMap,
    write_predictions,
    write_pseudo_masks,
    write_seeds,
    write_walk_labels,
    write_walked_seeds,
)
from rsepm_edu.training.walk import WALK_PRESETS, Kind, WalkConfig, train_walk

STAGE = "stage.json"
Walk = Literal["boundary", "affinity", "none"]
WALK_NAMES = {"boundary": "IRN walk", "affinity": "Affinity walk"}
HEAD_NAMES: dict[Head, str] = {"deeplabv2": "DeepLabv2", "deeplabv3+": "DeepLabv3+"}


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


class Multistage:
    """A run in a folder; each method makes what it stands for, with all before it, or finds it there.

    Where a network's settings ask for no weights ("none"), it starts from the backbone of the single-stage network,
    which must then be of the same kind.

    Args:
        checkpoint: of the single-stage network.
        root: data, see ``VocDataset``.
        out: folder of the run.
        config: the settings.
        name: what the rows of tables call the seeds; default: cam or decoder.
        device: default: the GPU if there is one.
        progress: show bars.

    Raises:
        UserError: data, settings, checkpoint or folder do not go together.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        root: str | Path,
        out: str | Path,
        config: MultistageConfig,
        *,
        name: str | None = None,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> None:
        self.name = name or config.stages.seed_map
        self.root, self.out, self.config, self.progress = Path(root), Path(out), config, progress
        self.device = resolve_device(device)
        self.dataset = VocDataset(root, config.stages.split)
        single = load_checkpoint(checkpoint)
        if single.classes != self.dataset.classes:
            raise UserError(
                f"{checkpoint}: expected the data's classes {', '.join(self.dataset.classes)}, "
                f"got {', '.join(single.classes)}"
            )
        if config.stages.seed_map == "decoder" and single.config.method in WITHOUT_DECODER:
            raise UserError(
                f"seed_map: expected cam for a network trained with method {single.config.method}, got decoder"
            )
        self.network = load_network(checkpoint).to(self.device).to(memory_format=torch.channels_last)

    # --- stages

    @cached_property
    def seeds(self) -> Path:
        """Folder of the seeds."""
        folder, stages = self._stage("1_seeds", self._seed_record), self.config.stages
        write_seeds(
            self.network,
            self.dataset,
            folder,
            seed_map=stages.seed_map,
            scales=stages.scales,
            stride=stages.seed_stride,
            progress=self.progress,
        )
        return folder

    @cached_property
    def labels(self) -> Path:
        """Folder of the confident labels."""
        seeds, stages = self.seeds, self.config.stages
        folder = self._stage("2_labels", self._label_record)
        write_walk_labels(
            self.dataset,
            seeds,
            folder,
            self._refine_labels,
            foreground=stages.foreground,
            background=stages.background,
            device=self.device,
            progress=self.progress,
        )
        return folder

    @cached_property
    def walk_network(self) -> WalkNetwork:
        """The trained walk network."""
        labels, config = self.labels, self.config.walk
        folder = self._stage(f"3_walk_{config.kind}", self._walk_record)
        return train_walk(
            config,
            self.root,
            labels,
            folder,
            backbone=self.network.backbone if config.weights == "none" else None,
            resume=(folder / LAST).is_file(),
            device=self.device,
            progress=self.progress,
        )

    @cached_property
    def walked(self) -> Path:
        """Folder of the seeds after their walk; of the seeds themselves where there is none."""
        stages = self.config.stages
        if stages.walk == "none":
            return self.seeds
        network = self.walk_network
        folder = self._stage(f"4_walked_{stages.walk}", self._walked_record)
        write_walked_seeds(
            network,
            self.dataset,
            self.seeds,
            folder,
            radius=stages.walk_radius,
            steps=stages.walk_steps,
            stride=stages.seed_stride,
            progress=self.progress,
        )
        return folder

    @cached_property
    def threshold(self) -> float:
        """The background score of the pseudo masks: that of the settings, else the one chosen without masks."""
        given = self.config.stages.threshold
        if given is not None:
            return given
        return choose_stored_threshold(self.dataset, self.walked, progress=self.progress)

    @property
    def variant(self) -> str:
        """What tells the pseudo masks of a run from those of another, such as boundary_0.25_crf."""
        stages = self.config.stages
        return f"{stages.walk}_{self.threshold:g}{'_crf' if stages.crf else ''}"

    @cached_property
    def masks(self) -> Path:
        """Folder of the pseudo masks."""
        walked, stages = self.walked, self.config.stages
        folder = self._stage(f"5_masks_{self.variant}", self._mask_record)
        write_pseudo_masks(
            self.dataset,
            walked,
            folder,
            threshold=self.threshold,
            refine=self._refine_labels if stages.crf else None,
            device=self.device,
            progress=self.progress,
        )
        return folder

    @property
    def segmenter_folder(self) -> Path:
        """Folder of the segmenter: its checkpoint (last.pt), log, settings and predictions."""
        return self.out / f"6_{self.config.segmentation.head}_{self.variant}"

    @cached_property
    def segmenter(self) -> Segmenter:
        """The trained segmenter."""
        masks, config = self.masks, self.config.segmentation
        record = self._mask_record | {"segmentation": _settings(config)}
        folder = self._stage(self.segmenter_folder.name, record)
        return train_segmenter(
            config,
            self.root,
            masks,
            folder,
            backbone=self.network.backbone if config.weights == "none" else None,
            resume=(folder / LAST).is_file(),
            device=self.device,
            progress=self.progress,
        )

    def predictions(self, split: str, *, tags_given: bool = False, crf: bool = False) -> Path:
        """Folder of the segmenter's predictions for a split: without tags, unless they are given."""
        stages = self.config.stages
        dataset = VocDataset(self.root, split)
        name = f"{split}{'_tags' if tags_given else ''}{'_crf' if crf else ''}"
        settings = {"data": _digest(dataset), "scales": stages.final_scales, "tags_given": tags_given}
        if crf:
            settings["sigmas"] = stages.final_sigmas
        network = self.segmenter
        folder = self._stage(f"{self.segmenter_folder.name}/{name}", {"predictions": settings})
        write_predictions(
            network,
            dataset,
            folder,
            scales=stages.final_scales,
            tags_given=tags_given,
            refine=partial(refine_probabilities, sigmas=stages.final_sigmas) if crf else None,
            progress=self.progress,
        )
        return folder

    # --- scores

    def seed_rows(self, dataset: VocDataset, *, classes: Sequence[str] | None = None) -> list[Row]:
        """Seeds and, after them, walked seeds: each at a threshold without masks, and at its ORACLE threshold.

        The first is that of the settings, or else the one that colour chooses for these very seeds.

        Args:
            dataset: opened with ``masks=True``; its pictures are among those of ``split``.
            classes: foreground classes the means are over; None: all.
        """
        stages, seed = self.config.stages, self.config.segmentation.seed
        folders = {self.name: self.seeds}
        if stages.walk != "none":
            folders[self._walked_name] = self.walked
        rows = []
        for method, folder in folders.items():
            threshold = stages.threshold
            if threshold is None:
                threshold = choose_stored_threshold(self.dataset, folder, progress=self.progress)
            thresholds = sorted({*THRESHOLDS, threshold})
            sweep = sweep_stored_seeds(dataset, folder, thresholds=thresholds, progress=self.progress)
            result = sweep.at(threshold, dataset.classes, classes=classes)
            rows.append(
                Row.from_scores(method, result, threshold=threshold, oracle=False, seed=seed, choice=self._choice)
            )
            best, scores = sweep.best(dataset.classes, classes=classes)
            rows.append(Row.from_scores(method, scores, threshold=best, oracle=True, seed=seed))
        return rows

    def mask_row(self, dataset: VocDataset, *, oracle: bool = False, classes: Sequence[str] | None = None) -> Row:
        """The pseudo masks.

        Args:
            dataset, classes: see ``seed_rows``.
            oracle: whether the threshold of the settings was chosen by masks.
        """
        result = score_stored_masks(dataset, self.masks, classes=classes, progress=self.progress)
        choice = "" if oracle else self._choice
        seed = self.config.segmentation.seed
        return Row.from_scores(
            self._mask_name, result, threshold=self.threshold, oracle=oracle, seed=seed, choice=choice
        )

    def final_row(self, split: str, *, tags_given: bool = False, crf: bool = False) -> Row:
        """The segmenter on a split with masks: without tags, unless they are given; see ``predictions``."""
        folder = self.predictions(split, tags_given=tags_given, crf=crf)
        result = score_stored_masks(VocDataset(self.root, split, masks=True), folder, progress=self.progress)
        config = self.config.segmentation
        head = f"{HEAD_NAMES[config.head]}{' + CRF' if crf else ''}"
        method = f"{self._mask_name} → {head} ({split}, {'tags given' if tags_given else 'no tags'})"
        return Row.from_scores(method, result, threshold=None, oracle=False, seed=config.seed)

    @property
    def _choice(self) -> str:
        """How the threshold was chosen, for the rows of tables."""
        return "colour" if self.config.stages.threshold is None else "none"

    @property
    def _walked_name(self) -> str:
        walk = self.config.stages.walk
        return self.name if walk == "none" else f"{self.name} + {WALK_NAMES[walk]}"

    @property
    def _mask_name(self) -> str:
        return f"{self._walked_name} + CRF" if self.config.stages.crf else self._walked_name

    # --- what leads to each stage

    @cached_property
    def _seed_record(self) -> dict[str, Any]:
        stages = self.config.stages
        settings = {
            "network": fingerprint(self.network),
            "data": _digest(self.dataset),
            "seed_map": stages.seed_map,
            "scales": stages.scales,
            "seed_stride": stages.seed_stride,
        }
        return {"seeds": settings}

    @property
    def _label_record(self) -> dict[str, Any]:
        stages = self.config.stages
        settings = {"foreground": stages.foreground, "background": stages.background, "sigmas": stages.label_sigmas}
        return self._seed_record | {"labels": settings}

    @property
    def _walk_record(self) -> dict[str, Any]:
        return self._label_record | {"walk": _settings(self.config.walk)}

    @property
    def _walked_record(self) -> dict[str, Any]:
        stages = self.config.stages
        return self._walk_record | {"walked": {"radius": stages.walk_radius, "steps": stages.walk_steps}}

    @property
    def _mask_record(self) -> dict[str, Any]:
        stages = self.config.stages
        before = self._seed_record if stages.walk == "none" else self._walked_record
        sigmas = stages.label_sigmas if stages.crf else None
        return before | {"masks": {"threshold": self.threshold, "crf": stages.crf, "sigmas": sigmas}}

    @property
    def _refine_labels(self) -> Any:
        return partial(refine_labels, sigmas=self.config.stages.label_sigmas)

    def _stage(self, name: str, record: dict[str, Any]) -> Path:
        return claim(self.out / name, record)


def run_multistage(run: Multistage, *, score: str | None = "train", evaluate: str | None = "val") -> list[Row]:
    """All stages of a run, and the scores of each where there are masks.

    Args:
        run: see ``Multistage``.
        score: split with masks on which seeds and pseudo masks are scored, tags given; None: not at all. Its pictures
            must be among those of the run.
        evaluate: split with masks on which the segmenter is scored, without tags; None: not at all.
    """
    rows = []
    if score is not None:
        dataset = VocDataset(run.root, score, masks=True)
        missing = next(iter(set(dataset.names) - set(run.dataset.names)), None)
        if missing is not None:
            raise UserError(f"score: expected a split within {run.config.stages.split}, got {score} with {missing}")
    _ = run.segmenter
    if score is not None:
        rows += run.seed_rows(dataset)
        rows.append(run.mask_row(dataset))
    if evaluate is not None:
        rows += [run.final_row(evaluate, crf=crf) for crf in ((False, True) if run.config.stages.crf else (False,))]
    return rows


def claim(folder: Path, record: dict[str, Any]) -> Path:
    """Take a folder for the files that some settings lead to.

    Args:
        folder: new, or taken before for the same settings; where it has no files yet, others may take it.
        record: settings by stage.

    Raises:
        UserError: it holds what other settings led to, or files of another kind.
    """
    path = folder / STAGE
    now = json.loads(json.dumps(record))
    others = folder.is_dir() and any(entry != path for entry in folder.iterdir())
    if path.is_file() and others:
        content = read_bytes(path, "the settings of a stage")
        try:
            before = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: expected the settings of a stage, got: {error}") from error
        if not isinstance(before, dict) or not all(isinstance(settings, dict) for settings in before.values()):
            raise UserError(f"{path}: expected the settings of a stage, by stage, got other JSON")
        for name in [*before, *now]:
            _expect_same(path, name, before.get(name, {}), now.get(name, {}))
        return folder
    if others:
        raise UserError(f"{folder}: expected a new folder or one with a {STAGE}, got other files")
    atomic_write_text(path, json.dumps(now, indent=2) + "\n")
    return folder


def _expect_same(path: Path, stage: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in [*before, *now]:
        if before.get(name) != now.get(name):
            raise UserError(
                f"{path}: expected {stage}.{name} = {before.get(name)!r} as for the files there, "
                f"got {now.get(name)!r} (remove the folder, or choose another one for the run)"
            )


def fingerprint(network: nn.Module) -> str:
    """A short digest of a network's weights and statistics: the same for the same numbers."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _digest(dataset: VocDataset) -> str:
    """Which pictures and tags: their number and a digest of names and tags."""
    digest = hashlib.sha256("\n".join(dataset.names).encode())
    digest.update(dataset.tags.to(torch.uint8).numpy().tobytes())
    return f"{dataset.split} {len(dataset)} {digest.hexdigest()[:16]}"


def _settings(config: LabelledConfig) -> dict[str, Any]:
    """Settings that change what a training computes."""
    return {name: value for name, value in asdict(config).items() if name not in RESUMABLE}
