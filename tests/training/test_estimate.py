from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsepm_edu.processes import World
from rsepm_edu.training import estimate as module
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.estimate import Estimate, estimate
from rsepm_edu.training.loop import Trainer, train, training_dataset
from rsepm_edu.training.memory import step_memory
from rsepm_edu.training.phases import Phase, phase_of

CPU = torch.device("cpu")


def made(**changes: Any) -> Estimate:
    values: dict[str, Any] = {
        "pictures": 10_582, "steps": 6_600, "memory": 6_658_000_000, "memory_tried": None, "gpu_memory": None,
        "computing": 14_520.0, "reading": 600.0, "workers": 2,
    }  # fmt: skip
    return Estimate(**{**values, **changes})


def test_three_lines_tell_pictures_memory_and_time() -> None:
    assert made().lines() == [
        "10,582 pictures, 6,600 steps to go",
        "memory: about 6.2 GiB for a step, counted",
        "time: about 4 h 2 min, from a few steps tried: computing 4 h 2 min, reading 10 min meanwhile (2 workers)",
    ]
    assert made(memory_tried=7_516_192_768, gpu_memory=15_843_721_216).lines()[1] == (
        "memory: about 6.2 GiB for a step, counted; 7.0 GiB in those tried, of 14.8 GiB"
    )
    assert made(computing=50.4, reading=30.0, workers=0, memory=50 * 2**20).lines()[1:] == [
        "memory: about 50 MiB for a step, counted",
        "time: about 80 s, from a few steps tried: computing 50 s, reading 30 s in turn (no workers)",
    ]


def test_workers_read_while_the_device_computes() -> None:
    assert made(computing=10, reading=4).seconds == 10
    assert made(computing=10, reading=40).seconds == 40  # the device waits
    assert made(computing=10, reading=4, workers=0).seconds == 14


class Clock:
    """Every look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1
        return self.now


def test_time_is_counted_for_the_phases_and_the_steps_that_are_left(
    tiny: TrainConfig, creatures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "time", Clock())
    trainer, dataset = Trainer(tiny, ("a", "b", "c", "d", "e"), CPU), training_dataset(tiny, creatures)
    whole = estimate(trainer, dataset)  # 8 pictures, 4 a step, 4 epochs; any 4 pictures read or computed take a second
    assert (whole.pictures, whole.steps, whole.computing, whole.reading) == (8, 8, 8.0, 8.0)
    trainer.epoch, trainer.batch = 2, 1
    rest = estimate(trainer, dataset)
    assert (rest.steps, rest.computing, rest.reading) == (3, 3.0, 3.0)
    full = Phase(refine=True, mixing="epm")
    assert whole.memory == rest.memory == step_memory(tiny, trainer.network, full, torch.float32)
    assert whole.memory_tried is None and whole.gpu_memory is None


def test_of_several_processes_one_tries_its_share_and_the_time_is_that_of_all(
    tiny: TrainConfig, creatures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "time", Clock())
    trainer, dataset = Trainer(tiny, ("a", "b", "c", "d", "e"), CPU), training_dataset(tiny, creatures)
    trainer.world = World(CPU, rank=0, size=2)
    found = estimate(trainer, dataset)  # 8 pictures, 4 a step, 2 for each process; any 2 pictures take a second
    assert (found.processes, found.steps, found.computing, found.reading) == (2, 8, 8.0, 8.0)
    share, full = replace(tiny, batch_size=2), Phase(refine=True, mixing="epm")
    assert found.memory == step_memory(share, trainer.network, full, torch.float32)
    assert made(processes=8).lines()[2] == (
        "time: about 4 h 2 min on 8 processes, the exchange between them not counted, from a few steps tried: "
        "computing 4 h 2 min, reading 10 min meanwhile (2 workers for each process)"
    )


def test_frozen_weights_are_counted_as_such(tiny: TrainConfig, creatures: Path) -> None:
    frozen = replace(tiny, freeze_stages=2)
    dataset = training_dataset(tiny, creatures)
    trainer = Trainer(frozen, ("a", "b", "c", "d", "e"), CPU)
    found = estimate(trainer, dataset).memory
    assert found == step_memory(frozen, trainer.network, Phase(refine=True, mixing="epm"), torch.float32)
    assert found < estimate(Trainer(tiny, ("a", "b", "c", "d", "e"), CPU), dataset).memory


def test_each_phase_is_tried_twice_and_the_second_counts(
    tiny: TrainConfig, creatures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    original = Trainer.step

    def record(self: Trainer, images: Any, tags: Any, phase: Phase, **settings: Any) -> dict[str, float]:
        tried.append((phase, len(images)))
        return original(self, images, tags, phase, **settings)

    monkeypatch.setattr(Trainer, "step", record)
    config = replace(tiny, batch_size=8, accumulate=4)
    estimate(Trainer(config, ("a", "b", "c", "d", "e"), CPU), training_dataset(config, creatures))
    phases = [phase_of(tiny, epoch) for epoch in (0, 1, 2)]
    assert tried == [(phase, 2) for phase in phases for _ in range(2)]


def test_a_run_that_was_estimated_is_the_same_run(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    plain = train(tiny, creatures, tmp_path / "plain", device="cpu", progress=False)
    told: list[Estimate] = []
    estimated = train(
        tiny,
        creatures,
        tmp_path / "estimated",
        device="cpu",
        progress=False,
        on_start=lambda trainer, dataset: told.append(estimate(trainer, dataset)),
    )
    assert told[0].steps == 8
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), estimated.state_dict().values(), strict=True)
    )
