"""What a run will take, told before it starts: pictures and steps, memory, time."""

import os
import time
from collections import Counter
from dataclasses import dataclass, replace

import torch

from rsepm_edu.data.loading import batches_of, epoch_loader
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.training.checkpoint import network_from_config
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import Trainer
from rsepm_edu.training.memory import gpu_memory, step_memory
from rsepm_edu.training.optimizer import freeze, set_learning_rate
from rsepm_edu.training.phases import Phase, phase_of

TRIED_ON_CPU = 4
"""Pictures of a step that is tried on the CPU, where time goes with their number; on a GPU a whole part of a batch."""


@dataclass(frozen=True)
class Estimate:
    """Of what is left of a run.

    pictures: of the split. steps: of the optimiser. memory: bytes of the greatest step, counted (``step_memory``, on a
    GPU ``gpu_memory``). memory_tried: bytes at the height of the steps that were tried; None on the CPU.
    gpu_memory: bytes of the GPU. computing, reading: seconds; with workers they pass side by side, else one after the
    other. processes: that share the run, each with a GPU of its own; memory is that of one.
    """

    pictures: int
    steps: int
    memory: int
    memory_tried: int | None
    gpu_memory: int | None
    computing: float
    reading: float
    workers: int
    processes: int = 1

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return max(self.computing, self.reading) if self.workers else self.computing + self.reading

    def lines(self) -> list[str]:
        """As told to the user."""
        memory = f"memory: about {_size(self.memory)} for a step, counted"
        if self.memory_tried is not None and self.gpu_memory is not None:
            memory += f"; {_size(self.memory_tried)} in those tried, of {_size(self.gpu_memory)}"
        when = "meanwhile" if self.workers else "in turn"
        readers = f"{self.workers} workers" if self.workers else "no workers"
        shared = ""
        if self.processes > 1:
            readers = f"{readers} for each process"
            shared = f" on {self.processes} processes, the exchange between them not counted"
        return [
            f"{self.pictures:,} pictures, {self.steps:,} steps to go",
            memory,
            f"time: about {_duration(self.seconds)}{shared}, from a few steps tried: "
            f"computing {_duration(self.computing)}, reading {_duration(self.reading)} {when} ({readers})",
        ]


def estimate(trainer: Trainer, dataset: VocDataset) -> Estimate:
    """Count the memory of each phase that is left and try two steps of it, on a copy.

    The trainer is left as it is, and so is what it will draw. Where several processes share the run, one of them tries
    its share alone: nothing here waits for another one.

    Args:
        trainer: at the start of the run, or where it is resumed.
        dataset: of the run, see ``training_dataset``.
    """
    config, processes = trainer.config, trainer.world.size
    share = replace(config, weights="none", batch_size=config.batch_size // processes)
    with torch.device("meta"):  # only its shapes are asked for; the trainer's batch norm may ask other processes
        plain = network_from_config(share, trainer.classes)
    freeze(plain, share)
    batches = batches_of(len(dataset), config.batch_size)
    epochs = Counter(phase_of(config, epoch) for epoch in range(trainer.epoch, config.epochs))
    seconds, reading, tried = _try_steps(trainer, share, dataset, list(epochs))
    left = {phase: count * batches for phase, count in epochs.items()}
    left[phase_of(config, trainer.epoch)] -= trainer.batch
    pictures = sum(left.values()) * config.batch_size
    cuda = trainer.device.type == "cuda"
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # of this machine, for each process
    readers = processes * max(1, min(config.workers, cores))
    count = gpu_memory if cuda else step_memory
    return Estimate(
        pictures=len(dataset),
        steps=sum(left.values()),
        memory=max(count(share, plain, phase, trainer.precision) for phase in epochs),
        memory_tried=tried,
        gpu_memory=torch.cuda.get_device_properties(trainer.device).total_memory if cuda else None,
        computing=sum(steps * share.batch_size * seconds[phase] for phase, steps in left.items()),
        reading=pictures * reading / readers,
        workers=config.workers,
        processes=processes,
    )


def _try_steps(
    trainer: Trainer, share: TrainConfig, dataset: VocDataset, phases: list[Phase]
) -> tuple[dict[Phase, float], float, int | None]:
    """Seconds a picture of computing in each phase and of reading, and bytes at the height; the first steps warm up."""
    config, device = trainer.config, trainer.device
    cuda = device.type == "cuda"
    part = share.batch_size // share.accumulate
    count = part if cuda else min(part, TRIED_ON_CPU)
    started = time.perf_counter()
    images, tags, boxes, _ = next(iter(epoch_loader(dataset, batch_size=count, seed=config.seed, epoch=trainer.epoch)))
    count = len(images)  # there may be fewer
    reading = (time.perf_counter() - started) / count
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if cuda else 0
    double = Trainer(replace(share, batch_size=count, accumulate=1), trainer.classes, device)
    double.network.load_state_dict(trainer.network.state_dict())
    set_learning_rate(double.optimizer, config, step=1, steps=1)  # to 0: what is tried must not run away
    seconds = {}
    for phase in phases:
        for _ in range(2):
            started = time.perf_counter()
            double.step(images, tags, phase, step=0, boxes=boxes)
            if cuda:
                torch.cuda.synchronize(device)
            seconds[phase] = (time.perf_counter() - started) / count
    tried = torch.cuda.max_memory_allocated(device) - before if cuda else None
    return seconds, reading, tried


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
