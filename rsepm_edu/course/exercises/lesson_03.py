"""The exercises of lesson 03: SCG."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.methods.scg import correlated_map


def agreement(features: Tensor, y: int, x: int) -> Tensor:
    """h×w: cosine of every position of features C×h×w with position (y, x)."""
    return F.cosine_similarity(features, features[:, y, x, None, None], dim=0)


def walk(similarity: Tensor, steps: int) -> Tensor:
    """nxn: column j says where a walk of `steps` steps from j ends that never stays where it is."""
    step = similarity * (1 - torch.eye(len(similarity)))
    return torch.linalg.matrix_power(step / step.sum(dim=0), steps)


def class_map(correlation: Tensor, cam: Tensor, foreground: float, background: float) -> Tensor:
    """n: the map of one class from correlation nxn and a cam of n positions."""
    positive, negative = (cam >= foreground).float(), (cam <= background).float()
    return correlated_map(correlation[None], positive[None, None], negative[None, None])[0, 0]


def _features(generator: Generator) -> list[tuple[Any, ...]]:
    return [(torch.randn(c, h, w, generator=generator), y, x) for c, h, w, y, x in [(2, 1, 3, 0, 1), (8, 5, 7, 3, 6)]]


def _similarity(n: int, generator: Generator) -> Tensor:
    """Symmetric, 1 on the diagonal; no position is alone."""
    half = torch.rand(n, n, generator=generator).triu(1)
    return half + half.T + torch.eye(n)


def _walks(generator: Generator) -> list[tuple[Any, ...]]:
    return [(_similarity(n, generator), steps) for n, steps in [(4, 1), (4, 2), (12, 5)]]


def _maps(generator: Generator) -> list[tuple[Any, ...]]:
    cases = []
    for n, lowest in [(6, 0.0), (20, 0.0), (20, 0.1)]:  # of the last map nothing is background
        correlation = _similarity(n, generator)
        cam = lowest + (1 - lowest) * torch.linspace(0, 1, n)[torch.randperm(n, generator=generator)]
        cases.append((correlation / correlation.sum(dim=0), cam, 0.3, 0.05))
    return cases


EXERCISES: dict[str, Exercise] = {
    "03.agreement": Exercise(agreement, _features),
    "03.walk": Exercise(walk, _walks),
    "03.class_map": Exercise(class_map, _maps),
}
