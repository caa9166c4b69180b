"""Batches that are the same for a seed, with any number of workers and after any resume.

Every draw comes from a number made of (seed, epoch, picture), never from how many draws came before: the order of an
epoch and the crop of a picture can be had without replaying the epochs before them.
"""

import hashlib
import os
import signal
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from rsepm_edu.errors import UserError


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2⁶³) from parts; different parts give unrelated seeds, on every machine the same."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class EpochSampler(Sampler[tuple[int, int]]):
    """A random order for each epoch, as pairs (index, seed of that picture in that epoch).

    Args:
        length: pictures in the data set.
        seed: of the run.
        epoch: counted from 0.
        start: leave out so many pictures at the front: those that an interrupted epoch has seen.
    """

    def __init__(self, length: int, *, seed: int, epoch: int, start: int = 0) -> None:
        self.length, self.seed, self.epoch, self.start = length, seed, epoch, start

    def __len__(self) -> int:
        return self.length - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        for index in torch.randperm(self.length, generator=generator).tolist()[self.start :]:
            yield index, derive_seed(self.seed, "picture", self.epoch, index)


class ShareSampler(Sampler[tuple[int, int]]):
    """What one of several processes sees of a sampler's batches: an equal slice of each part of each batch.

    A batch is the pictures of all processes; its parts are worked on one after the other (gradients accumulate). So
    part i of the batch is what all processes see as their part i, whatever their number, and no picture comes twice.
    The last batch, if it is not a full one, is left out.

    Args:
        sampler: gives the pictures of all.
        batch_size: pictures of a batch, a multiple of parts × processes.
        parts: of each batch.
        rank: of this process, from 0.
        processes: how many there are.
    """

    def __init__(self, sampler: EpochSampler, *, batch_size: int, parts: int, rank: int, processes: int) -> None:
        self.sampler, self.rank, self.processes = sampler, rank, processes
        self.slice = batch_size // (parts * processes)
        self.seen = len(sampler) // batch_size * batch_size

    def __len__(self) -> int:
        return self.seen // self.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for position, picture in enumerate(islice(self.sampler, self.seen)):
            if position // self.slice % self.processes == self.rank:
                yield picture


class SeededDataset(Dataset[Any]):
    """Wraps a data set so that (index, seed) gives its item with torch's generator set to that seed."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, seed = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone
            return self.dataset[index]


class _Loader(DataLoader[Any]):
    """A loader whose errors read the same with workers as without."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except UserError as error:
            # From a worker comes its traceback as the message; the last line is what the error said there.
            raise UserError(error.args[0].splitlines()[-1].split("UserError: ", 1)[-1]) from error


def batches_of(length: int, batch_size: int) -> int:
    """How many batches an epoch of ``length`` pictures has; the last, smaller one counts only if it is the first."""
    return max(1, length // batch_size)


def epoch_loader(
    dataset: Any,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    workers: int = 0,
    pin: bool = False,
    parts: int = 1,
    rank: int = 0,
    processes: int = 1,
) -> DataLoader[Any]:
    """The batches of one epoch; the last, smaller one is left out where there is a full one.

    Args:
        dataset: any map-style data set with a length.
        start: batches to leave out at the front, those that an interrupted epoch has seen.
        workers: processes that read ahead; the batches do not depend on it.
        pin: page-locked memory, for a GPU.
        parts, rank, processes: where several processes share each batch, see ``ShareSampler``; ``batch_size`` and
            ``start`` are those of all together, and the data set has a full batch.

    Raises:
        UserError: what the data set raises, in the same words with workers; when the batch is asked for.
    """
    sampler = EpochSampler(len(dataset), seed=seed, epoch=epoch, start=min(start * batch_size, len(dataset)))
    share = {"batch_size": batch_size, "parts": parts, "rank": rank, "processes": processes}
    return _Loader(
        SeededDataset(dataset),
        batch_size=batch_size // processes,
        sampler=ShareSampler(sampler, **share) if processes > 1 else sampler,
        num_workers=workers,
        drop_last=len(dataset) >= batch_size,
        pin_memory=pin,
        generator=torch.Generator(),  # else the loader draws from the global one
        worker_init_fn=_leave_signals_to_the_parent,
    )


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, torchrun's SIGTERM every process of a group.

    The parent must still get its batch to save its state after it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()
