import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from rsepm_edu.labels import VOID
from rsepm_edu.methods.edgepredictmix import canny_edges, edge_predict, edge_predict_mix, meet
from rsepm_edu.methods.mixing import choose_half, label_counts, partners

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_probabilities(*, batch=2, classes=3, size=(24, 31), seed=0, dtype=torch.float64):
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
    probabilities = torch.from_numpy(logits).softmax(dim=1)
    tags = torch.ones(batch, classes, dtype=torch.float64)
    tags[torch.arange(batch), torch.arange(batch) % classes] = 0
    return probabilities.to(dtype), tags


def neighbours(place, size):
    y, x = place
    for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
        if 0 <= v < size[0] and 0 <= u < size[1]:
            yield v, u


def naive_meet(inside, outside, free, steps):
    """Two fronts as sets of pixels that go from frontier to frontier; returns the two regions as sets."""

    def places(plane):
        return {(int(y), int(x)) for y, x in plane.nonzero().tolist()}

    size = tuple(free.shape)
    regions = [places(inside), places(outside)]
    frontiers = [set(region) for region in regions]
    open_pixels = places(free)
    for _ in range(steps):
        reached = [
            {place for origin in frontier for place in neighbours(origin, size)} & open_pixels for frontier in frontiers
        ]
        tie = reached[0] & reached[1]
        frontiers = [reached[0] - tie, reached[1] - tie]
        for region, frontier in zip(regions, frontiers, strict=True):
            region |= frontier
        open_pixels -= reached[0] | reached[1]
    return regions


def naive_edge_predict(probabilities, tags, *, certain=0.55, uncertain=0.10, low=20, high=60, steps=32):
    batch, labels, height, width = probabilities.shape
    result = torch.zeros(batch, height, width, dtype=torch.int64)
    for b in range(batch):
        regions = {}
        for k in range(labels - 1):
            if float(tags[b, k]) == 0:
                continue
            plane = probabilities[b, k + 1]
            edges = cv2.Canny(np.rint(plane.numpy() * 255).astype(np.uint8), low, high) > 0
            inside, outside = plane >= certain, plane <= uncertain
            free = ~inside & ~outside & ~torch.from_numpy(edges)
            regions[k] = naive_meet(inside, outside, free, steps)
        for y in range(height):
            for x in range(width):
                claims = [(float(probabilities[b, k + 1, y, x]), k) for k, r in regions.items() if (y, x) in r[0]]
                if claims:
                    result[b, y, x] = max(claims)[1] + 1
                elif all((y, x) in r[1] for r in regions.values()):
                    result[b, y, x] = 0
                else:
                    result[b, y, x] = VOID
    return result


def rows(*lines):
    """A plane from a drawing: '#' is true."""
    return torch.tensor([[[mark == "#" for mark in line] for line in lines]])


# meet


def test_fronts_meet_in_the_middle_and_a_tie_belongs_to_nobody():
    inside, outside, free = rows("#......"), rows("......#"), rows(".#####.")
    result = meet(inside, outside, free, steps=32)
    assert torch.equal(result[0], rows("###....")) and torch.equal(result[1], rows("....###"))
    inside, outside, free = rows("#....."), rows(".....#"), rows(".####.")
    result = meet(inside, outside, free, steps=32)
    assert torch.equal(result[0], rows("###...")) and torch.equal(result[1], rows("...###"))


def test_no_front_walks_through_a_tie():
    inside, outside, free = rows("#..", "...", "..."), rows("..#", "...", "..."), rows(".#.", ".#.", "###")
    result = meet(inside, outside, free, steps=32)
    # Both reach the head of the corridor at once; nobody goes on from there.
    assert torch.equal(result[0], inside) and torch.equal(result[1], outside)


def test_fronts_stop_at_edges_and_do_not_slip_through_diagonals():
    inside = rows("#....", ".....", ".....", ".....", ".....")
    free = rows(".###.", "###.#", "##.##", "#.###", ".####")  # the other diagonal is an edge
    result, _ = meet(inside, torch.zeros_like(inside), free, steps=32)
    assert torch.equal(result, rows("####.", "###..", "##...", "#....", "....."))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_fronts_walk_at_most_so_many_steps(steps):
    inside, free = rows("#......"), rows(".######")
    result, _ = meet(inside, torch.zeros_like(inside), free, steps=steps)
    assert int(result.sum()) == 1 + steps


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (11, 14)])
def test_meet_equals_the_naive_walk(size):
    kinds = torch.multinomial(
        torch.tensor([0.05, 0.05, 0.65, 0.25]), 8 * size[0] * size[1], True, generator=generator()
    )
    kinds = kinds.reshape(8, *size)
    planes = [kinds == kind for kind in range(3)]
    copies = [plane.clone() for plane in planes]
    for steps in (1, 4, 32):
        results = meet(*planes, steps=steps)
        for n in range(8):
            wanted = naive_meet(*(plane[n] for plane in planes), steps)
            for result, region in zip(results, wanted, strict=True):
                assert {tuple(place) for place in result[n].nonzero().tolist()} == region
    assert all(torch.equal(a, b) for a, b in zip(planes, copies, strict=True))


