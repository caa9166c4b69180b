import sys
from collections import Counter
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from rsepm_edu.labels import VOID
from rsepm_edu.methods.edgepredictmix import (
    edge_predict,
    edge_predict_and_mix,
    edge_predict_mix,
    edge_regions,
    majority_labels,
)
from rsepm_edu.methods.mixing import label_counts, partners

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_maps(*, batch=2, classes=3, size=(24, 31), seed=0, dtype=torch.float64):
    """Blobs with soft and with hard borders: certain inside, certain outside, an uncertain zone with edges in it."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    logits = np.zeros((batch, classes + 1, *size))
    for b in range(batch):
        for k in range(classes):
            centre, radius = draw.uniform(0.2, 0.8, 2) * size, draw.uniform(0.2, 0.45) * min(size)
            distance = np.hypot(y - centre[0], (x - centre[1]) * draw.uniform(0.7, 1.4))
            hard = (x > centre[1]) * draw.uniform(0, 2.5)  # a straight border through the blob
            logits[b, k + 1] = 4.5 * (1 - distance / radius) - hard - 1 + 0.05 * draw.standard_normal(size)
    maps = torch.from_numpy(logits).softmax(dim=1)
    tags = torch.ones(batch, classes, dtype=torch.float64)
    tags[torch.arange(batch), torch.arange(batch) % classes] = 0
    return maps.to(dtype), tags


def naive_edges(plane, low=10, high=100):
    """OpenCV's own edges of a map of numbers, as a list of rows."""
    picture = np.array([[round(min(1.0, max(0.0, value)) * 255) for value in row] for row in plane], dtype=np.uint8)
    return (cv2.Canny(cv2.GaussianBlur(picture, (5, 5), 0), low, high) > 0).tolist()


def flood(edges):
    """The sets of places that hang together where there is no edge, filled from pixel to pixel."""
    height, width = len(edges), len(edges[0])
    left = {(y, x) for y in range(height) for x in range(width) if not edges[y][x]}
    regions = []
    while left:
        open_places = [min(left)]
        left.remove(open_places[0])
        region = set(open_places)
        while open_places:
            y, x = open_places.pop()
            for place in {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & left:
                left.remove(place)
                region.add(place)
                open_places.append(place)
        regions.append(region)
    return regions


def majority(labels):
    """The most frequent of some labels, of equally many the smallest."""
    counted = Counter(labels)
    return min(label for label, count in counted.items() if count == max(counted.values()))


def naive_certain(scores, certain, uncertain):
    if max(scores) >= certain:
        return 1 + scores.index(max(scores))
    return 0 if max(scores) <= uncertain else VOID


def naive_edge_predict(maps, tags, *, certain=0.55, uncertain=0.10, low=10, high=100):
    batch, _, height, width = maps.shape
    result = torch.full((batch, height, width), VOID)
    for b in range(batch):
        shown = [
            [[float(maps[b, k + 1, y, x]) * bool(tags[b, k]) for k in range(tags.shape[1])] for x in range(width)]
            for y in range(height)
        ]
        labels = [[naive_certain(scores, certain, uncertain) for scores in row] for row in shown]
        edges = naive_edges([[max(scores) for scores in row] for row in shown], low, high)
        for region in flood(edges):
            most = majority(labels[y][x] for y, x in region)
            for y, x in region:
                result[b, y, x] = most if labels[y][x] == VOID else labels[y][x]
        for y in range(height):
            for x in range(width):
                if edges[y][x]:
                    result[b, y, x] = labels[y][x] if labels[y][x] != 0 else VOID
    return result


def random_regions(*, batch=3, size=(7, 9), most=5, seed=0):
    """Numbers from 0 (in no region), each map with another many of them, and labels with ties and much void."""
    source = generator(seed)
    highest = torch.randint(0, most + 1, (batch, 1, 1), generator=source)
    regions = (torch.rand(batch, *size, generator=source) * (highest + 1)).long()
    labels = torch.tensor([0, 1, 2, 20, VOID])[torch.randint(0, 5, (batch, *size), generator=source)]
    return regions, labels


def both(scores):
    """Maps with a background from the scores of one class."""
    return torch.stack([1 - scores, scores], dim=1)


# edge_regions


@pytest.mark.parametrize("levels", [{}, {"low": 5, "high": 30}, {"low": 200, "high": 400}])
@pytest.mark.parametrize("size", [(24, 31), (31, 24), (9, 12), (5, 1), (1, 1)])
def test_regions_are_what_a_flood_fill_finds_between_the_edges_of_opencv(size, levels):
    maps = smooth_maps(size=size)[0].flatten(0, 1)
    regions = edge_regions(maps, **levels)
    assert regions.dtype == torch.int64 and regions.shape == maps.shape
    for plane, numbers in zip(maps.tolist(), regions.tolist(), strict=True):
        edges = naive_edges(plane, **levels)
        found: dict[int, set[tuple[int, int]]] = {}
        for y in range(size[0]):
            for x in range(size[1]):
                assert (numbers[y][x] == 0) == edges[y][x]
                if numbers[y][x]:
                    found.setdefault(numbers[y][x], set()).add((y, x))
        wanted = flood(edges)
        assert sorted(found) == list(range(1, len(wanted) + 1)), "numbered from 1 without a gap"
        assert sorted(map(sorted, found.values())) == sorted(map(sorted, wanted))


def test_the_levels_and_the_map_decide_on_the_edges():
    maps = smooth_maps()[0][:, 1:].flatten(0, 1)
    regions = edge_regions(maps)
    assert (regions == 0).any() and int(regions.max()) >= 2
    assert not torch.equal(regions, edge_regions(maps, low=100, high=400))
    assert (edge_regions(maps, low=5000, high=5000) == 1).all(), "without an edge all is one region"


def test_regions_that_touch_by_a_corner_are_two(monkeypatch):
    drawn = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0]], dtype=np.uint8)
    monkeypatch.setattr(cv2, "Canny", lambda *_: drawn)
    assert edge_regions(torch.zeros(1, 3, 3)).tolist() == [[[1, 1, 0], [1, 0, 2], [0, 2, 2]]]


