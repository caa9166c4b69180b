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

Each stage has a score without masks (``judging``): a walk or a CRF whose score is no better than that of what it got
is left out of what follows, and a line says so (stages.txt has these lines). ``skip=False`` takes every stage as it is.

Nothing sees a true mask before the scoring. What keeps the last stage from collapsing is told in segmentation.py.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.device import resolve_device
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.crf import refine_labels, refine_probabilities
from rsepm_edu.evaluation.maskfree import ColourInformation
from rsepm_edu.evaluation.scored_split import scored_split
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.evaluation.thresholds import THRESHOLDS
from rsepm_edu.files import atomic_write_text
from rsepm_edu.models.affinity import WalkNetwork
from rsepm_edu.models.segmenters import Head, Segmenter
from rsepm_edu.multistage.config import FULL_MARGINS, MultistageConfig, Walk
from rsepm_edu.multistage.judging import high_threshold, mask_information, seed_information, segmenter_information
from rsepm_edu.multistage.labelled import LabelledConfig
from rsepm_edu.multistage.records import claim, digest, fingerprint, training_settings
from rsepm_edu.multistage.segmentation import train_segmenter
from rsepm_edu.multistage.stages import (
    write_predictions,
    write_pseudo_masks,
    write_seeds,
    write_walk_labels,
    write_walked_seeds,
)
from rsepm_edu.multistage.stored import choose_stored_threshold, score_stored_masks, sweep_stored_seeds
from rsepm_edu.multistage.walk import train_walk
from rsepm_edu.training.checkpoint import Checkpoint, load_checkpoint
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.report import LOGGER

WALK_NAMES = {"boundary": "IRN walk", "affinity": "Affinity walk"}
HEAD_NAMES: dict[Head, str] = {"deeplabv2": "DeepLabv2", "deeplabv3+": "DeepLabv3+"}


