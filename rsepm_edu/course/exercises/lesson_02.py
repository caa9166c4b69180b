"""The exercises of lesson 02: Puzzle-CAM."""

from typing import Any

import torch
from torch import Generator, Tensor

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.methods.puzzle import merge


def put_together(tiles: Tensor, parts: int) -> Tensor:
    """B×K×(parts·h)×(parts·w) from (parts²·B)×K×h×w tiles in the order of `tile`; the sides divide."""
    return merge(tiles, size=(parts * tiles.shape[2], parts * tiles.shape[3]), parts=parts)


def untouched(side: int, parts: int, reach: int) -> int:
    """How many of side² positions see no cut, each seeing `reach` positions in every direction; parts divide side."""
    tile = side // parts
    whole = torch.zeros(side, dtype=torch.bool)
    for start in range(0, side, tile):
        first = start + (reach if start > 0 else 0)
        end = start + tile - (reach if start + tile < side else 0)
        whole[first : max(first, end)] = True
    return int(whole.sum()) ** 2


def _tiles(generator: Generator) -> list[tuple[Any, ...]]:
    shapes = [(1, 1, 2, 2, 2), (2, 3, 4, 5, 2), (3, 2, 3, 2, 3)]  # B, K, h, w, parts
    return [(torch.randn(parts**2 * b, k, h, w, generator=generator), parts) for b, k, h, w, parts in shapes]


def _reaches(_: Generator) -> list[tuple[Any, ...]]:
    return [(8, 2, 1), (12, 2, 2), (12, 1, 3), (15, 3, 1), (24, 4, 1), (12, 4, 2), (12, 2, 7)]


EXERCISES: dict[str, Exercise] = {
    "02.put_together": Exercise(put_together, _tiles),
    "02.untouched": Exercise(untouched, _reaches, tolerance=0),
}
