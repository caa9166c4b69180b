"""The exercises of lesson 05: the plane of false positives and false negatives."""

from typing import Any

import torch
from torch import Generator, Tensor

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.evaluation.metrics import scores
from rsepm_edu.evaluation.thresholds import sweep


def class_points(confusion: Tensor) -> Tensor:
    """Kx2: (FP, FN) of every foreground class from a confusion matrix LxL, rows truth, columns prediction."""
    names = [str(k) for k in range(1, len(confusion))]
    result = scores(confusion, names)
    pairs = [(result.class_fp[name], result.class_fn[name]) for name in names]
    return torch.tensor(pairs, dtype=torch.float64)


def sweep_points(values: Tensor, truth: Tensor, thresholds: Tensor) -> Tensor:
    """Tx2: (FP, FN) of the mask values > θ at every threshold; values and truth (0 or 1) have N entries."""
    confusions = sweep(values[None, None, None], truth[None, None], thresholds.tolist())
    return torch.stack([class_points(confusion)[0] for confusion in confusions])


def _confusions(generator: Generator) -> list[tuple[Any, ...]]:
    def counts(labels: int) -> Tensor:
        return torch.randint(1, 50, (labels, labels), generator=generator) + 60 * torch.eye(labels, dtype=torch.int64)

    return [(counts(2),), (counts(6),)]


def _maps(generator: Generator) -> list[tuple[Any, ...]]:
    # Everything in sixteenths: many values lie on a threshold, and sums are exact.
    def one(size: int, sixteenths: list[int]) -> tuple[Any, ...]:
        truth = torch.randint(0, 2, (size,), generator=generator)
        truth[0] = 1  # the class occurs
        noise = torch.randint(0, 9, (size,), generator=generator)
        return (2 * truth + noise) / 16, truth, torch.tensor(sixteenths) / 16

    return [one(12, [2, 4, 8]), one(500, list(range(1, 12)))]


EXERCISES: dict[str, Exercise] = {
    "05.class_points": Exercise(class_points, _confusions),
    "05.sweep_points": Exercise(sweep_points, _maps),
}