@pytest.mark.parametrize(("step", "edge"), [(36, False), (44, True)])
def test_a_step_of_many_grey_levels_is_an_edge_and_one_of_few_is_none(step, edge):
    """Smoothed by (1, 4, 6, 4, 1) / 16, a step of g grey levels has a Sobel gradient of 4·g · (6 + 4) / 16 = 2.5·g."""
    maps = torch.zeros(1, 12, 12)
    maps[:, :, 6:] = step / 255
    assert bool((edge_regions(maps) == 0).any()) == edge


def test_values_outside_0_to_1_are_cut_off_and_no_map_is_no_region():
    maps = torch.full((1, 9, 12), -0.2)
    maps[:, :, 6:] = 1.3
    regions = edge_regions(maps)
    assert torch.equal(regions, edge_regions(maps.clamp(0, 1)))
    assert int(regions.max()) == 2 and (regions == 0).any()
    assert edge_regions(maps[:0]).shape == (0, 9, 12)


def test_a_missing_opencv_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(RuntimeError, match="^EdgePredict needs OpenCV for Canny, .*opencv-python-headless$"):
        edge_regions(torch.zeros(1, 4, 4))


# majority_labels


@pytest.mark.parametrize("size", [(7, 9), (1, 5), (1, 1), (3, 4)])
def test_majority_labels_equal_naive_counting(size):
    ties = void = 0
    for seed in range(12):
        regions, labels = random_regions(size=size, seed=seed)
        result = majority_labels(regions, labels)
        assert result.dtype == torch.int64 and result.shape == labels.shape
        for numbers, given, got in zip(regions.tolist(), labels.tolist(), result.tolist(), strict=True):
            groups: dict[int, list[int]] = {}
            for y, row in enumerate(numbers):
                for x, number in enumerate(row):
                    groups.setdefault(number, []).append(given[y][x])
            for y, row in enumerate(numbers):
                for x, number in enumerate(row):
                    assert got[y][x] == (majority(groups[number]) if number else VOID)
            frequent = [Counter(group).most_common(2) for number, group in groups.items() if number]
            ties += sum(len(two) == 2 and two[0][1] == two[1][1] for two in frequent)
            void += sum(majority(group) == VOID for number, group in groups.items() if number)
    assert size == (1, 1) or (ties and void)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ([0, 1, 1, VOID], 1),
        ([VOID, VOID, VOID, 1, 1], VOID),  # void counts like any other
        ([2, 1, 1, 2], 1),  # of equally many the smallest: a class before another,
        ([1, 0, 0, 1], 0),  # background before a class
        ([VOID, 20, 20, VOID], 20),  # and void last
    ],
)
def test_majorities_by_hand(labels, wanted):
    row = torch.tensor([[labels]])
    assert majority_labels(torch.ones_like(row), row).tolist() == [[[wanted] * len(labels)]]


