"""A run that is stopped, killed or loses its folder ends in the same weights as one that was left alone."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsepm_edu.errors import UserError
from rsepm_edu.training import keeping
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import Trainer, train

STEPS = 8  # of the tiny run: four epochs of two


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Bit for bit holds for one number of threads, and a forked process may use only one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def often(tiny: TrainConfig) -> TrainConfig:
    """The tiny run, its state saved after every step."""
    return replace(tiny, checkpoint_minutes=1e-9)


@pytest.fixture(scope="module")
def straight(often: TrainConfig, creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight")
    run(often, creatures, out)
    return out


def run(config: TrainConfig, root: Path, out: Path, **settings: Any) -> None:
    train(config, root, out, device="cpu", progress=False, **settings)


def expect_same_end(out: Path, straight: Path) -> None:
    """Weights, averages and logged losses to the bit; clock times aside."""
    first, second = (load_checkpoint(folder / "last.pt") for folder in (out, straight))
    assert first.progress == second.progress == (4, 0)
    for ours, theirs in ((first.network, second.network), (first.ema, second.ema)):
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (out, straight)
    ]
    for row in logs[0] + logs[1]:
        del row["seconds"], row["pictures_per_second"]
    assert logs[0] == logs[1]


def at_step(patch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Call ``act`` in that step of the run, counted from 0, once its work is done."""
    original = Trainer.step

    def step(self: Trainer, *arguments: Any, step: int, **options: Any) -> dict[str, float]:
        losses = original(self, *arguments, step=step, **options)
        if step == number:
            act()
        return losses

    patch.setattr(Trainer, "step", step)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state_of_that_step(
    tiny: TrainConfig, straight: Path, creatures: Path, tmp_path: Path, step: int, number: signal.Signals, workers: int
) -> None:
    if workers and step != 2:
        return
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    config = replace(tiny, checkpoint_every=4, workers=workers)  # nothing else saves in between
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        run(config, creatures, tmp_path)
    assert load_checkpoint(tmp_path / "last.pt").progress == divmod(step + 1, 2)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    run(tiny, creatures, tmp_path, resume=True)
    expect_same_end(tmp_path, straight)


def test_a_second_signal_does_not_wait(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on after the second signal")

    at_step(monkeypatch, 0, twice)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, creatures, tmp_path)
    assert not (tmp_path / "last.pt").exists()