# canny_edges


@pytest.mark.parametrize("size", [(24, 31), (5, 1), (1, 1)])
def test_edges_are_those_of_opencv_on_the_8_bit_map(size):
    maps = smooth_probabilities(size=size)[0].flatten(0, 1)
    edges = canny_edges(maps, low=20, high=60)
    assert edges.dtype == torch.bool and edges.shape == maps.shape
    for plane, result in zip(maps.numpy(), edges.numpy(), strict=True):
        assert np.array_equal(result, cv2.Canny(np.rint(plane * 255).astype(np.uint8), 20, 60) > 0)
    if size == (24, 31):
        assert edges.any() and not torch.equal(edges, canny_edges(maps, low=100, high=200))


def test_values_outside_0_to_1_are_cut_off_and_no_map_is_no_edge():
    maps = torch.full((1, 9, 12), -0.2)
    maps[:, :, 6:] = 1.3
    assert torch.equal(canny_edges(maps), canny_edges(maps.clamp(0, 1)))
    assert canny_edges(maps).any()
    assert canny_edges(maps[:0]).shape == (0, 9, 12)


def test_a_missing_opencv_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(RuntimeError, match="^EdgePredict needs OpenCV for Canny, .*opencv-python-headless$"):
        canny_edges(torch.zeros(1, 4, 4))


# edge_predict


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settings", [{}, {"steps": 1}, {"certain": 0.8, "uncertain": 0.02, "low": 5, "high": 30}])
def test_edge_predict_equals_the_naive_walk(seed, settings):
    probabilities, tags = smooth_probabilities(seed=seed)
    mask = edge_predict(probabilities, tags, **settings)
    assert mask.dtype == torch.int64
    assert torch.equal(mask, naive_edge_predict(probabilities, tags, **settings))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 5)])
@pytest.mark.parametrize("classes", [1, 4])
def test_odd_sizes_equal_the_naive_walk(size, classes):
    probabilities, tags = smooth_probabilities(size=size, classes=classes, batch=3)
    assert torch.equal(edge_predict(probabilities, tags), naive_edge_predict(probabilities, tags))


def test_the_cases_hold_edges_in_the_uncertain_zone_that_decide():
    changed = void = 0
    for seed in range(4):
        probabilities, tags = smooth_probabilities(seed=seed)
        scores = probabilities[:, 1:]
        between = (scores > 0.10) & (scores < 0.55) & (tags[:, :, None, None] > 0)
        edges = canny_edges(scores.flatten(0, 1)).view_as(scores)
        assert (edges & between).any()
        mask = edge_predict(probabilities, tags)
        assert set(mask.unique().tolist()) == {0, 1, 2, 3, VOID}
        changed += int((mask != edge_predict(probabilities, tags, low=5000, high=5000)).sum())
        void += int((mask == VOID).sum())
    assert changed > 20 and void > 20


def test_a_step_in_the_uncertain_zone_is_where_the_object_ends():
    profile = torch.cat([torch.full((4,), 0.9), torch.full((5,), 0.5), torch.linspace(0.15, 0.09, 10)])
    scores = profile.expand(1, 1, 12, 19)
    probabilities = torch.cat([1 - scores, scores], dim=1)
    edges = canny_edges(scores[0])[0, 6].tolist()
    assert [x for x in range(4, 18) if edges[x]] == [9], "one edge in the uncertain zone, where 0.5 falls to 0.15"
    mask = edge_predict(probabilities, torch.ones(1, 1))
    assert mask[0, 6].tolist() == [1] * 9 + [VOID] + [0] * 9
    # Without edges the fronts meet half-way between the two certain parts, here in one pixel.
    mask = edge_predict(probabilities, torch.ones(1, 1), low=5000, high=5000)
    assert mask[0, 6].tolist() == [1] * 10 + [VOID] + [0] * 8


def test_exact_thresholds_are_certain():
    scores = torch.tensor([0.55, 0.10], dtype=torch.float64).reshape(1, 1, 1, 2)
    mask = edge_predict(torch.cat([1 - scores, scores], dim=1), torch.ones(1, 1), steps=0)
    assert mask.tolist() == [[[1, 0]]]


def test_the_most_probable_claim_wins_and_a_rejection_must_be_unanimous():
    scores = torch.tensor([[0.6, 0.3, 0.05], [0.7, 0.05, 0.05]]).reshape(1, 2, 1, 3)
    mask = edge_predict(torch.cat([torch.zeros(1, 1, 1, 3), scores], dim=1), torch.ones(1, 2), steps=0)
    assert mask.tolist() == [[[2, VOID, 0]]]


def test_absent_classes_never_appear_and_no_tags_mean_background():
    probabilities, tags = smooth_probabilities(batch=3)
    mask = edge_predict(probabilities, tags)
    for b in range(3):
        assert b + 1 not in mask[b]
    assert not edge_predict(probabilities, torch.zeros_like(tags)).any()
    alone = edge_predict(probabilities, torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 1]]))
    assert set(alone[0].unique().tolist()) <= {0, 1, VOID} and not alone[1].any()