def test_a_region_of_one_map_is_not_that_of_another_and_edges_are_in_none():
    regions = torch.tensor([[[1, 1, 0, 2]], [[0, 1, 1, 1]]])
    labels = torch.tensor([[[3, 3, 3, 0]], [[3, 5, 5, 3]]])
    assert majority_labels(regions, labels).tolist() == [[[3, 3, VOID, 0]], [[VOID, 5, 5, 5]]]


# edge_predict


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "settings",
    [{}, {"certain": 0.8, "uncertain": 0.02}, {"low": 5, "high": 30}, {"certain": 0.3, "low": 150, "high": 300}],
)
def test_edge_predict_equals_the_naive_loops(seed, settings):
    maps, tags = smooth_maps(seed=seed)
    mask = edge_predict(maps, tags, **settings)
    assert mask.dtype == torch.int64
    assert torch.equal(mask, naive_edge_predict(maps, tags, **settings))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 5)])
@pytest.mark.parametrize("classes", [1, 4])
def test_odd_sizes_equal_the_naive_loops(size, classes):
    maps, tags = smooth_maps(size=size, classes=classes, batch=3)
    assert torch.equal(edge_predict(maps, tags), naive_edge_predict(maps, tags))


def test_the_cases_hold_all_that_edge_predict_decides():
    filled = emptied = left = kept = absent = 0
    for seed in range(4):
        maps, tags = smooth_maps(seed=seed)
        shown = maps[:, 1:] * tags[:, :, None, None]
        best, number = shown.max(dim=1)
        edge, mask = edge_regions(best) == 0, edge_predict(maps, tags)
        assert set(mask.unique().tolist()) == {0, 1, 2, 3, VOID}
        between = (best > 0.10) & (best < 0.55)
        filled += int(((mask > 0) & (mask != VOID) & between).sum())
        left += int(((mask == VOID) & between & ~edge).sum())
        emptied += int(((mask == VOID) & edge & (best <= 0.10)).sum())
        kept += int(((mask == number + 1) & edge & (best >= 0.55)).sum())
        absent += int(((maps[:, 1:] - shown).amax(dim=1) > 0.55).sum())
    assert min(filled, left, emptied, kept, absent) > 0, (filled, left, emptied, kept, absent)


def test_the_uncertain_part_goes_to_the_majority_of_its_side_of_the_edge():
    scores = torch.tensor([0.56] * 4 + [0.5] * 3 + [0.15] * 2 + [0.05] * 10, dtype=torch.float64).expand(1, 12, 19)
    assert (edge_regions(scores)[0, 6] == 0).nonzero().flatten().tolist() == [7], "where 0.5 falls to 0.15"
    mask = edge_predict(both(scores), torch.ones(1, 1))
    assert mask[0, 6].tolist() == [1] * 7 + [VOID] + [0] * 11
    # Without edges all is one region, in which background has the majority; what is certain stays.
    mask = edge_predict(both(scores), torch.ones(1, 1), low=5000, high=5000)
    assert mask[0, 6].tolist() == [1] * 4 + [0] * 15


def test_a_region_that_is_mostly_uncertain_stays_void():
    scores = torch.tensor([0.6] * 3 + [0.5] * 5 + [0.58] * 1, dtype=torch.float64).expand(1, 8, 9)
    mask = edge_predict(both(scores), torch.ones(1, 1))
    assert mask[0, 4].tolist() == [1] * 3 + [VOID] * 5 + [1]


def test_on_an_edge_background_becomes_void_and_a_certain_class_stays(monkeypatch):
    edges = torch.tensor([[[1, 0, 0, 0, 2]]])
    monkeypatch.setattr("rsepm_edu.methods.edgepredictmix.edge_regions", lambda *_, **__: edges)
    scores = torch.tensor([[[0.9, 0.9, 0.3, 0.0, 0.0]]])
    assert edge_predict(both(scores), torch.ones(1, 1)).tolist() == [[[1, 1, VOID, VOID, 0]]]


def test_canny_sees_the_largest_score_of_present_classes_alone(monkeypatch):
    seen = []
    real = edge_regions

    def spy(maps, **levels):
        seen.append((maps, levels))
        return real(maps, **levels)

    monkeypatch.setattr("rsepm_edu.methods.edgepredictmix.edge_regions", spy)
    maps, tags = smooth_maps()
    edge_predict(maps, tags)
    [(planes, levels)] = seen
    assert levels == {"low": 10, "high": 100}
    for b in range(2):
        present = [k + 1 for k in range(3) if tags[b, k]]
        assert torch.equal(planes[b], maps[b, present].amax(dim=0))


