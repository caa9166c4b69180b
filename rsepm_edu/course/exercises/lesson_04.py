"""The exercises of lesson 04: PAMR."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.methods.pamr import NEIGHBOURS, colour_affinity, pamr

DEFAULT_DILATIONS = (1, 2, 4, 8, 12, 24)


def weights_at(image: Tensor, y: int, x: int, dilation: int, sigma: float) -> Tensor:
    """The 8 affinities of pixel (y, x) of an image C×H×W to its neighbours at one dilation, row by row."""
    offsets = [(dy * dilation, dx * dilation) for dy, dx in NEIGHBOURS]
    return colour_affinity(image[None], offsets, sigma=sigma)[0, :, y, x]


def pixels_reached(dilations: Sequence[int], iterations: int) -> int:
    """How many pixels of a flat, endless picture hold some of one lit pixel's value after so many iterations."""
    size = 2 * max(dilations) * iterations + 1
    lit = torch.zeros(1, 1, size, size, dtype=torch.float64)
    lit[..., size // 2, size // 2] = 1
    return int((pamr(torch.zeros_like(lit), lit, dilations=dilations, iterations=iterations) > 0).sum())


def _pixels(generator: Generator) -> list[tuple[Any, ...]]:
    grey = torch.rand(1, 3, 3, generator=generator)
    colour = torch.rand(3, 9, 11, generator=generator)
    return [(grey, 1, 1, 1, 0.5), (colour, 4, 5, 2, 0.3), (colour, 1, 10, 4, 1.0)]


def _reaches(_: Generator) -> list[tuple[Any, ...]]:
    return [((1,), 1), ((1,), 3), ((1, 2, 4), 2), ((4, 8), 2), ((12, 24), 1), (DEFAULT_DILATIONS, 2)]


EXERCISES: dict[str, Exercise] = {
    "04.weights_at": Exercise(weights_at, _pixels),
    "04.pixels_reached": Exercise(pixels_reached, _reaches, tolerance=0),
}
