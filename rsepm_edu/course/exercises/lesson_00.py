"""The exercises of lesson 00: counting and scoring masks."""

from typing import Any

import torch
from torch import Generator, Tensor

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.evaluation import metrics
from rsepm_edu.labels import VOID


def confusion_matrix(prediction: Tensor, truth: Tensor, num_labels: int) -> Tensor:
    """LxL counts by (truth, prediction) of two label maps HxW; void pixels (255) of the truth are left out."""
    return metrics.confusion_matrix(prediction, truth, num_labels)


def mean_iou(confusion: Tensor) -> float:
    """Mean of IoU over the labels, background too, that truth or prediction has; confusion LxL, rows truth."""
    names = [str(label) for label in range(1, len(confusion))]
    return metrics.scores(confusion, names).miou


def _label_maps(generator: Generator) -> list[tuple[Any, ...]]:
    def pair(height: int, width: int, labels: int, void: float) -> tuple[Any, ...]:
        truth = torch.randint(0, labels, (height, width), generator=generator)
        kept = torch.rand(height, width, generator=generator) < 0.6
        prediction = truth.where(kept, torch.randint(0, labels, (height, width), generator=generator))
        truth[torch.rand(height, width, generator=generator) < void] = VOID
        return prediction, truth, labels

    return [pair(4, 4, 3, 0.0), pair(30, 40, 6, 0.1), pair(7, 5, 21, 0.3)]


def _confusions(generator: Generator) -> list[tuple[Any, ...]]:
    def counts(labels: int) -> Tensor:
        return torch.randint(1, 50, (labels, labels), generator=generator) + 60 * torch.eye(labels, dtype=torch.int64)

    whole, absent, invented = counts(3), counts(6), counts(6)
    for label in (2, 4):  # neither the truth nor the prediction has them
        absent[label] = absent[:, label] = 0
    invented[3] = 0  # the truth lacks this one, the prediction does not
    return [(whole,), (absent,), (invented,)]


EXERCISES: dict[str, Exercise] = {
    "00.confusion_matrix": Exercise(confusion_matrix, _label_maps, tolerance=0, stub="count_pixels"),
    "00.mean_iou": Exercise(mean_iou, _confusions),
}