def test_exact_thresholds_are_certain():
    scores = torch.tensor([0.55, 0.10], dtype=torch.float64).reshape(1, 1, 2)
    assert edge_predict(both(scores), torch.ones(1, 1), low=5000, high=5000).tolist() == [[[1, 0]]]


def test_absent_classes_never_appear_and_no_tags_mean_background():
    maps, tags = smooth_maps(batch=3)
    mask = edge_predict(maps, tags)
    for b in range(3):
        assert b + 1 not in mask[b]
    assert not edge_predict(maps, torch.zeros_like(tags)).any()
    alone = edge_predict(maps, torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 1]]))
    assert set(alone[0].unique().tolist()) <= {0, 1, VOID} and not alone[1].any()


def test_a_batch_is_its_pictures_one_by_one():
    maps, tags = smooth_maps(batch=3)
    singles = [edge_predict(maps[b : b + 1], tags[b : b + 1]) for b in range(3)]
    assert torch.equal(edge_predict(maps, tags), torch.cat(singles))


def test_edge_predict_follows_the_order_of_the_classes():
    maps, tags = smooth_maps()
    order = [2, 0, 1]
    renamed = torch.arange(256)
    renamed[1:4] = torch.tensor([order.index(k) + 1 for k in range(3)])
    shuffled = edge_predict(maps[:, [0, *(k + 1 for k in order)]], tags[:, order])
    assert torch.equal(shuffled, renamed[edge_predict(maps, tags)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_float_type_gives_nearly_the_same_mask(dtype):
    maps, tags = smooth_maps(dtype=dtype)
    mask = edge_predict(maps, tags.bool())
    assert mask.dtype == torch.int64
    wanted = naive_edge_predict(smooth_maps()[0], tags)
    share = float((mask == wanted).double().mean())
    assert share == 1 if dtype in (torch.float64, torch.float32) else share > 0.97


def test_edge_predict_carries_no_gradient_and_leaves_its_inputs_alone():
    maps, tags = smooth_maps()
    copies = maps.clone(), tags.clone()
    assert not edge_predict(maps.requires_grad_(), tags).requires_grad
    assert torch.equal(maps, copies[0]) and torch.equal(tags, copies[1])


def test_edge_predict_refuses_what_it_cannot_use():
    maps, tags = smooth_maps()
    with pytest.raises(ValueError, match=r"^maps: expected BxCxhxw, got shape \(4, 24, 31\)$"):
        edge_predict(maps[0], tags)
    with pytest.raises(TypeError, match="^maps: expected a floating dtype, got torch.int64$"):
        edge_predict(maps.long(), tags)
    # K + 1 maps for K tags: maps without a background are one too few
    with pytest.raises(ValueError, match=r"^tags: expected BxK = \(2, 2\), got shape \(2, 3\)$"):
        edge_predict(maps[:, 1:], tags)
    for certain, uncertain in [(0.1, 0.1), (1.5, 0.1), (0.5, -0.1)]:
        message = f"^expected 0 <= uncertain < certain <= 1, got uncertain={uncertain}, certain={certain}$"
        with pytest.raises(ValueError, match=message):
            edge_predict(maps, tags, certain=certain, uncertain=uncertain)


# edge_predict_mix


def mixing_case(*, batch=5, classes=6, size=(9, 11), seed=0, dtype=torch.float64):
    """Blocky masks with void; some tagged classes without a pixel."""
    source = generator(seed)
    tags = (torch.rand(batch, classes, generator=source) < 0.6).double()
    coarse = torch.rand(batch, classes + 1, 4, 4, generator=source)
    coarse[:, 1:] *= 0.2 + tags[:, :, None, None]
    masks = torch.nn.functional.interpolate(coarse, size=size, mode="nearest").argmax(dim=1)
    masks[(masks > 0) & (tags.gather(1, (masks.flatten(1) - 1).clamp(min=0)).view_as(masks) == 0)] = 0
    masks[torch.rand(masks.shape, generator=source) < 0.2] = VOID
    images = torch.rand(batch, 3, *size, generator=source, dtype=torch.float64)
    return images.to(dtype), tags, masks


def naive_mix(images, tags, masks, *, seed, min_visible="0.1"):
    """Pixel by pixel, with the partners that the same generator gives."""
    batch, classes = tags.shape
    height, width = masks.shape[1:]
    below = partners(batch, generator=generator(seed)).tolist()
    mixed_images, mixed_masks, mixed_tags = images.clone(), masks.clone(), torch.zeros_like(tags)
    source = torch.zeros_like(masks)
    for b, other in enumerate(below):
        for y in range(masks.shape[1]):
            for x in range(masks.shape[2]):
                origin = b if int(masks[b, y, x]) not in (0, VOID) else other
                source[b, y, x] = (origin * height + y) * width + x
                mixed_masks[b, y, x] = masks[origin, y, x]
                mixed_images[b, :, y, x] = images[origin, :, y, x]
        for k in range(classes):
            if (masks[b] == k + 1).any():
                mixed_tags[b, k] = 1
            elif tags[other, k]:
                before = int((masks[other] == k + 1).sum())
                # Of the class's pixels below, how many are still there; those pasted on top do not count.
                after = sum(
                    int(masks[other, y, x]) == k + 1 and int(masks[b, y, x]) in (0, VOID)
                    for y in range(height)
                    for x in range(width)
                )
                mixed_tags[b, k] = float(before == 0 or Fraction(after, before) >= Fraction(min_visible))
    return mixed_images, mixed_tags, mixed_masks, source


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_mixing_equals_the_naive_loops(seed, batch):
    case = mixing_case(batch=batch, seed=seed)
    mixed = edge_predict_mix(*case, generator=generator(seed))
    for result, wanted in zip(mixed, naive_mix(*case, seed=seed), strict=True):
        assert torch.equal(result, wanted) and result.dtype == wanted.dtype


@pytest.mark.parametrize("min_visible", ["0.01", "0.5", "0.75", "1"])
def test_the_share_that_must_be_visible_equals_the_naive_loops(min_visible):
    hidden = 0
    for seed in range(4):
        case = mixing_case(seed=seed)
        mixed = edge_predict_mix(*case, generator=generator(seed), min_visible=float(min_visible))
        wanted = naive_mix(*case, seed=seed, min_visible=min_visible)[1]
        assert torch.equal(mixed.tags, wanted)
        hidden += int((naive_mix(*case, seed=seed, min_visible="0.000001")[1] != wanted).sum())
    assert hidden > 0 or min_visible == "0.01"


def two_pictures(covered):
    """Picture 0 shows class 1 on its first `covered` pixels; picture 1 shows class 2 on 30 of its 40 pixels."""
    masks = torch.zeros(2, 1, 40, dtype=torch.int64)
    masks[0, 0, :covered] = 1
    masks[1, 0, :30] = 2
    images = torch.stack([torch.full((3, 1, 40), 0.25), torch.full((3, 1, 40), 0.75)])
    return images, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), masks


@pytest.mark.parametrize(("covered", "visible"), [(26, 1.0), (27, 1.0), (28, 0.0), (30, 0.0), (40, 0.0)])
def test_a_class_below_keeps_its_tag_while_a_tenth_of_it_is_visible(covered, visible):
    mixed = edge_predict_mix(*two_pictures(covered), generator=generator())
    assert mixed.tags[0].tolist() == [1.0, visible]
    assert (mixed.images[0, 0, 0] == 0.25).sum() == covered
    assert mixed.pseudo_masks[0, 0].tolist() == [1] * covered + [2] * (30 - covered) + [0] * min(10, 40 - covered)


def test_a_class_that_is_pasted_and_covered_keeps_its_tag():
    images, _, masks = two_pictures(40)
    masks[1] = 1
    mixed = edge_predict_mix(images, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), masks, generator=generator())
    assert mixed.tags.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_a_tag_without_a_labelled_pixel_is_kept():
    images, tags, masks = two_pictures(40)
    masks[1] = VOID
    mixed = edge_predict_mix(images, tags, masks, generator=generator())
    assert mixed.tags[0].tolist() == [1.0, 1.0]


