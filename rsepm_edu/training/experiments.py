"""Training and scoring together: the rows of the ablation table, for the demo and for `results/`.

A run passes through up to three phases: classification alone, RecurSeed, EdgePredictMix. Runs of the same seed that
differ only in how far they go share their first epochs bit for bit, so these are trained once and branched off.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.device import resolve_device
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.choosing import PICTURES, choose_thresholds, thresholds_of
from rsepm_edu.evaluation.inference import SCALES
from rsepm_edu.evaluation.scoring import score_seeds
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.files import atomic_write_text, remove_leftovers
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.checkpoint import Checkpoint, load_checkpoint
from rsepm_edu.training.config import WITHOUT_DECODER, Method, TrainConfig, method_name
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.loop import Trainer, train
from rsepm_edu.training.mixings import MIXINGS, Mixing
from rsepm_edu.training.seed_options import seed_options_of

LABELS = {
    "cam": "CAM",
    "cam+pamr": "CAM + PAMR",
    "cam+scg": "CAM + SCG",
    "cam+scg+pamr": "CAM + SCG + PAMR",
}
HEADS = {
    "cam": "cam",
    "decoder": "decoder",
    "decoder+pamr": "decoder + PAMR",
    "decoder (arg-max)": "decoder, arg-max",
}
Branch = tuple[Method, Mixing]

ABLATION: tuple[Branch, ...] = (("cam", "none"), ("rs", "none"), ("rs", "epm"))
"""Classification alone, RS, and RS+EPM."""
PUZZLE: tuple[Branch, ...] = (("cam", "none"), ("puzzle", "none"))
"""Puzzle-CAM beside classification alone."""
EVERY_MIXING: tuple[Branch, ...] = (("rs", "none"), *(("rs", mixing) for mixing in MIXINGS))
"""Every mixing on top of RS."""


@dataclass(frozen=True)
class Experiment:
    """What is trained on which pictures, and scored on which masks.

    root: data set, see ``VocDataset``. split: scored, with tags given. classes: foreground classes of the means, None:
    all. scales: of the scoring, each with its mirror image. pictures: score only the first so many; None: all. choose:
    look at so many of these to choose θ without masks.
    """

    config: TrainConfig
    root: Path
    split: str = "train"
    classes: tuple[str, ...] | None = None
    scales: tuple[float, ...] = SCALES
    pictures: int | None = None
    choose: int = PICTURES
    progress: bool = True

    def rows(self, network: SingleStageNetwork, method: Method, mixing: Mixing = "none") -> list[Row]:
        """The table's rows for a network that was trained so far, at oracle θ and at θ without masks."""
        dataset = VocDataset(self.root, self.split, masks=True)
        dataset.names = dataset.names[: self.pictures]
        options = seed_options_of(replace(self.config, method=method, mixing=mixing), scales=self.scales)
        seen = choose_thresholds(network, dataset, options, pictures=self.choose, progress=self.progress)
        chosen, scores = thresholds_of(seen), score_seeds(network, dataset, options, progress=self.progress)
        rows = scores.rows(seed=self.config.seed, chosen=chosen, classes=self.classes)
        if method in WITHOUT_DECODER:
            prefix = {"cam": "", "puzzle": "Puzzle-"}[method]
            return [replace(row, method=prefix + LABELS[row.method]) for row in rows]
        prefix = "RS" if mixing == "none" else f"RS + {MIXINGS[mixing].label}"
        return [replace(row, method=f"{prefix} ({HEADS[row.method]})") for row in rows if row.method in HEADS]


