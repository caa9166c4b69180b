"""The exercises of lesson 12: reading tables of results."""

from typing import Any

import torch
from torch import Generator, Tensor

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.evaluation import comparison


def paired_range(before: Tensor, after: Tensor) -> tuple[float, float, float]:
    """Mean, lowest and highest of after − before; one value a seed, in the same order."""
    by_seed = [dict(enumerate(values.tolist())) for values in (before, after)]
    differences = list(comparison.paired_differences(*by_seed).values())
    return sum(differences) / len(differences), min(differences), max(differences)


def dishonest_row(curves: Tensor, reported: Tensor, fixed: int) -> int:
    """Index of the row that reports its best threshold, not the fixed one: curves RxT, reported R, fixed a column."""
    return int((reported - curves[:, fixed]).abs().argmax())


def _seeds(generator: Generator) -> list[tuple[Any, ...]]:
    def pair(seeds: int) -> tuple[Tensor, Tensor]:
        luck = 50 + 8 * torch.randn(seeds, generator=generator)  # of the seed: common to both
        return luck, luck + 2 + torch.randn(seeds, generator=generator)

    return [pair(3), pair(8)]


def _sweeps(generator: Generator) -> list[tuple[Any, ...]]:
    def case(rows: int, steps: int, fixed: int, dishonest: int) -> tuple[Any, ...]:
        best = torch.randint(0, steps, (rows, 1), generator=generator)
        best[best == fixed] = (fixed + 2) % steps  # the fixed threshold is nobody's best
        level = 70 + 10 * torch.rand(rows, 1, generator=generator)
        level[dishonest] = 40  # dishonest, and still the lowest of all
        curves = level - 2.0 * (torch.arange(steps) - best).abs()
        reported = curves[:, fixed].clone()
        reported[dishonest] = curves[dishonest].max()
        reported[:dishonest] += 0.04 * torch.rand(dishonest, generator=generator)  # rounding is no dishonesty
        return curves, reported, fixed

    return [case(4, 7, 2, 3), case(9, 16, 5, 1)]


EXERCISES: dict[str, Exercise] = {
    "12.paired_range": Exercise(paired_range, _seeds),
    "12.dishonest_row": Exercise(dishonest_row, _sweeps, tolerance=0),
}
