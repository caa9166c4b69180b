"""The exercises of lesson 06: RecurSeed."""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.labels import VOID
from rsepm_edu.methods.recurseed import conditional_filter


def quarrel_filter(seed: Tensor, certain: float, uncertain: float, margin: float) -> Tensor:
    """BxHxW: the conditional filter of seed BxKxHxW, void where a class leads the next by less than a margin."""
    mask = conditional_filter(seed, certain=certain, uncertain=uncertain)
    ranked = seed.sort(dim=1, descending=True).values
    quarrel = (ranked[:, 0] - ranked[:, 1] < margin) & (mask > 0)
    return mask.masked_fill(quarrel, VOID)


def teacher_after(students: Tensor, start: Tensor, decay: float) -> Tensor:
    """N: a moving average that begins at start (N) and has followed students TxN."""
    teacher = nn.Parameter(start.clone(), requires_grad=False)
    for student in students:
        teacher.lerp_(student, 1 - decay)
    return teacher


def _seeds(generator: Generator) -> list[tuple[Any, ...]]:
    def seed(*shape: int) -> Tensor:
        return torch.randint(0, 17, shape, generator=generator) / 16  # differences are exact, some equal the margin

    return [(seed(1, 2, 4, 5), 0.5, 0.25, 0.125), (seed(3, 4, 6, 7), 0.5625, 0.125, 0.1875)]


def _students(generator: Generator) -> list[tuple[Any, ...]]:
    def case(steps: int, weights: int, decay: float) -> tuple[Any, ...]:
        return torch.randn(steps, weights, generator=generator), torch.randn(weights, generator=generator), decay

    return [case(1, 3, 0.9), case(40, 5, 0.95)]


EXERCISES: dict[str, Exercise] = {
    "06.quarrel_filter": Exercise(quarrel_filter, _seeds, tolerance=0),
    "06.teacher_after": Exercise(teacher_after, _students),
}
