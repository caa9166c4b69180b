"""The exercises of lesson 08: EdgePredictMix."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.labels import VOID
from rsepm_edu.methods.mixing import label_counts, shown_classes


def strength(grey: Tensor) -> Tensor:
    """HxW: |across| + |down| of Sobel's filter of an integer picture HxW, the border repeated."""
    padded = F.pad(grey[None, None].double(), (1, 1, 1, 1), mode="replicate")[0, 0]
    across, down = padded[:, 2:] - padded[:, :-2], padded[2:] - padded[:-2]
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return across.abs() + down.abs()


def share_left(mask_a: Tensor, mask_b: Tensor, chosen: Tensor) -> Tensor:
    """K: the share of each class's labelled pixels of mask_b that pasting the chosen classes of mask_a leaves."""
    hidden = shown_classes(mask_a[None], chosen[None])
    both = torch.cat([mask_b[None], torch.where(hidden, VOID, mask_b[None])])
    before, left = label_counts(both)[:, 1 : len(chosen) + 1]
    return torch.where(before > 0, left / before.clamp(min=1), 1.0)


def _pictures(generator: Generator) -> list[tuple[Any, ...]]:
    return [(torch.randint(0, 256, size, generator=generator),) for size in ((3, 4), (11, 8))]


def _masks(generator: Generator) -> list[tuple[Any, ...]]:
    def case(classes: int, height: int, width: int, chosen: list[bool]) -> tuple[Any, ...]:
        labels = torch.tensor([*range(classes + 1), VOID])
        masks = labels[torch.randint(0, len(labels), (2, height, width), generator=generator)]
        masks[1][masks[1] == classes] = 0  # the last class is not in B
        return masks[0], masks[1], torch.tensor(chosen)

    return [case(2, 4, 5, [True, False]), case(4, 9, 12, [False, True, True, False])]


EXERCISES: dict[str, Exercise] = {
    "08.strength": Exercise(strength, _pictures, tolerance=0),
    "08.share_left": Exercise(share_left, _masks),
}
