"""How far a walk gets, so that it gets as far on a small map as the published walks do on theirs.

A step of a walk of radius r takes a value to a random place of a disc. On a map without edges n steps therefore spread
it by √(n · m(r)) positions along an axis, where m(r) is the mean square of one step along that axis. The published
walks (radius 5, 256 steps) take place on photographs with a short side of 375 pixels or so: 94 positions at IRNet's
stride of 4, 47 at AffinityNet's of 8. On a map of 56 positions the same walk would get 1.7 times as far across the
picture, out of the object, and a boundary, which is a position or two wide on any map, would take that much more of it.
So smaller pictures are enlarged to that size (``published_view``), and the walk is scaled to what is larger still.
"""

import statistics
from functools import cache

import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.choosing import PICTURES, spread
from rsepm_edu.methods.random_walk import pair_offsets

PUBLISHED_SIDE = 375
"""Pixels of the short side of most photographs of VOC, on which the published walks take place."""


def median_short_side(dataset: VocDataset) -> float:
    """The median short side of a data set's pictures, in pixels; of many pictures, those that a choice looks at too."""
    indices = spread(len(dataset), PICTURES)
    return statistics.median(min(dataset.sample(index, masks=False)["image"].shape[1:]) for index in indices)


def published_view(images: Tensor) -> Tensor:
    """Pictures of the published size: enlarged, bilinearly, where their short side is smaller, else as they are.

    Args:
        images: B×3×H×W.
    """
    short = min(images.shape[2:])
    if short >= PUBLISHED_SIDE:
        return images
    size = [round(side * PUBLISHED_SIDE / short) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


@cache
def step_square(radius: int) -> float:
    """m(r): the mean square of a step along one axis, in positions, on a map without edges (5.4 for a radius of 5).

    Raises:
        ValueError: radius < 2.
    """
    offsets = pair_offsets(radius)
    return 2 * sum(dx * dx for _, dx in offsets) / (2 * len(offsets) + 1)


def scaled_walk(radius: int, steps: int, share: float) -> tuple[int, int]:
    """A walk that spreads over the same share of another map.

    Args:
        radius, steps: of a walk on a map of the published size.
        share: sides of the other map, in sides of that one.

    Returns:
        The radius in the same proportion, 2 at least, and the steps that make up for its being a whole number; no step
        stays no step, any other number is 1 at least.
    """
    other = max(2, round(radius * share))
    exact = steps * share * share * step_square(radius) / step_square(other)
    return other, max(min(steps, 1), round(exact))