class Multistage:
    """A run in a folder; each method makes what it stands for, with all before it, or finds it there.

    Where a network's settings ask for no weights ("none"), it starts from the backbone of the single-stage network,
    which must then be of the same kind.

    Args:
        checkpoint: of the single-stage network, or the file of one.
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
        checkpoint: str | Path | Checkpoint,
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
        self.told: list[str] = []  # of each stage, whether its mask-free score is better than that of what it got
        self.device = resolve_device(device)
        self.dataset = VocDataset(root, config.stages.split)
        single = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        named = "checkpoint" if checkpoint is single else checkpoint
        if single.classes != self.dataset.classes:
            raise UserError(
                f"{named}: expected the data's classes {', '.join(self.dataset.classes)}, "
                f"got {', '.join(single.classes)}"
            )
        if config.stages.seed_map not in single.learnt:
            trained = " and ".join(single.learnt) or "nothing yet"
            raise UserError(
                f"seed_map: expected a head that {named} has trained ({trained}), got {config.stages.seed_map}"
            )
        self.network = single.build_network().to(self.device).to(memory_format=torch.channels_last)

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
    def seed_colours(self) -> ColourInformation:
        """What colour tells of the seeds at every θ, without masks (``seed_information``)."""
        return seed_information(self.dataset, self.seeds, progress=self.progress)

    @cached_property
    def label_thresholds(self) -> tuple[float, float]:
        """Background scores of the confident labels' two passes: those of the settings, else the seeds' θ with margins.

        Their θ is that of pseudo masks, ``high_threshold``: the best by colour alone is too low for margins. Those of a
        θ below ``FULL_MARGINS`` are smaller in proportion.

        Raises:
            UserError: the one that is given is on the wrong side of the one that is not.
        """
        stages = self.config.stages
        foreground, background = stages.foreground, stages.background
        if foreground is None or background is None:
            theta = high_threshold(self.seed_colours)
            above, below = (margin * min(1, theta / FULL_MARGINS) for margin in stages.margins)
            foreground = min(0.95, round(theta + above, 3)) if foreground is None else foreground
            background = max(0.0, round(theta - below, 3)) if background is None else background
        if not background < foreground:
            raise UserError(f"background, foreground: expected background < foreground, got {background}, {foreground}")
        return foreground, background

    @cached_property
    def labels(self) -> Path:
        """Folder of the confident labels."""
        seeds = self.seeds
        foreground, background = self.label_thresholds
        folder = self._stage("2_labels", self._label_record)
        write_walk_labels(
            self.dataset,
            seeds,
            folder,
            self._refine_labels,
            foreground=foreground,
            background=background,
            device=self.device,
            progress=self.progress,
        )
        return folder

    @cached_property
    def walk_network(self) -> WalkNetwork:
        """The trained walk network.

        Raises:
            UserError: the settings ask for no walk.
        """
        kind, config = self.config.stages.walk, self.config.walk
        if kind == "none":
            raise UserError("walk: expected boundary or affinity for a walk network, got none")
        labels = self.labels
        folder = self._stage(f"3_walk_{kind}", self._walk_record)
        return train_walk(
            config,
            kind,
            self.root,
            self.config.stages.split,
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
            scaled=stages.walk_scaled,
            clear_edges=stages.walk_clears_edges,
            stride=stages.seed_stride,
            progress=self.progress,
        )
        return folder

    @cached_property
    def walk(self) -> Walk:
        """The walk behind the pseudo masks: that of the settings, or none where it is no better than the seeds."""
        walk = self.config.stages.walk
        if walk == "none" or not self.config.stages.skip:
            return walk
        _, after = seed_information(self.dataset, self.walked, progress=self.progress).best()
        return walk if self._better(WALK_NAMES[walk], after, "seeds", self.seed_colours.best()[1]) else "none"

    @property
    def kept(self) -> Path:
        """Folder of the seeds that become pseudo masks: walked or not."""
        return self.seeds if self.walk == "none" else self.walked

    @cached_property
    def threshold(self) -> float:
        """The background score of the pseudo masks: that of the settings, else the one chosen without masks."""
        given = self.config.stages.threshold
        if given is not None:
            return given
        return choose_stored_threshold(self.dataset, self.kept, progress=self.progress)

    @cached_property
    def crf(self) -> bool:
        """Whether the pseudo masks go through the CRF: as the settings say, but not where it is no better than they."""
        stages = self.config.stages
        if not (stages.crf and stages.skip):
            return stages.crf
        threshold, progress = self.threshold, self.progress
        plain = seed_information(self.dataset, self.kept, thresholds=[threshold], progress=progress).best()[1]
        refined = mask_information(self.dataset, self._masks(crf=True), progress=progress)
        return self._better("CRF", refined, "masks without it", plain)

    @cached_property
    def masks(self) -> Path:
        """Folder of the pseudo masks."""
        return self._masks(crf=self.crf)

    def _masks(self, *, crf: bool) -> Path:
        kept = self.kept
        folder = self._stage(f"5_masks_{self._variant(crf)}", self._mask_record(crf))
        write_pseudo_masks(
            self.dataset,
            kept,
            folder,
            threshold=self.threshold,
            refine=self._refine_labels if crf else None,
            device=self.device,
            progress=self.progress,
        )
        return folder

    def _variant(self, crf: bool) -> str:
        """What tells the pseudo masks of a run from those of another, such as boundary_0.25_crf."""
        return f"{self.walk}_{self.threshold:g}{'_crf' if crf else ''}"

    @property
    def segmenter_folder(self) -> Path:
        """Folder of the segmenter: its checkpoint (last.pt), log, settings and predictions."""
        return self.out / f"6_{self.config.segmentation.head}_{self._variant(self.crf)}"

    @cached_property
    def segmenter(self) -> Segmenter:
        """The trained segmenter."""
        masks, config = self.masks, self.config.segmentation
        folder = self._stage(self.segmenter_folder.name, self._segmenter_record)
        return train_segmenter(
            config,
            self.root,
            self.config.stages.split,
            masks,
            folder,
            backbone=self.network.backbone if config.weights == "none" else None,
            resume=(folder / LAST).is_file(),
            device=self.device,
            progress=self.progress,
        )

    def judge_segmenter(self) -> bool:
        """Whether the segmenter's score, tags given, is better than that of the pseudo masks it has learnt from."""
        network, scales = self.segmenter, self.config.stages.final_scales
        before = mask_information(self.dataset, self.masks, progress=self.progress)
        after = segmenter_information(network, self.dataset, scales=scales, progress=self.progress)
        return self._better(HEAD_NAMES[self.config.segmentation.head], after, "pseudo masks", before)

    def _better(self, stage: str, after: float, former: str, before: float) -> bool:
        """Whether a stage's score is better than that of what it got, and a line that says so."""
        better = after > before
        told = "better" if better else f"no better, skipped: the {former} are taken"
        self.told.append(f"{stage}: {after:.4f} bits, {former}: {before:.4f} bits: {told}")
        LOGGER.info(self.told[-1])
        return better

    def predictions(self, split: str, *, tags_given: bool = False, crf: bool = False) -> Path:
        """Folder of the segmenter's predictions for a split: without tags, unless they are given."""
        stages = self.config.stages
        dataset = VocDataset(self.root, split)
        name = f"{split}{'_tags' if tags_given else ''}{'_crf' if crf else ''}"
        settings = {"data": digest(dataset), "scales": stages.final_scales, "tags_given": tags_given}
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
            folders[self._name_after(stages.walk)] = self.walked
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
        return "colour, high" if self.config.stages.threshold is None else "none"

    def _name_after(self, walk: Walk) -> str:
        return self.name if walk == "none" else f"{self.name} + {WALK_NAMES[walk]}"

    @property
    def _mask_name(self) -> str:
        return f"{self._name_after(self.walk)}{' + CRF' if self.crf else ''}"

    # --- what leads to each stage

    @cached_property
    def _seed_record(self) -> dict[str, Any]:
        stages = self.config.stages
        settings = {
            "network": fingerprint(self.network),
            "data": digest(self.dataset),
            "seed_map": stages.seed_map,
            "scales": stages.scales,
            "seed_stride": stages.seed_stride,
        }
        return {"seeds": settings}

    @property
    def _label_record(self) -> dict[str, Any]:
        foreground, background = self.label_thresholds
        settings = {"foreground": foreground, "background": background, "sigmas": self.config.stages.label_sigmas}
        return self._seed_record | {"labels": settings}

    @property
    def _walk_record(self) -> dict[str, Any]:
        return self._label_record | {"walk": {"kind": self.config.stages.walk, **self._training(self.config.walk)}}

    @property
    def _walked_record(self) -> dict[str, Any]:
        stages = self.config.stages
        settings = {"radius": stages.walk_radius, "steps": stages.walk_steps, "scaled": stages.walk_scaled}
        settings["clear_edges"] = stages.walk_clears_edges
        return self._walk_record | {"walked": settings}

    def _mask_record(self, crf: bool) -> dict[str, Any]:
        before = self._seed_record if self.walk == "none" else self._walked_record
        sigmas = self.config.stages.label_sigmas if crf else None
        return before | {"masks": {"threshold": self.threshold, "crf": crf, "sigmas": sigmas}}

    @property
    def _segmenter_record(self) -> dict[str, Any]:
        return self._mask_record(self.crf) | {"segmentation": self._training(self.config.segmentation)}

    def _training(self, config: LabelledConfig) -> dict[str, Any]:
        return {"split": self.config.stages.split, **training_settings(config)}

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

    Raises:
        UserError: see ``Multistage``; or, before anything is computed, see ``scored_split``.
    """
    rows = []
    if evaluate is not None:
        scored_split(run.root, evaluate)  # looked through now, scored after all trainings
    if score is not None:
        dataset = scored_split(run.root, score)
        missing = next(iter(set(dataset.names) - set(run.dataset.names)), None)
        if missing is not None:
            raise UserError(f"score: expected a split within {run.config.stages.split}, got {score} with {missing}")
    _ = run.segmenter
    if run.config.stages.skip:
        run.judge_segmenter()
        atomic_write_text(run.out / "stages.txt", "".join(f"{line}\n" for line in run.told))
    if score is not None:
        rows += run.seed_rows(dataset)
        rows.append(run.mask_row(dataset))
    if evaluate is not None:
        rows += [run.final_row(evaluate, crf=crf) for crf in ((False, True) if run.config.stages.crf else (False,))]
    return rows
