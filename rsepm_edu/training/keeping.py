"""Where a run's state is kept and found again: last.pt in its folder, and a copy in a second place."""

import json
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path, remove_leftovers
from rsepm_edu.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.phases import phase_of

LAST = "last.pt"
# Settings that change how a run is carried out, not what it computes: these may differ when it is resumed. (accumulate
# does compute a little differently, by batch norm and mixing within a part; but who runs out of memory must go on.)
RESUMABLE = ("accumulate", "workers", "panel_every", "checkpoint_every", "checkpoint_minutes", "weights")

Resume = bool | Literal["auto"]

WRITTEN_FIRST = ("config.json", "log.jsonl")
"""What a run writes before its first step, beside tensorboard/."""


@contextmanager
def nothing_left_of_a_run_that_never_began(out: Path) -> Iterator[None]:
    """Remove what a run has written into a new folder if it fails before there is a checkpoint.

    A folder that was there before stays, with all that is in it. What comes from elsewhere stays too.
    """
    new = not out.exists()
    try:
        yield
    except BaseException:
        if new and out.is_dir() and not (out / LAST).is_file():
            shutil.rmtree(out / "tensorboard", ignore_errors=True)
            for name in WRITTEN_FIRST:
                (out / name).unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                out.rmdir()
        raise


class CheckpointWriter:
    """Saves checkpoints, and knows when the next one is due.

    Args:
        out: folder of the run.
        second: folder that gets a copy of every checkpoint, of the settings and of the log; None: none does.
        minutes: between checkpoints within an epoch; 0: none.
    """

    def __init__(self, out: Path, second: Path | None, *, minutes: float) -> None:
        self.out, self.second, self.minutes = out, second, minutes
        for folder in (out, second):
            if folder is not None:
                with suppress(OSError):  # a second place that fails is told when it matters
                    remove_leftovers(folder)
        self.saved = time.monotonic()

    def due(self) -> bool:
        """Whether ``minutes`` have gone since the last checkpoint."""
        return self.minutes > 0 and time.monotonic() - self.saved >= 60 * self.minutes

    def save(self, checkpoint: Checkpoint) -> None:
        """Write last.pt, then the copies; a second place that fails is a warning, for the run itself is safe."""
        save_checkpoint(self.out / LAST, checkpoint)
        self.saved = time.monotonic()
        if self.second is None:
            return
        try:
            for name in (LAST, "config.json", "log.jsonl"):
                if (self.out / name).is_file():
                    with atomic_path(self.second / name) as temporary:
                        shutil.copyfile(self.out / name, temporary)
        except OSError as error:
            warnings.warn(f"{self.second}: expected to copy the checkpoint there, got: {error}", stacklevel=2)


def find_previous(
    config: TrainConfig, classes: tuple[str, ...], out: Path, second: Path | None, *, resume: Resume
) -> Checkpoint | None:
    """The checkpoint to go on from, checked against what is asked for now; None: a new run.

    The newest whole one counts. Where it comes from the second place, the log is taken from there too.

    Raises:
        UserError: there is a run already and ``resume`` is False; there is none and it is True; none is whole; or the
            one that was found has other settings or classes.
    """
    for folder in (out, second):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: expected a folder for checkpoints, got a file")
    if second is not None and second.resolve() == out.resolve():
        raise UserError(f"{second}: expected another folder than the run's for the copies, got the same")
    paths = [folder / LAST for folder in (out, second) if folder is not None]
    there = [path for path in paths if path.is_file()]
    if not resume:
        if there:
            raise UserError(f"{there[0]}: expected a new folder or --resume, got a run that is there already")
        return None
    if not there:
        if resume == "auto":
            return None
        raise UserError(f"{paths[0]}: expected a checkpoint, got no such file")
    path, previous = _newest(there)
    _expect_same(path, previous, config, classes)
    if path.parent != out and (path.parent / "log.jsonl").is_file():
        with atomic_path(out / "log.jsonl") as temporary:
            shutil.copyfile(path.parent / "log.jsonl", temporary)
    return previous


def _newest(paths: list[Path]) -> tuple[Path, Checkpoint]:
    """The one that is furthest among those that can be read; of equals the first."""
    whole, errors = [], []
    for path in paths:
        try:
            whole.append((path, load_checkpoint(path)))
        except UserError as error:
            errors.append(error)
    if not whole:
        raise errors[0]
    return max(whole, key=lambda found: found[1].progress)


def _expect_same(path: Path, previous: Checkpoint, config: TrainConfig, classes: tuple[str, ...]) -> None:
    if previous.classes != classes:
        raise UserError(f"{path}: expected the classes {previous.classes} of that run, got {classes}")
    before, now = json.loads(previous.config.to_json()), json.loads(config.to_json())
    begun = previous.epoch + (previous.batch > 0)
    # A damaged number of epochs may take for ever to count to; it is another one than now's, and so refused below.
    same = before["epochs"] == now["epochs"]
    if same and all(phase_of(previous.config, epoch) == phase_of(config, epoch) for epoch in range(begun)):
        for name in ("method", "mixing"):  # nothing that differs between the two has happened yet
            before[name] = now[name]
        if not any(phase_of(config, epoch).puzzle for epoch in range(begun)):
            before["puzzle_alpha"] = now["puzzle_alpha"]  # not used yet
    for name in before:
        if name not in RESUMABLE and before[name] != now[name]:
            raise UserError(f"{path}: expected {name} = {before[name]!r} as in the run to resume, got {now[name]!r}")
