"""The exercises of lesson 06: RecurSeed."""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.labels import VOID
from rsepm_edu.methods.recurseed import conditional_filter, hold_seed


def quarrel_filter(seed: Tensor, certain: float, uncertain: float, margin: float) -> Tensor:
    """BxHxW: the conditional filter of seed BxKxHxW, void where a class leads the next by less than a margin."""
    mask = conditional_filter(seed, certain=certain, uncertain=uncertain)
    ranked = seed.sort(dim=1, descending=True).values
    quarrel = (ranked[:, 0] - ranked[:, 1] < margin) & (mask > 0)
    return mask.masked_fill(quarrel, VOID)


def held(seed: Tensor, mask: Tensor) -> Tensor:
    """(K+1)xhxw: the held targets of seed Kxhxw within a mask HxW, then the weight of each position."""
    target, weight = hold_seed(seed[None], mask[None])
    return torch.cat([target[0], weight[0]])


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


def _held(generator: Generator) -> list[tuple[Any, ...]]:
    def case(classes: int, height: int, width: int, block: int) -> tuple[Any, ...]:
        labels = torch.tensor([*range(classes + 1), VOID, VOID])
        mask = labels[torch.randint(0, len(labels), (height * block, width * block), generator=generator)]
        mask[-block:, -block:] = VOID  # a position of which nothing is known
        return torch.rand(classes, height, width, generator=generator), mask

    return [case(1, 2, 3, 2), case(3, 4, 5, 4)]


def _students(generator: Generator) -> list[tuple[Any, ...]]:
    def case(steps: int, weights: int, decay: float) -> tuple[Any, ...]:
        return torch.randn(steps, weights, generator=generator), torch.randn(weights, generator=generator), decay

    return [case(1, 3, 0.9), case(40, 5, 0.95)]


EXERCISES: dict[str, Exercise] = {
    "06.quarrel_filter": Exercise(quarrel_filter, _seeds, tolerance=0),
    "06.held": Exercise(held, _held),
    "06.teacher_after": Exercise(teacher_after, _students),
}
