"""What test_distributed.py has torchrun start: a list of jobs, done one after the other by all processes together.

usage: torchrun … several_processes.py JOBS.json OUT, jobs as the test writes them. Each process leaves what it saw of
job NAME in OUT/NAME/rankR.json and the averaged weights in OUT/NAME/rankR.pt.
"""

import json
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from rsepm_edu import cli
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.choosing import choose_thresholds
from rsepm_edu.evaluation.label_maps import compare_label_maps, label_maps
from rsepm_edu.evaluation.scoring import score_seeds, segmentation_confusion
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.processes import World, joined
from rsepm_edu.training import loop
from rsepm_edu.training.checkpoint import load_network
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.estimate import estimate
from rsepm_edu.training.step import Term

# 0, 0 and 1 where a test imports this file to do a job alone.
RANK, LIFE = int(os.environ.get("RANK", 0)), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
LAST_RANK = int(os.environ.get("WORLD_SIZE", 1)) - 1


def without_dropout() -> Any:
    return patch.object(torch.nn.Dropout, "forward", lambda self, x: x)


def signal_before_step(number: int, name: str) -> Any:
    """The last rank gets a signal in the middle of a run, in its first life."""
    step = loop.Trainer.step

    def disturbed(self: Any, *args: Any, **settings: Any) -> Any:
        if settings["step"] == number and RANK == LAST_RANK and LIFE == 0:
            os.kill(os.getpid(), signal.Signals[name])
        return step(self, *args, **settings)

    return patch.object(loop.Trainer, "step", disturbed)


def nan_on_the_last_rank() -> Any:
    terms, factor = loop.step_terms, float("nan") if RANK == LAST_RANK else 1.0

    def broken(*args: Any, **settings: Any) -> dict[str, Term]:
        return {name: term._replace(loss=term.loss * factor) for name, term in terms(*args, **settings).items()}

    return patch.object(loop, "step_terms", broken)


def scores_of(checkpoint: Path | str, root: Path | str, world: World) -> dict[str, Any]:
    """What the functions of evaluation find, as plain numbers; and how many pictures this process has opened."""
    network, options = load_network(checkpoint), SeedOptions(scales=(1.0,))
    dataset, three = VocDataset(root, "train", masks=True), VocDataset(root, "val", masks=True)
    with patch.object(VocDataset, "sample", autospec=True, side_effect=VocDataset.sample) as opened:
        chosen = choose_thresholds(network, dataset, options, pictures=5, world=world, progress=False)
        seeds = score_seeds(network, dataset, options, world=world, progress=False)
        confusion = segmentation_confusion(network, three, scales=(1.0,), world=world, progress=False)
        maps = label_maps(network, three, options, tags=True, world=world, progress=False)
        seen = compare_label_maps(maps, three, count=2, boundary=True, world=world)
    assert seeds.labels is not None and seen.boundary is not None
    return {
        "looked_at": opened.call_count,
        "curves": {name: criterion.curve.tolist() for name, criterion in chosen["colour"].items()},
        "rows": [list(row) for row in map(astuple, seeds.rows(seed=0))],
        "labels": seeds.labels.tolist(),
        "confusion": confusion.tolist(),
        "boundary": seen.boundary.tolist(),
        "extremes": [[case.name, case.score] for case in (*seen.extremes.worst, *seen.extremes.best)],
    }


def do(job: dict[str, Any], out: Path) -> dict[str, Any]:
    if "command" in job:
        return {"code": cli.main(job["command"])}
    if "score" in job:
        with joined("cpu") as world:
            return scores_of(job["score"], job["root"], world)
    config = TrainConfig.from_dict(job["config"])
    with ExitStack() as stack:
        if not job.get("dropout", False):
            stack.enter_context(without_dropout())
        if "signal" in job:
            stack.enter_context(signal_before_step(*job["signal"]))
        if job.get("nan", False):
            stack.enter_context(nan_on_the_last_rank())
        called: list[int] = []
        told: list[tuple[int, int]] = []

        def tell(trainer: loop.Trainer, dataset: VocDataset) -> None:
            estimated = estimate(trainer, dataset)
            told.append((estimated.processes, estimated.steps))

        try:
            network = loop.train(
                config,
                job["root"],
                out / "run",
                device="cpu",
                progress=False,
                resume=job.get("resume", False),
                on_start=tell,
                on_epoch=lambda trainer, row: called.append(row["epoch"]),
            )
        except (UserError, loop.NotFiniteError, KeyboardInterrupt, SystemExit) as error:
            return {"error": type(error).__name__, "message": str(error)}
    torch.save(network.state_dict(), out / f"rank{RANK}.pt")
    return {"epochs": called, "told": told}


def main(jobs: dict[str, dict[str, Any]], out: Path) -> None:
    with joined("cpu"):
        for name, job in jobs.items():
            done = out / name / f"rank{RANK}.json"
            if done.exists():  # in an earlier life
                continue
            done.parent.mkdir(parents=True, exist_ok=True)
            done.write_text(json.dumps(do(job, out / name)))
            dist.barrier()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
