"""The worst and the best pictures of a split, to be looked at.

A picture's score is the mean of IoU over the labels (background among them) that occur in its truth or its prediction,
void left out. It sorts pictures and nothing else: its mean over a set is not the mIoU, which comes from one confusion
matrix (``metrics``), since here a small object weighs as much as a large one. Never report such a mean.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rsepm_edu.evaluation.metrics import confusion_matrix


class Case(NamedTuple):
    """One picture: its name, its score in [0, 1] (for the eye alone), and its labels, predicted and true, H×W uint8."""

    name: str
    score: float
    prediction: Tensor
    truth: Tensor


def picture_score(prediction: Tensor, truth: Tensor, num_labels: int) -> float | None:
    """The score of one picture (see above), or None where its truth is void all over.

    Args:
        prediction: integer labels H×W in 0 … L - 1.
        truth: integer labels H×W, or VOID.
        num_labels: number of labels L, background included.

    Raises:
        TypeError, ValueError: see ``confusion_matrix``.
    """
    counts = confusion_matrix(prediction, truth, num_labels)
    right = counts.diagonal()
    union = counts.sum(dim=0) + counts.sum(dim=1) - right
    occurs = union > 0
    return float((right[occurs] / union[occurs]).mean()) if bool(occurs.any()) else None


class Extremes:
    """Keeps the worst and the best pictures of those it is shown, and forgets the others.

    Args:
        num_labels: number of labels L, background included.
        count: how many of each to keep; with few pictures one may be in both.
    """

    def __init__(self, num_labels: int, count: int) -> None:
        self.num_labels = num_labels
        self.count = count
        self.worst: list[Case] = []
        """Lowest score first; equals in the order in which they came."""
        self.best: list[Case] = []
        """Highest score first."""

    def update(self, name: str, prediction: Tensor, truth: Tensor) -> None:
        """Look at a picture: integer labels H×W each. One whose truth is void all over is passed by."""
        score = picture_score(prediction, truth, self.num_labels)
        if score is None:
            return
        case = Case(name, score, *(labels.to("cpu", torch.uint8) for labels in (prediction, truth)))
        self._keep([*self.worst, case], [*self.best, case])

    def merge(self, other: "Extremes", names: Sequence[str]) -> None:
        """Add what another has kept of other pictures; among equals the order of ``names`` counts."""
        place = {name: index for index, name in enumerate(names)}
        worst, best = (
            sorted(cases, key=lambda case: place[case.name])
            for cases in (self.worst + other.worst, self.best + other.best)
        )
        self._keep(worst, best)

    def _keep(self, worst: list[Case], best: list[Case]) -> None:
        self.worst = sorted(worst, key=lambda case: case.score)[: self.count]
        self.best = sorted(best, key=lambda case: -case.score)[: self.count]