def test_a_batch_is_its_pictures_one_by_one():
    probabilities, tags = smooth_probabilities(batch=3)
    singles = [edge_predict(probabilities[b : b + 1], tags[b : b + 1]) for b in range(3)]
    assert torch.equal(edge_predict(probabilities, tags), torch.cat(singles))


def test_edge_predict_follows_the_order_of_the_classes():
    probabilities, tags = smooth_probabilities()
    order = [2, 0, 1]
    renamed = torch.arange(256)
    renamed[1:4] = torch.tensor([order.index(k) + 1 for k in range(3)])
    shuffled = edge_predict(probabilities[:, [0, *(k + 1 for k in order)]], tags[:, order])
    assert torch.equal(shuffled, renamed[edge_predict(probabilities, tags)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_float_type_gives_nearly_the_same_mask(dtype):
    probabilities, tags = smooth_probabilities(dtype=dtype)
    mask = edge_predict(probabilities, tags.bool())
    assert mask.dtype == torch.int64
    wanted = naive_edge_predict(smooth_probabilities()[0], tags)
    share = float((mask == wanted).double().mean())
    assert share == 1 if dtype in (torch.float64, torch.float32) else share > 0.97


def test_edge_predict_carries_no_gradient_and_leaves_its_inputs_alone():
    probabilities, tags = smooth_probabilities()
    copies = probabilities.clone(), tags.clone()
    assert not edge_predict(probabilities.requires_grad_(), tags).requires_grad
    assert torch.equal(probabilities, copies[0]) and torch.equal(tags, copies[1])


def test_edge_predict_refuses_what_it_cannot_use():
    probabilities, tags = smooth_probabilities()
    with pytest.raises(ValueError, match=r"^probabilities: expected BxCxhxw, got shape \(4, 24, 31\)$"):
        edge_predict(probabilities[0], tags)
    with pytest.raises(TypeError, match="^probabilities: expected a floating dtype, got torch.int64$"):
        edge_predict(probabilities.long(), tags)
    # K + 1 maps for K tags: maps without a background are one too few
    with pytest.raises(ValueError, match=r"^tags: expected BxK = \(2, 2\), got shape \(2, 3\)$"):
        edge_predict(probabilities[:, 1:], tags)
    for certain, uncertain in [(0.1, 0.1), (1.5, 0.1), (0.5, -0.1)]:
        message = f"^expected 0 <= uncertain < certain <= 1, got uncertain={uncertain}, certain={certain}$"
        with pytest.raises(ValueError, match=message):
            edge_predict(probabilities, tags, certain=certain, uncertain=uncertain)


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
    """Pixel by pixel, with the partners and the choice that the same generator gives."""
    source = generator(seed)
    batch, classes = tags.shape
    below = partners(batch, generator=source).tolist()
    shown = torch.tensor([[(masks[b] == k + 1).any() for k in range(classes)] for b in range(batch)])
    chosen = choose_half(shown, generator=source).tolist()
    mixed_images, mixed_masks, mixed_tags = images.clone(), masks.clone(), torch.zeros_like(tags)
    for b, other in enumerate(below):
        for y in range(masks.shape[1]):
            for x in range(masks.shape[2]):
                label = int(masks[b, y, x])
                pasted = label not in (0, VOID) and chosen[b][label - 1]
                origin = b if pasted else other
                mixed_masks[b, y, x] = masks[origin, y, x]
                mixed_images[b, :, y, x] = images[origin, :, y, x]
        for k in range(classes):
            if chosen[b][k]:
                mixed_tags[b, k] = 1
            elif tags[other, k]:
                before = int((masks[other] == k + 1).sum())
                # Of the class's pixels below, how many are still there; those pasted on top do not count.
                after = sum(
                    int(masks[other, y, x]) == k + 1
                    and not (int(masks[b, y, x]) not in (0, VOID) and chosen[b][int(masks[b, y, x]) - 1])
                    for y in range(masks.shape[1])
                    for x in range(masks.shape[2])
                )
                mixed_tags[b, k] = float(before == 0 or Fraction(after, before) >= Fraction(min_visible))
    return mixed_images, mixed_tags, mixed_masks


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
    assert (mixed.images.dtype, mixed.tags.dtype, mixed.pseudo_masks.dtype) == (dtype, dtype, torch.int64)
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_the_same():
    probabilities, tags = smooth_probabilities()
    mask = edge_predict(probabilities.cuda(), tags.cuda())
    assert mask.is_cuda and torch.equal(mask.cpu(), edge_predict(probabilities, tags))
    case = mixing_case()
    mixed = edge_predict_mix(*(tensor.cuda() for tensor in case), generator=generator())
    for a, b in zip(mixed, edge_predict_mix(*case, generator=generator()), strict=True):
        assert a.is_cuda and torch.equal(a.cpu(), b)
