import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rsepm_edu.methods import random_walk as walking
from rsepm_edu.methods.random_walk import (
    Pairs,
    affinity_labels,
    affinity_loss,
    boundary_loss,
    confident_labels,
    edge_affinity,
    feature_affinity,
    pair_offsets,
    propagate,
    propagate_affinity,
    random_walk,
    straight_path,
)

VOID = 255


def random_edge(*, batch=2, size=(6, 7), seed=0, dtype=torch.float64):
    """Mostly weak edges with a few strong ones, so that some affinities are high and some nearly 0."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, 1, *size, generator=generator, dtype=torch.float64) ** 3).to(dtype)


def random_seed(*, batch=2, classes=3, size=(6, 7), seed=1, dtype=torch.float64):
    """The pictures have different numbers of channels that are not all zero."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(batch, classes, *size, generator=generator, dtype=torch.float64) ** 2
    for b in range(batch):
        maps[b, [k for k in range(classes) if (k + b) % classes < b]] = 0
    return maps.to(dtype)


def random_labels(*, batch=2, size=(6, 7), seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor([0, 1, 2, VOID])[torch.randint(0, 4, (batch, *size), generator=generator)]


def positions(size):
    return [(y, x) for y in range(size[0]) for x in range(size[1])]


def naive_path(start, end):
    """Positions in the rectangle of two others whose distance from their line is less than 1."""
    (y0, x0), (y1, x1) = start, end
    length = math.hypot(y1 - y0, x1 - x0)
    found = []
    for y in range(min(y0, y1), max(y0, y1) + 1):
        for x in range(min(x0, x1), max(x0, x1) + 1):
            along = ((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / length  # of the foot of the perpendicular
            foot = (y0 + along * (y1 - y0) / length, x0 + along * (x1 - x0) / length)
            if math.hypot(y - foot[0], x - foot[1]) < 1 - 1e-9:
                found.append((y, x))
    return found


def edge_rule(edge):
    values = edge[0].double().tolist()
    return lambda start, end: 1 - max(values[y][x] for y, x in naive_path(start, end))


def feature_rule(features):
    values = features.double().tolist()

    def affinity(start, end):
        gaps = [abs(plane[start[0]][start[1]] - plane[end[0]][end[1]]) for plane in values]
        return math.exp(-sum(gaps) / len(gaps))

    return affinity


def dense_walk(seed, rule, *, radius, beta, steps):
    """One picture by the definition: the whole matrix, its columns normalised, its power by squaring."""
    places = positions(seed.shape[1:])
    matrix = np.eye(len(places))
    for i, start in enumerate(places):
        for j, end in enumerate(places):
            if i != j and (end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2 < radius**2:
                matrix[i, j] = rule(start, end) ** beta
    transition = matrix / matrix.sum(axis=0, keepdims=True)
    power = np.linalg.matrix_power(transition, steps)
    return torch.from_numpy(seed.double().flatten(1).numpy() @ power).reshape(seed.shape)


def dense_propagate(seed, edge, *, radius=5, beta=10.0, steps=256, clear_edges=True):
    pictures = []
    for maps, boundary in zip(seed, edge, strict=True):
        start = maps.double() * (1 - boundary.double()) if clear_edges else maps.double()
        walked = dense_walk(start, edge_rule(boundary), radius=radius, beta=beta, steps=steps)
        pictures.append(walked / walked.max() if walked.any() else walked)
    return torch.stack(pictures)


def assert_near(result, wanted, tolerance=1e-9):
    torch.testing.assert_close(result.double(), wanted.double(), rtol=0, atol=tolerance)


# pairs and paths


@pytest.mark.parametrize(("radius", "count"), [(2, 4), (5, 34), (10, 152)])
def test_offsets_are_half_of_the_disc(radius, count):
    offsets = pair_offsets(radius)
    disc = {(y, x) for y in range(-20, 21) for x in range(-20, 21) if 0 < math.hypot(y, x) < radius - 1e-9}
    assert len(offsets) == count
    assert set(offsets) | {(-y, -x) for y, x in offsets} == disc and 2 * count == len(disc)


def test_a_radius_without_pairs_is_refused():
    with pytest.raises(ValueError, match="^radius: expected at least 2, got 1$"):
        pair_offsets(1)


def test_paths_are_those_of_the_definition():
    for offset in pair_offsets(10):
        assert sorted(straight_path(offset)) == sorted(naive_path((0, 0), offset)), offset
    assert straight_path((0, 3)) == ((0, 0), (0, 1), (0, 2), (0, 3))
    assert straight_path((2, 2)) == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2))


@pytest.mark.parametrize("size", [(6, 7), (1, 9), (2, 1)])
def test_planes_hold_the_affinities_of_their_pairs(size):
    edge = random_edge(size=size)
    features = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    labels = random_labels(size=size)
    by_edge, by_features = edge_affinity(edge, radius=4), feature_affinity(features, radius=4)
    pairs = affinity_labels(labels, radius=4)
    for b in range(2):
        rules = edge_rule(edge[b]), feature_rule(features[b])
        for n, (dy, dx) in enumerate(pair_offsets(4)):
            for y, x in positions(size):
                end = (y + dy, x + dx)
                kinds = [bool(kind[b, n, y, x]) for kind in pairs]
                got = float(by_edge[b, n, y, x]), float(by_features[b, n, y, x])
                if end not in positions(size):
                    assert got == (0, 0) and kinds == [False] * 3
                    continue
                assert got == pytest.approx([rule((y, x), end) for rule in rules], abs=1e-12)
                first, second = int(labels[b, y, x]), int(labels[b, end[0], end[1]])
                known = VOID not in (first, second)
                assert kinds == [
                    known and first == second == 0,
                    known and first == second != 0,
                    known and first != second,
                ]


def test_gradients_of_the_affinities():
    edge = random_edge(batch=1, size=(2, 4)).requires_grad_()
    features = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda e: edge_affinity(e, radius=3), (edge,))
    torch.autograd.gradcheck(lambda f: feature_affinity(f, radius=2), (features,))


# losses


def naive_loss(rules, labels, radius):
    """¼ background, ¼ foreground, ½ different, each a mean over the pairs of the batch."""
    costs = {"background": [], "foreground": [], "different": []}
    for rule, picture in zip(rules, labels.tolist(), strict=True):
        places = positions((len(picture), len(picture[0])))
        for i, (y, x) in enumerate(places):
            for v, u in places[i + 1 :]:
                if (v - y) ** 2 + (u - x) ** 2 >= radius**2 or VOID in (picture[y][x], picture[v][u]):
                    continue
                a = rule((y, x), (v, u))
                if picture[y][x] != picture[v][u]:
                    costs["different"].append(-math.log(1 - a + 1e-5))
                else:
                    costs["foreground" if picture[y][x] else "background"].append(-math.log(a + 1e-5))
    means = {kind: sum(values) / len(values) if values else 0.0 for kind, values in costs.items()}
    return means["background"] / 4 + means["foreground"] / 4 + means["different"] / 2


@pytest.mark.parametrize("kept", [(0, 1, 2, VOID), (0, VOID), (1, 2), (VOID,)])
def test_losses_equal_the_naive_loops(kept):
    edge, labels = random_edge(), random_labels()
    labels[~torch.isin(labels, torch.tensor(kept))] = VOID
    features = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted = naive_loss([edge_rule(e) for e in edge], labels, 4)
    assert float(boundary_loss(edge, labels, radius=4)) == pytest.approx(wanted, abs=1e-9)
    wanted = naive_loss([feature_rule(f) for f in features], labels, 3)
    result = affinity_loss(feature_affinity(features, radius=3), affinity_labels(labels.to(torch.uint8), radius=3))
    assert float(result) == pytest.approx(wanted, abs=1e-9)


def test_the_loss_pulls_edges_up_between_labels_and_down_within():
    labels = torch.zeros(1, 5, 12, dtype=torch.int64)
    labels[..., 6:] = 1
    edge = torch.full((1, 1, 5, 12), 0.5, requires_grad=True)
    with torch.no_grad():
        edge[..., 6] = 0.6  # the strongest of every path that crosses it
    boundary_loss(edge, labels, radius=5).backward()
    assert (edge.grad[..., 6] < 0).all()
    assert (edge.grad[..., :5] >= 0).all() and edge.grad[..., :5].any()


def test_the_loss_is_finite_with_a_gradient_at_both_ends():
    for value in (0.0, 1.0):
        edge = torch.full((1, 1, 4, 5), value, dtype=torch.float16, requires_grad=True)
        loss = boundary_loss(edge, random_labels(batch=1, size=(4, 5)), radius=3)
        loss.backward()
        assert loss.dtype == torch.float32 and bool(loss.isfinite()) and edge.grad.isfinite().all()


# walks


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((6, 7), {}),
        ((6, 7), {"radius": 3, "beta": 2.5, "steps": 5}),
        ((2, 9), {"radius": 6, "steps": 1}),
        ((1, 1), {}),
        ((6, 7), {"steps": 0}),
        ((6, 7), {"steps": 3, "clear_edges": False}),
    ],
)
def test_propagate_equals_the_dense_definition(size, settings):
    seed, edge = random_seed(size=size), random_edge(size=size)
    assert_near(propagate(seed, edge, **settings), dense_propagate(seed, edge, **settings))