def test_every_class_that_is_shown_is_pasted():
    masks = torch.zeros(2, 1, 8, dtype=torch.int64)
    masks[0, 0] = torch.tensor([0, 1, 2, 3, 3, VOID, 0, 1])
    images = torch.stack([torch.full((3, 1, 8), 0.25), torch.full((3, 1, 8), 0.75)])
    tags = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 1]])
    for seed in range(5):
        mixed = edge_predict_mix(images, tags, masks, generator=generator(seed))
        assert mixed.pseudo_masks[0, 0].tolist() == [0, 1, 2, 3, 3, 0, 0, 1]
        assert (mixed.images[0, 0, 0] == 0.25).tolist() == [False, *[True] * 4, False, False, True]
        assert mixed.tags[0].tolist() == [1.0, 1.0, 1.0, 1.0]  # the fourth is that of the picture below


def test_void_is_not_pasted_and_void_below_stays_void():
    images, tags, masks = two_pictures(20)
    masks[0, 0, 10:25] = VOID
    masks[1, 0, 5:15] = VOID
    mixed = edge_predict_mix(images, tags, masks, generator=generator())
    assert mixed.pseudo_masks[0, 0].tolist() == [1] * 10 + [VOID] * 5 + [2] * 15 + [0] * 10
    assert (mixed.images[0, 0, 0, :10] == 0.25).all() and (mixed.images[0, 0, 0, 10:] == 0.75).all()


