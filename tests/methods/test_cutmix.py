from fractions import Fraction
from math import floor, sqrt

import pytest
import torch

from rsepm_edu.labels import VOID
from rsepm_edu.methods.cutmix import cut_mix, random_rectangles
from rsepm_edu.methods.mixing import partners


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_rectangle(draw, size):
    """Pixels of the rectangle from its three numbers."""
    share = 1 - draw[0]
    spans = []
    for side, centre in zip(size, draw[1:], strict=True):
        length = round(side * sqrt(share))
        start = floor(side * centre) - length // 2
        spans.append(range(start, start + length))
    return {(y, x) for y in range(size[0]) for x in range(size[1]) if y in spans[0] and x in spans[1]}


def places(plane):
    return {tuple(place) for place in plane.nonzero().tolist()}


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (11, 14)])
def test_rectangles_are_those_of_the_drawn_numbers(size):
    rectangles = random_rectangles(20, size, generator=generator(1))
    assert rectangles.dtype == torch.bool and rectangles.shape == (20, *size)
    for rectangle, draw in zip(rectangles, torch.rand(20, 3, generator=generator(1)).tolist(), strict=True):
        assert places(rectangle) == naive_rectangle(draw, size)


@pytest.mark.parametrize(
    ("draw", "rows", "columns"),
    [
        ([0.75, 0.5, 0.5], range(2, 6), range(3, 8)),  # a quarter of the area: half of each side
        ([0.75, 0.0, 0.999], range(0, 2), range(7, 10)),  # cut off at the border
        ([0.0, 0.5, 0.5], range(0, 8), range(0, 10)),  # all of it
        ([0.999, 0.5, 0.5], range(0), range(0)),  # nothing
    ],
)
def test_rectangles_by_hand(monkeypatch, draw, rows, columns):
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.tensor([draw]))
    [rectangle] = random_rectangles(1, (8, 10), generator=generator())
    assert places(rectangle) == {(y, x) for y in rows for x in columns}


def test_the_area_before_the_border_cuts_it_is_uniform():
    """λ ~ Beta(1, 1): far from the border, each tenth of the area comes up about as often."""
    areas = []
    draws = torch.rand(3000, 3, generator=generator(2))
    for draw, rectangle in zip(draws, random_rectangles(3000, (64, 64), generator=generator(2)), strict=True):
        half = (1 - float(draw[0])) ** 0.5 / 2
        if all(half < float(centre) < 1 - half for centre in draw[1:]):
            areas.append((float(rectangle.double().mean()), float(draw[0])))
    assert len(areas) > 300
    assert all(abs(area - (1 - drawn)) < 0.04 for area, drawn in areas)
    tenths = torch.histc(draws[:, 0], 10, 0, 1)
    assert float((tenths - 300).abs().max()) < 85  # 5 standard deviations


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_cut_mix_equals_the_naive_loops(probability_case, naive_filter, batch, seed):
    images, tags, maps = probability_case(batch=batch, seed=seed)
    mixed = cut_mix(images, tags, maps, generator=generator(seed))
    source, size = generator(seed), images.shape[2:]
    below = partners(batch, generator=source).tolist()
    draws, masks = torch.rand(batch, 3, generator=source).tolist(), naive_filter(maps)
    assert (masks == VOID).any() and (masks == 0).any()
    for b, other in enumerate(below):
        inside = naive_rectangle(draws[b], size)
        for y in range(size[0]):
            for x in range(size[1]):
                origin = b if (y, x) in inside else other
                assert torch.equal(mixed.images[b, :, y, x], images[origin, :, y, x])
                assert int(mixed.pseudo_masks[b, y, x]) == int(masks[origin, y, x])
        share = Fraction(len(inside), size[0] * size[1])
        for k in range(tags.shape[1]):
            wanted = share * Fraction(float(tags[b, k])) + (1 - share) * Fraction(float(tags[other, k]))
            assert float(mixed.tags[b, k]) == pytest.approx(float(wanted), abs=1e-6)


def test_the_thresholds_are_those_of_the_filter(probability_case, naive_filter):
    images, tags, maps = probability_case(batch=1)
    mixed = cut_mix(images, tags, maps, generator=generator(), certain=0.8, uncertain=0.02)
    assert torch.equal(mixed.pseudo_masks, naive_filter(maps, certain=0.8, uncertain=0.02))