@pytest.mark.parametrize("settings", [{}, {"radius": 3, "beta": 1.0, "steps": 4}])
def test_propagate_affinity_equals_the_dense_definition(settings):
    seed = random_seed()
    features = torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    full = {"radius": 5, "beta": 8.0, "steps": 256} | settings
    wanted = [dense_walk(maps, feature_rule(f), **full) for maps, f in zip(seed, features, strict=True)]
    assert_near(propagate_affinity(seed, features, **settings), torch.stack(wanted))


def test_two_positions_have_a_closed_form():
    """a between them, 1 to themselves: their difference shrinks by (1 − a) / (1 + a) a step, their mean stays."""
    affinity = torch.zeros(1, 4, 1, 2, dtype=torch.float64)
    affinity[0, pair_offsets(2).index((0, 1)), 0, 0] = 0.5
    seed = torch.tensor([3.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    for steps in (1, 2, 7):
        left, right = random_walk(seed, affinity, radius=2, beta=2.0, steps=steps).flatten().tolist()
        shrunk = ((1 - 0.25) / (1 + 0.25)) ** steps
        assert (left, right) == pytest.approx((2 + shrunk, 2 - shrunk), rel=1e-12)


def test_a_wall_keeps_a_seed_on_its_side_and_nothing_else_does():
    edge = torch.zeros(1, 1, 8, 9)
    edge[..., 4] = 1.0
    seed = torch.zeros(1, 1, 8, 9)
    seed[0, 0, 3, 1] = 1.0
    walked = propagate(seed, edge)
    assert not walked[..., 4:].any()
    torch.testing.assert_close(walked[..., :4], torch.ones(1, 1, 8, 4), atol=0.6, rtol=0)  # it spread all over
    assert propagate(seed, torch.zeros_like(edge))[..., 5:].min() > 0.3


def test_means_keep_constants_and_ranges():
    seed, affinity = random_seed(), edge_affinity(random_edge())
    assert_near(random_walk(torch.full_like(seed, 0.7), affinity), torch.full_like(seed, 0.7))
    walked = random_walk(seed, affinity, steps=3)
    assert (walked.amax((2, 3)) <= seed.amax((2, 3))).all() and (walked.amin((2, 3)) >= seed.amin((2, 3))).all()


def test_one_maximum_a_picture():
    walked = propagate(random_seed(classes=2), random_edge(), steps=8)
    assert walked.amax((1, 2, 3)).tolist() == [1.0, 1.0]
    assert walked[0].amax((1, 2)).min() < 1  # the weaker class stays weaker
    assert not propagate(torch.zeros(2, 3, 4, 5), torch.zeros(2, 1, 4, 5)).any()
    assert propagate(torch.zeros(2, 0, 4, 5), torch.zeros(2, 1, 4, 5)).shape == (2, 0, 4, 5)
    assert propagate(torch.zeros(0, 3, 4, 5), torch.zeros(0, 1, 4, 5)).shape == (0, 3, 4, 5)


def test_a_batch_is_its_pictures_one_by_one_and_inputs_stay():
    seed, edge = random_seed(batch=3, classes=4), random_edge(batch=3)
    seed[2] = 0
    copies = seed.clone(), edge.clone()
    walked = propagate(seed, edge, steps=9)
    assert torch.equal(seed, copies[0]) and torch.equal(edge, copies[1])
    singles = [propagate(seed[b : b + 1], edge[b : b + 1], steps=9) for b in range(3)]
    assert_near(walked, torch.cat(singles), 1e-12)
    assert_near(walked, dense_propagate(seed, edge, steps=9))


def test_mirrored_maps_walk_mirrored():
    seed, edge = random_seed(), random_edge()
    for flip in ((2,), (3,)):
        assert_near(propagate(seed.flip(flip), edge.flip(flip)), propagate(seed, edge).flip(flip))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_every_float_type_comes_back_and_is_near_to_float64(dtype, tolerance):
    seed, edge = random_seed(dtype=dtype), random_edge(dtype=dtype)
    walked = propagate(seed, edge)
    assert walked.dtype == dtype
    assert_near(walked, dense_propagate(seed, edge), tolerance)
    features = torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    assert_near(
        propagate_affinity(seed, features),
        propagate_affinity(seed.double(), features.double()),
        tolerance,
    )


@pytest.mark.parametrize(("radius", "size"), [(2, (6, 7)), (5, (6, 7)), (5, (1, 3)), (5, (13, 4))])
def test_a_walk_of_few_launches_is_the_walk(radius, size, monkeypatch):
    """The form for a GPU, on the CPU."""
    seed, edge = random_seed(batch=3, size=size), random_edge(batch=3, size=size)
    wanted = propagate(seed, edge, radius=radius, steps=9)
    monkeypatch.setattr(walking, "_steps_shift_by_shift", walking._steps_of_few_launches)
    assert_near(propagate(seed, edge, radius=radius, steps=9), wanted, 1e-12)
    assert_near(wanted, dense_propagate(seed, edge, radius=radius, steps=9))


class Operations(TorchDispatchMode):
    """How many operations compute something."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_a_step_on_a_gpu_is_few_launches(monkeypatch):
    seed, affinity = random_seed(), edge_affinity(random_edge())
    monkeypatch.setattr(walking, "_steps_shift_by_shift", walking._steps_of_few_launches)
    counts = []
    for steps in (10, 110):
        with Operations() as operations:
            random_walk(seed, affinity, steps=steps)
        counts.append(operations.count)
    assert counts[1] - counts[0] <= 300


def test_no_gradient_flows_through_a_walk():
    seed, edge = random_seed().requires_grad_(), random_edge().requires_grad_()
    assert not propagate(seed, edge, steps=2).requires_grad
    assert not propagate_affinity(seed, edge, steps=2).requires_grad


# confident labels


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_confident_labels_are_void_where_the_two_passes_disagree(dtype):
    #                            (foreground pass, background pass) -> label
    table = {(0, 0): 0, (0, 2): VOID, (2, 0): 2, (2, 2): 2, (1, 2): 1, (0, VOID): VOID, (VOID, 0): VOID}
    first = torch.tensor([[[pair[0] for pair in table]]], dtype=dtype)
    second = torch.tensor([[[pair[1] for pair in table]]], dtype=dtype)
    copy = first.clone()
    labels = confident_labels(first, second)
    assert labels.dtype == dtype and labels.flatten().tolist() == list(table.values())
    assert torch.equal(first, copy)


# what is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: propagate(torch.zeros(2, 3, 4), torch.zeros(2, 1, 3, 4)), r"^seed: expected BxCxhxw, got shape"),
        (
            lambda: propagate(torch.zeros(2, 3, 4, 5), torch.zeros(2, 2, 4, 5)),
            r"^edge: expected Bx1xhxw = \(2, 1, 4, 5\), got shape \(2, 2, 4, 5\)$",
        ),
        (lambda: edge_affinity(torch.zeros(2, 2, 4, 5)), r"^edge: expected Bx1xhxw, got shape \(2, 2, 4, 5\)$"),
        (
            lambda: propagate_affinity(torch.zeros(2, 3, 4, 5), torch.zeros(2, 8, 4, 6)),
            r"^features: expected B and hxw of the seed \(2, 3, 4, 5\), got \(2, 8, 4, 6\)$",
        ),
        (
            lambda: random_walk(torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 4, 5)),
            r"^affinity: expected BxNxhxw = \(2, 34, 4, 5\), got shape \(2, 4, 4, 5\)$",
        ),
        (
            lambda: propagate(torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 4, 5), beta=0.0),
            r"^expected beta > 0 and steps >= 0, got 0.0 and 256$",
        ),
        (
            lambda: propagate(torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 4, 5), steps=-1),
            r"^expected beta > 0 and steps >= 0, got 10.0 and -1$",
        ),
        (lambda: affinity_labels(torch.zeros(1, 4, 5)), r"^labels: expected BxHxW integers, got shape \(1, 4, 5\) of"),
        (
            lambda: affinity_loss(torch.zeros(1, 4, 4, 5), Pairs(*[torch.zeros(1, 4, 4, 4).bool()] * 3)),
            r"^pairs: expected the affinity's \(1, 4, 4, 5\), got \(1, 4, 4, 4\)$",
        ),
        (
            lambda: confident_labels(torch.zeros(1, 4, 5).long(), torch.zeros(1, 4, 6).long()),
            r"^labels: expected the same shape twice, got \(1, 4, 5\) and \(1, 4, 6\)$",
        ),
        (
            lambda: confident_labels(torch.zeros(1, 4, 5).long(), torch.zeros(1, 4, 5)),
            r"^labels: expected integers, got torch.int64 and torch.float32$",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.gpu
def test_the_gpu_gives_the_same():
    seed, edge = random_seed(), random_edge()
    walked = propagate(seed.cuda(), edge.cuda())
    assert walked.is_cuda
    assert_near(walked.cpu(), propagate(seed, edge))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    seed, affinity = random_seed(), edge_affinity(random_edge())
    seed[1, 2, 3, 4] = value
    with pytest.raises(ValueError, match="^seed: expected finite numbers, got NaN or infinity$"):
        random_walk(seed, affinity)
    affinity[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=r"^affinity: expected numbers in 0 ... 1, got others or NaN$"):
        random_walk(random_seed(), affinity)
    with pytest.raises(ValueError, match="expected "):
        propagate(seed, random_edge())


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_affinities_out_of_range_are_refused(value):
    affinity = edge_affinity(random_edge())
    affinity[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=r"^affinity: expected numbers in 0 ... 1, got others or NaN$"):
        random_walk(random_seed(), affinity)
