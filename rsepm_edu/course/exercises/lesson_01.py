"""The exercises of lesson 01: CAM."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.methods.cam import cam_from_features


def tag_scores(features: Tensor, weight: Tensor) -> Tensor:
    """B×K tag scores of features B×C×h×w for weight K×C: the mean of every map."""
    return cam_from_features(features, weight).mean(dim=(2, 3))


def merge_scales(cams: list[Tensor], mirrored: list[Tensor], size: tuple[int, int]) -> Tensor:
    """B×K×H×W: maps of a picture and of its mirror image at several scales, in place and summed."""
    in_place = cams + [cam.flip(-1) for cam in mirrored]
    maps = [F.interpolate(cam, size, mode="bilinear", align_corners=False) for cam in in_place]
    return torch.stack(maps).sum(dim=0)


def seen_pixels(layers: tuple[tuple[int, int], ...]) -> int:
    """How many pixels wide is what one position sees through layers of (kernel, stride), the first on the image."""
    width, step = 1, 1  # in pixels: what is seen so far, and from one position to the next
    for kernel, stride in layers:
        width += (kernel - 1) * step
        step *= stride
    return width


def _features(generator: Generator) -> list[tuple[Any, ...]]:
    shapes = [(1, 3, 2, 2, 2), (4, 8, 5, 7, 6)]  # B, C, h, w, K
    return [
        (torch.randn(b, c, h, w, generator=generator), torch.randn(k, c, generator=generator))
        for b, c, h, w, k in shapes
    ]


def _scales(generator: Generator) -> list[tuple[Any, ...]]:
    def maps(sizes: list[tuple[int, int]]) -> list[Tensor]:
        return [torch.randn(2, 3, h, w, generator=generator) for h, w in sizes]

    one, several = [(4, 6)], [(4, 6), (2, 3), (6, 9)]
    return [(maps(one), maps(one), (4, 6)), (maps(several), maps(several), (8, 12))]


def _layers(_: Generator) -> list[tuple[Any, ...]]:
    small_network = ((3, 2), *[(3, 1)] * 2, (3, 2), *[(3, 1)] * 5, *[(1, 1)] * 2)
    return [(((3, 1), (3, 1)),), (((3, 2), (3, 1)),), (small_network,), (((7, 2), (3, 2), (1, 2), (5, 3), (3, 1)),)]


EXERCISES: dict[str, Exercise] = {
    "01.tag_scores": Exercise(tag_scores, _features),
    "01.merge_scales": Exercise(merge_scales, _scales),
    "01.seen_pixels": Exercise(seen_pixels, _layers, tolerance=0),
}