def test_a_picture_without_a_labelled_class_becomes_its_partner():
    images, tags, masks = two_pictures(0)
    mixed = edge_predict_mix(images, tags, masks, generator=generator())
    assert torch.equal(mixed.images[0], images[1]) and torch.equal(mixed.pseudo_masks[0], masks[1])
    assert torch.equal(mixed.tags[0], tags[1])


def test_every_label_of_a_mixed_mask_has_its_tag_unless_hardly_visible():
    for seed in range(6):
        images, tags, masks = mixing_case(seed=seed)
        mixed = edge_predict_mix(images, tags, masks, generator=generator(seed), min_visible=1e-9)
        shown = label_counts(mixed.pseudo_masks)[:, 1:7] > 0
        assert not (shown & (mixed.tags == 0)).any()


def test_the_generator_alone_decides_and_inputs_are_left_alone():
    case = mixing_case()
    copies = [tensor.clone() for tensor in case]
    first = edge_predict_mix(*case, generator=generator(3))
    torch.manual_seed(123)
    again = edge_predict_mix(*case, generator=generator(3))
    other = edge_predict_mix(*case, generator=generator(4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.images, other.images)
    assert all(torch.equal(a, b) for a, b in zip(case, copies, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_images_and_tags_keep_their_types(dtype):
    images, tags, masks = mixing_case(dtype=dtype)
    wanted = edge_predict_mix(images.double(), tags, masks, generator=generator())
    mixed = edge_predict_mix(images, tags.to(dtype), masks, generator=generator())
    assert [part.dtype for part in mixed] == [dtype, dtype, torch.int64, torch.int64]
    for result, other in zip(mixed, wanted, strict=True):
        assert torch.equal(result.double(), other.double())


def test_mixing_refuses_what_does_not_go_together():
    images, tags, masks = mixing_case()
    with pytest.raises(ValueError, match=r"^images: expected BxCxhxw, got shape \(3, 9, 11\)$"):
        edge_predict_mix(images[0], tags, masks, generator=generator())
    with pytest.raises(ValueError, match=r"^pseudo_masks: expected .*\(5, 3, 9, 11\), got \(5, 9, 10\)$"):
        edge_predict_mix(images, tags, masks[..., 1:], generator=generator())
    for wrong in (tags[:4], tags[0]):
        with pytest.raises(ValueError, match=r"^tags: expected BxK, B = 5, got shape "):
            edge_predict_mix(images, wrong, masks, generator=generator())


# edge_predict_and_mix


def test_by_the_common_interface_the_masks_of_edge_predict_are_mixed():
    maps, tags = smooth_maps(batch=4)
    images = torch.rand(4, 3, *maps.shape[2:], generator=generator())
    settings = {"certain": 0.7, "uncertain": 0.05}
    mixed = edge_predict_and_mix(images, tags, maps, generator=generator(2), **settings)
    wanted = naive_mix(images, tags, naive_edge_predict(maps, tags, **settings), seed=2)
    for result, other in zip(mixed, wanted, strict=True):
        assert torch.equal(result, other)
    assert not torch.equal(mixed.pseudo_masks, edge_predict_and_mix(images, tags, maps, generator=generator(2))[2])


@pytest.mark.gpu
def test_the_gpu_gives_the_same():
    maps, tags = smooth_maps()
    mask = edge_predict(maps.cuda(), tags.cuda())
    assert mask.is_cuda and torch.equal(mask.cpu(), edge_predict(maps, tags))
    case = mixing_case()
    mixed = edge_predict_mix(*(tensor.cuda() for tensor in case), generator=generator())
    for a, b in zip(mixed, edge_predict_mix(*case, generator=generator()), strict=True):
        assert a.is_cuda and torch.equal(a.cpu(), b)
