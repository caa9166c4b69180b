"""What test_distributed.py has torchrun start: a list of jobs, done one after the other by all processes together.

usage: torchrun … several_processes.py JOBS.json OUT, jobs as the test writes them. Each process leaves what it saw of
job NAME in OUT/NAME/rankR.json and the averaged weights in OUT/NAME/rankR.pt.
"""

import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from rsepm_edu import cli
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.training import loop
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.distributed import joined
from rsepm_edu.training.estimate import estimate
from rsepm_edu.training.step import Term

RANK, LIFE = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
LAST_RANK = int(os.environ["WORLD_SIZE"]) - 1


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


def do(job: dict[str, Any], out: Path) -> dict[str, Any]:
    if "command" in job:
        return {"code": cli.main(job["command"])}
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
