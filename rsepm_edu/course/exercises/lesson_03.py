"""The exercises of lesson 03: SCG."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from rsepm_edu.course.exercises.exercise import Exercise


def agreement(features: Tensor, y: int, x: int) -> Tensor:
    """h×w: cosine of every position of features C×h×w with position (y, x)."""
    return F.cosine_similarity(features, features[:, y, x, None, None], dim=0)


def walk(similarity: Tensor, steps: int) -> Tensor:
    """nxn: column j says where a walk of `steps` steps from j ends that never stays where it is."""
    step = similarity * (1 - torch.eye(len(similarity)))
    return torch.linalg.matrix_power(step / step.sum(dim=0), steps)


def _features(generator: Generator) -> list[tuple[Any, ...]]:
    return [(torch.randn(c, h, w, generator=generator), y, x) for c, h, w, y, x in [(2, 1, 3, 0, 1), (8, 5, 7, 3, 6)]]


def _similarity(n: int, generator: Generator) -> Tensor:
    """Symmetric, 1 on the diagonal; no position is alone."""
    half = torch.rand(n, n, generator=generator).triu(1)
    return half + half.T + torch.eye(n)


def _walks(generator: Generator) -> list[tuple[Any, ...]]:
    return [(_similarity(n, generator), steps) for n, steps in [(4, 1), (4, 2), (12, 5)]]


EXERCISES: dict[str, Exercise] = {
    "03.agreement": Exercise(agreement, _features),
    "03.walk": Exercise(walk, _walks),
}
