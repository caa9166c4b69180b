"""What an exercise is: a function to write, the right answer, and inputs to try both on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Generator


@dataclass(frozen=True)
class Exercise:
    """One function to write.

    reference: the right answer, a tensor or several numbers. inputs: some argument tuples for it,
    tensors, lists of tensors or plain values. tolerance: allowed absolute difference. stub: the name of the
    student's function, where the lesson itself uses that of the exercise for something else.
    """

    reference: Callable[..., Any]
    inputs: Callable[[Generator], list[tuple[Any, ...]]]
    tolerance: float = 1e-5
    stub: str | None = None
