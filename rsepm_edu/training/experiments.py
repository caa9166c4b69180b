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
from rsepm_edu.evaluation.inference import SCALES
from rsepm_edu.evaluation.scoring import score_seeds
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.checkpoint import load_checkpoint, load_network
from rsepm_edu.training.config import WITHOUT_DECODER, Method, Mixing, TrainConfig
from rsepm_edu.training.loop import LAST, Trainer, train

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
MIXINGS: dict[Mixing, str] = {
    "edgepredictmix": "EPM",
    "classmix": "ClassMix",
    "cda": "CDA",
    "cutmix": "CutMix",
    "saliency-grafting": "Saliency Grafting",
}


@dataclass(frozen=True)
class Experiment:
    """What is trained on which pictures, and scored on which masks.

    root: data set, see ``VocDataset``. split: scored, with tags given. classes: foreground classes of the means, None:
    all. scales: of the scoring, each with its mirror image. pictures: score only the first so many; None: all.
    """

    config: TrainConfig
    root: Path
    split: str = "train"
    classes: tuple[str, ...] | None = None
    scales: tuple[float, ...] = SCALES
    pictures: int | None = None
    progress: bool = True

    def rows(self, network: SingleStageNetwork, method: Method) -> list[Row]:
        """The table's rows for a network that was trained as far as ``method``."""
        dataset = VocDataset(self.root, self.split, masks=True)
        dataset.names = dataset.names[: self.pictures]
        scores = score_seeds(
            network,
            dataset,
            scales=self.scales,
            decode=method not in WITHOUT_DECODER,
            scg_threshold=self.config.scg_threshold,
            pamr_stride=self.config.pamr_stride,
            progress=self.progress,
        )
        rows = scores.rows(seed=self.config.seed, classes=self.classes)
        if method in WITHOUT_DECODER:
            prefix = {"cam": "", "puzzle": "Puzzle-"}[method]
            return [replace(row, method=prefix + LABELS[row.method]) for row in rows]
        prefix = {"rs": "RS", "rs+epm": f"RS + {MIXINGS[self.config.mixing]}"}[method]
        return [replace(row, method=f"{prefix} ({HEADS[row.method]})") for row in rows if row.method in HEADS]


def full_run(experiment: Experiment, out: Path, *, resume: bool = False, **options: Any) -> list[Row]:
    """Train the full method once and score the averaged network at the end of every phase.

    Returns:
        Rows for CAM and its refinements, RS, and RS+EPM; those of the earlier phases had fewer epochs than the last.
    """
    config = experiment.config
    ends: dict[int, Method] = {config.seed_start: "cam", config.mix_start: "rs", config.epochs: "rs+epm"}
    rows: list[Row] = []

    def score(trainer: Trainer, row: dict[str, Any]) -> None:
        if trainer.epoch in ends:
            rows.extend(experiment.rows(trainer.average.network, ends[trainer.epoch]))

    train(config, experiment.root, out, resume=resume, on_epoch=score, **options)
    return rows


def ablation(experiment: Experiment, out: Path, **options: Any) -> list[Row]:
    """Train classification alone, RS, and RS+EPM for the same number of epochs each, and score all three.

    What two of them share is trained once. Phases that are there already are kept, so that a stopped ablation goes on.

    Args:
        out: folder; a run of each method in a folder of its own below it.
        options: passed on to ``train``.
    """
    config = experiment.config
    starts: Sequence[tuple[Method, str, int]] = (
        ("cam", "", 0),
        ("rs", "cam", config.seed_start),
        ("rs+epm", "rs", config.mix_start),
    )
    rows: list[Row] = []
    for method, parent, start in starts:
        folder = out / method
        if parent and not (folder / LAST).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(branch_point(out / parent, start), folder / LAST)
        following = {"cam": config.seed_start, "rs": config.mix_start}.get(method)

        def keep_branch(trainer: Trainer, row: dict[str, Any], folder: Path = folder) -> None:
            if trainer.epoch == following:  # noqa: B023 - called only within this turn of the loop
                shutil.copyfile(folder / LAST, branch_point(folder, trainer.epoch))

        if not (folder / LAST).is_file() or load_checkpoint(folder / LAST).epoch < config.epochs:
            train(
                replace(config, method=method, checkpoint_every=1),
                experiment.root,
                folder,
                resume=(folder / LAST).is_file(),
                on_epoch=keep_branch,
                **options,
            )
        rows.extend(experiment.rows(load_network(folder / LAST), method))
    return rows


def branch_point(folder: Path, epoch: int) -> Path:
    """Where a run keeps its state at the epoch from which another branches off."""
    return folder / f"epoch_{epoch:03d}.pt"
