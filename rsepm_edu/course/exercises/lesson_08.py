"""The exercises of lesson 08: EdgePredictMix."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.labels import VOID
from rsepm_edu.methods.edgepredictmix import majority_labels
from rsepm_edu.methods.mixing import label_counts, shown_classes


def strength(grey: Tensor) -> Tensor:
    """HxW: |across| + |down| of Sobel's filter of an integer picture HxW, the border repeated."""
    padded = F.pad(grey[None, None].double(), (1, 1, 1, 1), mode="replicate")[0, 0]
    across, down = padded[:, 2:] - padded[:, :-2], padded[2:] - padded[:-2]
    across = across[:-2] + 2 * across[1:-1] + across[2:]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    return across.abs() + down.abs()


def majority(regions: Tensor, labels: Tensor) -> Tensor:
    """HxW: at each pixel the most frequent label of its region, of equals the smallest; 255 where regions is 0."""
    return majority_labels(regions[None], labels[None])[0]


def share_left(mask_a: Tensor, mask_b: Tensor, chosen: Tensor) -> Tensor:
    """K: the share of each class's labelled pixels of mask_b that pasting the chosen classes of mask_a leaves."""
    hidden = shown_classes(mask_a[None], chosen[None])
    both = torch.cat([mask_b[None], torch.where(hidden, VOID, mask_b[None])])
    before, left = label_counts(both)[:, 1 : len(chosen) + 1]
    return torch.where(before > 0, left / before.clamp(min=1), 1.0)


def _pictures(generator: Generator) -> list[tuple[Any, ...]]:
    return [(torch.randint(0, 256, size, generator=generator),) for size in ((3, 4), (11, 8))]


def _regions(generator: Generator) -> list[tuple[Any, ...]]:
    def case(height: int, width: int, regions: int, classes: int) -> tuple[Any, ...]:
        numbers = torch.randint(0, regions + 1, (height, width), generator=generator)
        labels = torch.tensor([*range(classes + 1), VOID])
        return numbers, labels[torch.randint(0, len(labels), (height, width), generator=generator)]

    return [case(3, 4, 2, 1), case(12, 15, 9, 3)]


def _masks(generator: Generator) -> list[tuple[Any, ...]]:
    def case(classes: int, height: int, width: int, chosen: list[bool]) -> tuple[Any, ...]:
        labels = torch.tensor([*range(classes + 1), VOID])
        masks = labels[torch.randint(0, len(labels), (2, height, width), generator=generator)]
        masks[1][masks[1] == classes] = 0  # the last class is not in B
        return masks[0], masks[1], torch.tensor(chosen)

    return [case(2, 4, 5, [True, False]), case(4, 9, 12, [False, True, True, False])]


EXERCISES: dict[str, Exercise] = {
    "08.strength": Exercise(strength, _pictures, tolerance=0),
    "08.majority": Exercise(majority, _regions, tolerance=0),
    "08.share_left": Exercise(share_left, _masks),
}
