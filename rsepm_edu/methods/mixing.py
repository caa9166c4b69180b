"""Mixing two pictures into one that the network has not seen: what all mixing methods share."""

from typing import NamedTuple

import torch
from torch import Tensor


class Mixed(NamedTuple):
    """A mixed batch: images B×3×H×W, tags B×K in {0, 1}, pseudo_masks B×H×W int64 (255 void)."""

    images: Tensor
    tags: Tensor
    pseudo_masks: Tensor


def choose_half(present: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw half of the present classes of each row, rounded up: 1 of 1, 1 of 2, 2 of 3.

    Args:
        present: B×K bool.
        generator: on the CPU, so that every device draws the same.

    Returns:
        B×K bool, a subset of ``present``.
    """
    draw = torch.rand(present.shape, generator=generator).to(present.device)
    draw = torch.where(present, draw, -1.0)
    rank = draw.argsort(dim=1, descending=True).argsort(dim=1)
    return present & (rank < (present.sum(1, keepdim=True) + 1) // 2)


def partners(count: int, *, generator: torch.Generator) -> Tensor:
    """A random partner for each of ``count`` pictures, never itself where there are two or more.

    Returns:
        int64 of length ``count``, a permutation made of one cycle.
    """
    order = torch.randperm(count, generator=generator)
    return torch.empty_like(order).scatter(0, order, order.roll(-1))


def label_counts(masks: Tensor) -> Tensor:
    """How many pixels of each mask have each label.

    Args:
        masks: B×H×W int64 in 0 … 255.

    Returns:
        B×256 int64.
    """
    flat = masks.flatten(1)
    counts = torch.zeros(len(masks), 256, dtype=torch.int64, device=masks.device)
    return counts.scatter_add_(1, flat, torch.ones_like(flat))
