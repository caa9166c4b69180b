"""The exercises of lesson 09: single-stage training."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.labels import VOID


def part_weights(pseudo_masks: Tensor, parts: int) -> Tensor:
    """By what to multiply the decoder loss of each part of a batch B×H×W, so that they add up to the batch's."""
    labelled = torch.stack([(part != VOID).sum() for part in pseudo_masks.chunk(parts)])
    return labelled / labelled.sum()


def balanced_loss(seg_logits: Tensor, pseudo_mask: Tensor) -> Tensor:
    """Half the mean cross entropy over foreground pixels and half of that over background pixels; void left out."""
    losses = F.cross_entropy(seg_logits, pseudo_mask, ignore_index=VOID, reduction="none")
    foreground = (pseudo_mask > 0) & (pseudo_mask != VOID)
    return (losses[foreground].mean() + losses[pseudo_mask == 0].mean()) / 2


def _masks(classes: int, shape: tuple[int, int, int], generator: Generator) -> Tensor:
    """Labels and void; every picture has another share of void."""
    masks = torch.randint(0, classes + 1, shape, generator=generator)
    shares = torch.linspace(0.1, 0.9, shape[0])[:, None, None]
    masks[torch.rand(shape, generator=generator) < shares] = VOID
    return masks


def _batches(generator: Generator) -> list[tuple[Any, ...]]:
    return [(_masks(3, (4, 6, 7), generator), parts) for parts in (1, 2, 4)]


def _logits(generator: Generator) -> list[tuple[Any, ...]]:
    shapes = [(1, 1, 4, 5), (3, 5, 8, 9)]  # B, K, H, W
    return [
        (torch.randn(b, k + 1, h, w, generator=generator), _masks(k, (b, h, w), generator)) for b, k, h, w in shapes
    ]


EXERCISES: dict[str, Exercise] = {
    "09.part_weights": Exercise(part_weights, _batches),
    "09.balanced_loss": Exercise(balanced_loss, _logits),
}
