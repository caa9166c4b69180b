"""The exercises of lesson 01: CAM."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.evaluation.metrics import confusion_matrix
from rsepm_edu.labels import VOID
from rsepm_edu.methods.cam import cam_from_features


def tag_scores(features: Tensor, weight: Tensor) -> Tensor:
    """B×K tag scores of features B×C×h×w for weight K×C: the mean of every map."""
    return cam_from_features(features, weight).mean(dim=(2, 3))


def merge_scales(cams: list[Tensor], mirrored: list[Tensor], size: tuple[int, int]) -> Tensor:
    """B×K×H×W: maps of a picture and of its mirror image at several scales, in place and summed."""
    in_place = cams + [cam.flip(-1) for cam in mirrored]
    maps = [F.interpolate(cam, size, mode="bilinear", align_corners=False) for cam in in_place]
    return torch.stack(maps).sum(dim=0)


def iou_fp_fn(mask: Tensor, truth: Tensor) -> tuple[float, float, float]:
    """IoU, FP and FN of one class: mask bool H×W, truth H×W of 0, 1 and 255 (void, not counted)."""
    counts = confusion_matrix(mask.long(), truth, num_labels=2)
    right, extra, missed = int(counts[1, 1]), int(counts[0, 1]), int(counts[1, 0])
    union = right + extra + missed
    return right / union, extra / union, missed / union


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


def _masks(generator: Generator) -> list[tuple[Any, ...]]:
    def pair(void: bool) -> tuple[Tensor, Tensor]:
        truth = torch.randint(0, 2, (9, 11), generator=generator)
        mask = torch.rand(9, 11, generator=generator) < 0.2 + 0.5 * truth
        if void:
            truth[torch.rand(9, 11, generator=generator) < 0.3] = VOID
        return mask, truth

    return [pair(void=False), pair(void=True)]


EXERCISES: dict[str, Exercise] = {
    "01.tag_scores": Exercise(tag_scores, _features),
    "01.merge_scales": Exercise(merge_scales, _scales),
    "01.iou_fp_fn": Exercise(iou_fp_fn, _masks),
}