def test_checkpoints_within_an_epoch_come_by_the_clock(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, saved = iter(range(0, 10_000, 25)), []  # 25 s pass between two looks at it
    monkeypatch.setattr(keeping.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(keeping, "save_checkpoint", lambda path, checkpoint: saved.append(checkpoint.progress))
    run(replace(tiny, checkpoint_every=4, checkpoint_minutes=1), creatures, tmp_path)
    assert saved == [(1, 1), (3, 0), (4, 0)]


# kill -9


def _train_until_killed(config: TrainConfig, root: Path, out: Path, calls: int) -> None:
    """In a process of its own: train on, and die without a word in the middle of the call of that number."""
    torch.set_num_threads(1)
    left = calls

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    run(config, root, out, resume="auto")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_fifty_kills_at_random_moments_change_nothing(
    often: TrainConfig, straight: Path, creatures: Path, tmp_path: Path
) -> None:
    draw, context = random.Random(0), multiprocessing.get_context("fork")
    # A run makes about 1.5 million calls and returns, the first 260,000 before its first step.
    kills, ends, most, out = 0, 0, 850_000, tmp_path / "out"
    while kills < 50:
        process = context.Process(target=_train_until_killed, args=(often, creatures, out, draw.randrange(1, most)))
        process.start()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            kills += 1
            if (out / "last.pt").exists():
                load_checkpoint(out / "last.pt")
        else:
            assert process.exitcode == 0
            expect_same_end(out, straight)
            shutil.rmtree(out)
            ends += 1
    run(often, creatures, out, resume="auto")
    expect_same_end(out, straight)
    assert ends > 0  # else the kills came too early to mean anything


# the second place


def test_a_run_whose_folder_is_lost_goes_on_from_the_second_place(
    often: TrainConfig, straight: Path, creatures: Path, tmp_path: Path
) -> None:
    out, drive = tmp_path / "out", tmp_path / "drive" / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run(often, creatures, out, copy_to=drive)
    assert (drive / "last.pt").read_bytes() == (out / "last.pt").read_bytes()
    shutil.rmtree(out)
    run(often, creatures, out, copy_to=drive, resume="auto")
    for folder in (out, drive):
        expect_same_end(folder, straight)
    assert {path.name for path in drive.iterdir()} == {"config.json", "last.pt", "log.jsonl"}


def test_the_newest_whole_checkpoint_counts(often: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    out, drive = tmp_path / "out", tmp_path / "drive"
    for folder, step in ((out, 1), (drive, 4)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
            run(often, creatures, folder)

    def found(resume: Any = "auto") -> Any:
        return keeping.find_previous(often, load_checkpoint(out / "last.pt").classes, out, drive, resume=resume)

    assert found().progress == found(True).progress == (2, 1)
    assert (out / "log.jsonl").read_text() == (drive / "log.jsonl").read_text()
    classes = load_checkpoint(out / "last.pt").classes
    (drive / "last.pt").write_bytes((drive / "last.pt").read_bytes()[:-50])
    assert found().progress == (1, 0)
    (out / "last.pt").write_bytes(b"")
    with pytest.raises(UserError, match=f"{out / 'last.pt'}: expected a whole checkpoint"):
        keeping.find_previous(often, classes, out, drive, resume="auto")
    with pytest.raises(UserError, match="expected a new folder or --resume"):
        keeping.find_previous(often, classes, tmp_path / "new", drive, resume=False)
    assert keeping.find_previous(often, classes, tmp_path / "new", None, resume="auto") is None


def test_a_second_place_that_is_none_is_refused_first(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    (tmp_path / "drive").write_text("a file, not a folder")
    with pytest.raises(UserError, match="drive: expected a folder for checkpoints, got a file"):
        run(tiny, creatures, tmp_path / "out", copy_to=tmp_path / "drive")
    with pytest.raises(UserError, match="expected another folder than the run's for the copies, got the same"):
        run(tiny, creatures, tmp_path / "out", copy_to=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_place_that_fails_does_not_end_the_run(
    tiny: TrainConfig, straight: Path, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(source: Path, target: Path) -> None:
        raise OSError(107, "Transport endpoint is not connected", str(target))

    monkeypatch.setattr(keeping.shutil, "copyfile", gone)
    with pytest.warns(UserWarning, match="drive: expected to copy the checkpoint there, got: "):
        run(tiny, creatures, tmp_path / "out", copy_to=tmp_path / "drive")
    expect_same_end(tmp_path / "out", straight)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (
            RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0\nmore"),
            "no room on the disk",
        ),
    ],
)
def test_a_full_disk_leaves_the_last_good_state(
    often: TrainConfig,
    straight: Path,
    creatures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    words: str,
) -> None:
    save = torch.save

    def full_at_third(state: Any, path: Path) -> None:
        if (state["epoch"], state["batch"]) == (1, 1):
            path.write_bytes(b"half of it")
            raise error
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_at_third)
        message = f"{tmp_path / 'last.pt'}: expected to write a checkpoint, got: {words}"
        with pytest.raises(UserError, match=f"^{re.escape(message)}.*; the one before it is whole$"):
            run(often, creatures, tmp_path)
    assert load_checkpoint(tmp_path / "last.pt").progress == (1, 0)
    assert not list(tmp_path.glob(".*"))
    run(often, creatures, tmp_path, resume="auto")
    expect_same_end(tmp_path, straight)


# what is left behind


def test_what_a_kill_left_is_removed_when_the_run_goes_on(often: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    left = [tmp_path / folder / ".last.0123abcd.part.pt" for folder in ("out", "drive")]
    for path in left:
        path.parent.mkdir()
        path.touch()
    (tmp_path / "out" / ".mine.pt").touch()
    run(replace(often, method="cam", mixing="none", epochs=1), creatures, tmp_path / "out", copy_to=tmp_path / "drive")
    assert not any(path.exists() for path in left) and (tmp_path / "out" / ".mine.pt").exists()


@pytest.mark.parametrize("there_before", [False, True])
def test_a_run_that_fails_on_its_first_step_leaves_no_folder(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no step")

    monkeypatch.setattr(Trainer, "step", fail)
    out = tmp_path / "out"
    if there_before:
        out.mkdir()
    with pytest.raises(ValueError, match="no step"):
        run(tiny, creatures, out)
    assert out.exists() == there_before


def test_a_run_that_fails_later_leaves_what_it_has(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("after an epoch")

    with pytest.raises(ValueError, match="after an epoch"):
        run(tiny, creatures, tmp_path / "out", on_epoch=fail)
    assert {"config.json", "last.pt", "log.jsonl", "tensorboard"} == {p.name for p in (tmp_path / "out").iterdir()}
