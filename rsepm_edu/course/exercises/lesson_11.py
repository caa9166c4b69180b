"""The exercises of lesson 11: one step of the mean field, and affinities across edges."""

from typing import Any

import torch
from torch import Generator, Tensor

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.methods.random_walk import edge_affinity, pair_offsets


def mean_field_step(probabilities: Tensor, beliefs: Tensor, kernel: Tensor, weight: float) -> Tensor:
    """n×C: the next beliefs of n pixels, from probabilities and beliefs n×C and a normalised kernel n×n."""
    return (probabilities.log() + weight * kernel @ beliefs).softmax(dim=1)


def affinity_from(edge: Tensor, start: int, radius: int) -> Tensor:
    """n: 1 − the strongest edge from `start` to each position of a row, both ends included; 0 from the radius on."""
    planes = edge_affinity(edge[None, None, None], radius=radius)[0, :, 0]
    affinity = torch.zeros(len(edge))
    affinity[start] = 1
    for plane, (dy, dx) in zip(planes, pair_offsets(radius), strict=True):
        if dy == 0:  # the pairs (start, start + dx) and (start - dx, start)
            if start + dx < len(edge):
                affinity[start + dx] = plane[start]
            if start >= dx:
                affinity[start - dx] = plane[start - dx]
    return affinity


def _fields(generator: Generator) -> list[tuple[Any, ...]]:
    def one(n: int, classes: int, weight: float) -> tuple[Any, ...]:
        probabilities, beliefs = torch.randn(2, n, classes, generator=generator).mul(2).softmax(dim=2)
        places = torch.randn(n, 3, generator=generator)
        weights = (-0.5 * torch.cdist(places, places).square()).exp()
        norm = weights.sum(dim=1).rsqrt()
        return probabilities, beliefs, norm[:, None] * weights * norm, weight

    return [one(3, 2, 1.0), one(6, 4, 3.0), one(40, 3, 10.0)]


def _rows(generator: Generator) -> list[tuple[Any, ...]]:
    return [
        (torch.rand(n, generator=generator), start, radius) for n, start, radius in [(4, 2, 9), (7, 3, 4), (12, 7, 5)]
    ]


EXERCISES: dict[str, Exercise] = {
    "11.mean_field_step": Exercise(mean_field_step, _fields),
    "11.affinity_from": Exercise(affinity_from, _rows),
}
