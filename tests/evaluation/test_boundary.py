import math

import cv2
import numpy as np
import pytest
import torch

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.boundary import boundary_bands, boundary_counts, boundary_distance, boundary_iou
from rsepm_edu.labels import VOID


def blobs(shape, num_labels, *, seed, cell=5, void=0.0):
    """Labels in patches, so that there are insides and outlines, and some void."""
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = shape
    coarse = torch.randint(0, num_labels, (batch, -(-height // cell), -(-width // cell)), generator=generator)
    labels = coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width].clone()
    labels[torch.rand(shape, generator=generator) < void] = VOID
    return labels


def naive_counts(prediction, target, num_labels, distance):
    """|G_d|, |P_d|, |G_d ∩ P_d| pixel by pixel: in the band is a pixel whose square is not all of its mask."""
    table = [[0, 0, 0] for _ in range(num_labels)]
    for found, true in zip(prediction.tolist(), target.tolist(), strict=True):
        height, width = len(found), len(found[0])
        for label in range(num_labels):
            masks = []
            for own in (true, found):
                mask = set()
                for y in range(height):
                    for x in range(width):
                        labelled = found[y][x] if true[y][x] == VOID else own[y][x]
                        if labelled == label:
                            mask.add((y, x))
                masks.append(mask)
            bands = []
            for mask in masks:
                band = set()
                for y, x in mask:
                    if true[y][x] == VOID:
                        continue
                    reach = range(-distance, distance + 1)
                    if any((y + dy, x + dx) not in mask for dy in reach for dx in reach):
                        band.add((y, x))
                bands.append(band)
            table[label][0] += len(bands[0])
            table[label][1] += len(bands[1])
            table[label][2] += len(bands[0] & bands[1])
    return table


@pytest.mark.parametrize("ratio", [0.02, 0.08, 0.15])
@pytest.mark.parametrize("void", [0.0, 0.1])
def test_counts_equal_the_definition_pixel_by_pixel(ratio, void):
    target = blobs((2, 19, 26), 4, seed=1, void=void)
    prediction = blobs((2, 19, 26), 4, seed=2, cell=7)
    distance = max(1, round(ratio * math.sqrt(19**2 + 26**2)))
    counts = boundary_counts(prediction, target.to(torch.uint8), 4, ratio=ratio)
    assert counts.dtype == torch.int64
    assert counts.tolist() == naive_counts(prediction, target, 4, distance)
    assert (counts > 0).all()


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_bands_are_those_of_the_authors_erosion(distance):
    """Their code erodes each mask, framed by one row of zeros, d times by 3×3, here with OpenCV."""
    labels = blobs((1, 40, 33), 3, seed=3, cell=11)
    wanted = torch.zeros(1, 40, 33, dtype=torch.bool)
    for label in range(3):
        mask = (labels[0] == label).numpy().astype(np.uint8)
        framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        inside = cv2.erode(framed, np.ones((3, 3), dtype=np.uint8), iterations=distance)[1:-1, 1:-1]
        wanted[0] |= torch.from_numpy((mask - inside) > 0)
    assert torch.equal(boundary_bands(labels, distance), wanted)
    assert 0 < int(wanted.sum()) < wanted.numel()


def test_what_agrees_outside_void_is_perfect_whatever_it_does_under_it():
    target = blobs((1, 30, 30), 3, seed=4, cell=10, void=0.2)
    prediction = torch.where(target == VOID, blobs((1, 30, 30), 3, seed=5), target)
    iou = boundary_iou(boundary_counts(prediction, target, 3, ratio=0.05), ["a", "b", "c"])
    assert iou == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_a_ring_of_void_is_no_outline_of_a_prediction_that_has_none_there():
    target = torch.zeros(1, 60, 60, dtype=torch.int64)
    target[:, 20:40, 20:40] = VOID
    target[:, 22:38, 22:38] = 1
    everywhere = torch.ones_like(target)
    true, predicted, both = boundary_counts(everywhere, target, 2, ratio=0.02)[1].tolist()
    assert (
        both == 0 and predicted == 60 * 60 - 56 * 56 and true == 0
    )  # under void the truth goes on, and is cut by none


def test_an_inner_hole_hurts_more_than_in_iou():
    target = torch.zeros(1, 100, 100, dtype=torch.int64)
    target[:, 10:90, 10:90] = 1
    prediction = target.clone()
    prediction[:, 10:90, 10:14] = 0  # a strip off the side
    iou = 76 / 80
    found = boundary_iou(boundary_counts(prediction, target, 2), ["background", "a"])["a"]
    assert found is not None and found < iou - 0.3


def test_the_distance_is_a_share_of_the_diagonal():
    assert boundary_distance((375, 500)) == 12 and boundary_distance((300, 400), 0.1) == 50
    assert boundary_distance((5, 5)) == 1
    for ratio in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="^ratio: expected a share of the diagonal above 0 and at most 1, got"):
            boundary_distance((10, 10), ratio)


def test_sets_are_counted_together_and_divided_once():
    first = boundary_counts(blobs((1, 12, 12), 3, seed=6), blobs((1, 12, 12), 3, seed=7), 3)
    second = boundary_counts(blobs((1, 12, 12), 3, seed=8), blobs((1, 12, 12), 3, seed=9), 3)
    iou = boundary_iou(first + second, ["a", "b", "c"])
    for label, name in enumerate("abc"):
        true, predicted, both = (int(first[label, k] + second[label, k]) for k in range(3))
        assert iou[name] == both / (true + predicted - both)
    empty = boundary_counts(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.zeros(1, 4, 4, dtype=torch.uint8), 2)
    assert boundary_iou(empty, ["a", "b"]) == {"a": 1.0, "b": None}


def test_wrong_labels_and_shapes():
    good = torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="expected prediction and target BxHxW, got"):
        boundary_counts(good[0], good[0], 2)
    with pytest.raises(ValueError, match=r"prediction: expected labels 0 ... 1, got 5 ... 5"):
        boundary_counts(good + 5, good, 2)
    with pytest.raises(ValueError, match=r"target: expected labels 0 ... 1, got 3 ... 3"):
        boundary_counts(good, good + 3, 2)
    with pytest.raises(TypeError, match="target: expected integer labels"):
        boundary_counts(good, good.float(), 2)
    with pytest.raises(ValueError, match="counts: expected 3x3 for 3 labels"):
        boundary_iou(torch.zeros(2, 3), ["a", "b", "c"])