def full_run(experiment: Experiment, out: Path, *, resume: bool = False, **options: Any) -> list[Row]:
    """Train the full method once and score the averaged network at the end of every phase.

    The rows of each phase are kept in ``out``/rows, so that a run that goes on has those of all phases.

    Returns:
        Rows for CAM and its refinements, RS, and RS with mixing; those of the earlier phases had fewer epochs than the
        last.

    Raises:
        UserError: see ``train``; or the run that goes on has no rows of a phase that it has left behind.
    """
    config = experiment.config
    ends: dict[int, Branch] = {
        config.rs_start: ("cam", "none"),
        config.mix_start: ("rs", "none"),
        config.epochs: (config.method, config.mixing),
    }
    kept = {epoch: out / "rows" / f"epoch_{epoch:03d}.json" for epoch in ends}

    def score(network: SingleStageNetwork, epoch: int) -> None:
        atomic_write_text(kept[epoch], tables.to_json(experiment.rows(network, *ends[epoch])))

    def on_start(trainer: Trainer, dataset: VocDataset) -> None:
        for epoch, path in kept.items():
            if epoch < trainer.epoch:
                tables.read_rows(path)  # or an error now, not after the training
        if trainer.epoch in kept and not kept[trainer.epoch].is_file():  # stopped between its checkpoint and its rows
            score(trainer.average.network, trainer.epoch)

    def on_epoch(trainer: Trainer, row: dict[str, Any]) -> None:
        if trainer.epoch in ends:
            score(trainer.average.network, trainer.epoch)

    remove_leftovers(out / "rows")
    network = train(config, experiment.root, out, resume=resume, on_start=on_start, on_epoch=on_epoch, **options)
    if not kept[config.epochs].is_file():
        score(network, config.epochs)
    return [row for epoch in sorted(kept) for row in tables.read_rows(kept[epoch])]


def ablation(experiment: Experiment, out: Path, branches: Sequence[Branch] = ABLATION, **options: Any) -> list[Row]:
    """Train several methods for the same number of epochs each, and score them all.

    What two of them share is trained once. What is there already is kept, scores too, so that a stopped ablation goes
    on, and seeds that were made side by side are put into one table without scoring them again.

    Args:
        out: folder; a run of each method in a folder of its own below it.
        branches: method, and how it mixes.
        options: passed on to ``train``.
    """
    rows: list[Row] = []
    for branch in branches:
        checkpoint = train_branch(experiment, out, branch, **options)
        folder = out / method_name(*branch)
        kept = folder / "rows.json"
        if not kept.is_file() or kept.stat().st_mtime < (folder / LAST).stat().st_mtime:
            network = checkpoint.build_network().to(resolve_device(options.get("device")))
            atomic_write_text(kept, tables.to_json(experiment.rows(network, *branch)))
        rows += tables.read_rows(kept)
    return rows


def train_branch(experiment: Experiment, out: Path, branch: Branch, **options: Any) -> Checkpoint:
    """Train one method, unless that is done; epochs that it shares with a shorter method come from that one's run.

    Args:
        out: folder; the run lies in a folder of its own below it, named after the method.
        branch: method, and how it mixes.
        options: passed on to ``train``.

    Returns:
        The checkpoint at its end.
    """
    method, mixing = branch
    config = replace(experiment.config, method=method, mixing=mixing, checkpoint_every=1)
    folder = out / method_name(method, mixing)
    last = folder / LAST
    parent, start = _parent(config)
    if parent is not None and not last.is_file():
        train_branch(experiment, out, parent, **options)
        before = branch_point(out / method_name(*parent), start)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(before, last)
    branches = {("cam", "none"): (config.rs_start, config.puzzle_start), ("rs", "none"): (config.mix_start,)}

    def keep_branch(trainer: Trainer, row: dict[str, Any]) -> None:
        if trainer.epoch in branches.get(branch, ()):
            shutil.copyfile(last, branch_point(folder, trainer.epoch))

    if last.is_file():
        checkpoint = load_checkpoint(last)
        if checkpoint.epoch >= config.epochs:
            return checkpoint
    train(config, experiment.root, folder, resume=last.is_file(), on_epoch=keep_branch, **options)
    return load_checkpoint(last)


def _parent(config: TrainConfig) -> tuple[Branch | None, int]:
    """The shorter method that a run shares its first epochs with, and how many."""
    if config.mixing != "none":
        return ("rs", "none"), config.mix_start
    start = {"cam": 0, "puzzle": config.puzzle_start, "rs": config.rs_start}[config.method]
    return (("cam", "none"), start) if start or config.method == "rs" else (None, 0)


def branch_point(folder: Path, epoch: int) -> Path:
    """Where a run keeps its state at the epoch from which another branches off."""
    return folder / f"epoch_{epoch:03d}.pt"
