"""Several processes, one piece of work: torchrun starts them, and here they meet, deal it out, agree, and add up.

With one process nothing here does anything, so that the same code serves a notebook and many machines.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rsepm_edu.device import resolve_device
from rsepm_edu.errors import UserError

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """The processes of a run as one of them sees them; alone by default.

    What is said of "all" happens only when all call it, in the same order.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes files and speaks."""
        return self.rank == 0

    @property
    def own(self) -> tuple[int | str, ...]:
        """What makes a seed this process's own: nothing on rank 0, which draws as one process alone does."""
        return ("rank", self.rank) if self.rank else ()

    def share(self, length: int) -> range:
        """Which of so many things are this process's: dealt out in turn, none twice."""
        return range(self.rank, length, self.size)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, element by element; every one gets the same."""
        total = values.clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether one of all has it set; all go on together."""
        return bool(self.sum(torch.tensor(int(flag))))

    def gather(self, value: Result) -> list[Result]:
        """What each of all has, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, make: Callable[[], Result]) -> Result:
        """What ``make`` returns on rank 0, which alone calls it; its ``UserError`` ends all, see ``report_once``."""
        values: list[Any] = [None]
        with self.report_once():
            if self.is_main:
                values = [make()]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        result: Result = values[0]
        return result

    @contextmanager
    def report_once(self) -> Iterator[None]:
        """Have a mistake of the user, which all may find, told once; no exchange among processes may be inside.

        Raises:
            UserError: as it was raised inside, on the first process that has one.
            SystemExit: 2, on the others.
        """
        error: UserError | None = None
        try:
            yield
        except UserError as found:
            error = found
        found_by = [rank for rank, found in enumerate(self.gather(error is not None)) if found]
        if found_by and found_by[0] != self.rank:
            raise SystemExit(2)
        if error is not None:
            raise error


def launched() -> tuple[int, int]:
    """This process's rank, and how many torchrun has started in all; (0, 1) without torchrun."""
    if dist.is_available() and dist.is_torchelastic_launched():
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


@contextmanager
def joined(device: str | torch.device | None = None) -> Iterator[World]:
    """Meet the other processes that torchrun has started, for a block; alone where there are none.

    A process group that is there already is used, and stays; it has to take tensors of the CPU too.

    Args:
        device: "cpu" or "cuda", of which each process takes its own; without torchrun any device. Default: the GPU
            if there is one.

    Raises:
        UserError: no such device.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(_own_device(device), dist.get_rank(), dist.get_world_size())
    elif launched() == (0, 1):
        yield World(resolve_device(device))
    else:
        own = _own_device(device)
        if own.type == "cuda":
            torch.cuda.set_device(own)
        store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        if os.environ["GROUP_WORLD_SIZE"] == "1":
            # torchrun keeps its store when it starts all again, and in it the addresses of those who are gone. (Of
            # several machines each counts its own restarts: see docs/many_gpus.md.)
            name = f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}"
            store = dist.PrefixStore(name, store)  # type: ignore[attr-defined]
        # Flags and objects, which are on the CPU, go by gloo: no GPU has to be waited for.
        backend = "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        try:
            world = World(own, rank, size)
            yield world
            world.any(False)  # none leaves before rank 0 has written its files
        finally:
            dist.destroy_process_group()


def _own_device(wanted: str | torch.device | None) -> torch.device:
    name = str(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    if name.startswith("cuda:"):
        raise UserError(f"device: expected cpu or cuda, of which each process takes its own GPU, got {name!r}")
    return resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" else name)
