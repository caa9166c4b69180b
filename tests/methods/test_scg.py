import math
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rsepm_edu.methods.scg import min_max, scg, self_correlation

FIRST, SECOND, FOREGROUND, BACKGROUND = 0.50, 0.10, 0.30, 0.05


def random_features(*, batch=2, channels=4, size=(3, 5), seed=0, dtype=torch.float64):
    """Two kinds of position in each picture, so that some similarities are high and some are not."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(batch, 2, channels, generator=generator, dtype=torch.float64)
    which = torch.randint(0, 2, (batch, *size), generator=generator)
    features = kinds[torch.arange(batch)[:, None, None], which].permute(0, 3, 1, 2)
    noise = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    return (features + 0.7 * noise).to(dtype)


def random_cam(*, batch=2, classes=3, size=(3, 5), seed=1, dtype=torch.float64):
    """Maps in [0, 1] with some values exactly at the two thresholds, and tags with an absent class."""
    generator = torch.Generator().manual_seed(seed)
    cam = torch.rand(batch, classes, *size, generator=generator, dtype=torch.float64) ** 2
    draw = torch.rand(cam.shape, generator=generator)
    cam[draw < 0.2] = FOREGROUND
    cam[draw > 0.8] = BACKGROUND
    tags = torch.ones(batch, classes, dtype=torch.float64)
    tags[torch.arange(batch), torch.arange(batch) % classes] = 0
    return cam.to(dtype), tags.to(dtype)


def naive_correlations(features, first_threshold, second_threshold):
    """S1 and S2 of one picture CxHxW, entry by entry."""
    vectors = [[float(v) for v in column] for column in features.flatten(1).T]
    n = len(vectors)

    def cosine(a, b):
        lengths = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
        return sum(p * q for p, q in zip(a, b, strict=True)) / lengths if lengths else 0.0

    s = [[max(0.0, cosine(vectors[i], vectors[j])) for j in range(n)] for i in range(n)]
    s = [[value if value >= first_threshold else 0.0 for value in row] for row in s]
    sums = [sum(s[i][j] for i in range(n)) for j in range(n)]
    s1 = [[s[i][j] / (sums[j] + 1e-5) for j in range(n)] for i in range(n)]

    t = [[0.0 if i == j else s[i][j] for j in range(n)] for i in range(n)]
    sums = [sum(t[i][j] for i in range(n)) for j in range(n)]
    t = [[t[i][j] / (sums[j] + 1e-10) for j in range(n)] for i in range(n)]
    squared = [[sum(t[i][m] * t[m][j] for m in range(n)) for j in range(n)] for i in range(n)]
    sums = [sum(squared[i][j] for i in range(n)) for j in range(n)]
    s2 = [[squared[i][j] / (sums[j] + 1e-10) for j in range(n)] for i in range(n)]
    s2 = [[value if value >= second_threshold / n else 0.0 for value in row] for row in s2]
    return s1, s2


def naive_stretch(values):
    low, high = min(values), max(values)
    return [(value - low) / (high - low + 1e-10) for value in values]


def naive_spread(correlation, cam, foreground, background):
    """The map of one class from one matrix and one flat list of cam values."""
    n = len(cam)
    columns = [naive_stretch([correlation[i][j] for i in range(n)]) for j in range(n)]

    def average(chosen):
        if not chosen:
            return [0.0] * n
        return naive_stretch([sum(columns[j][i] for j in chosen) / len(chosen) for i in range(n)])

    positive = average([j for j in range(n) if cam[j] >= foreground])
    negative = average([j for j in range(n) if cam[j] <= background])
    return naive_stretch([max(0.0, p - q) for p, q in zip(positive, negative, strict=True)])


def naive_resize(plane, size):
    """Bilinear, pixels as areas (the corners are not aligned), pixel by pixel."""
    source = np.asarray(plane, dtype=np.float64)
    result = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            v = max(0.0, (y + 0.5) * source.shape[0] / size[0] - 0.5)
            u = max(0.0, (x + 0.5) * source.shape[1] / size[1] - 0.5)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, source.shape[0] - 1), min(left + 1, source.shape[1] - 1)
            above = source[top, left] * (1 - (u - left)) + source[top, right] * (u - left)
            below = source[bottom, left] * (1 - (u - left)) + source[bottom, right] * (u - left)
            result[y, x] = above * (1 - (v - top)) + below * (v - top)
    return result


def naive_scg(stages, cam, tags, *, first=FIRST, second=SECOND, foreground=FOREGROUND, background=BACKGROUND):
    result = np.zeros(cam.shape)
    for features in stages:
        for b in range(len(cam)):
            matrices = naive_correlations(features[b].double(), first, second)
            for k in range(cam.shape[1]):
                if float(tags[b, k]) == 0:
                    continue
                size, plane = tuple(features.shape[2:]), cam[b, k].double().numpy()
                flat = naive_resize(plane, size).flatten().tolist() if size != plane.shape else plane.flatten()
                for matrix in matrices:
                    spread = np.reshape(naive_spread(matrix, flat, foreground, background), size)
                    spread = naive_resize(spread, plane.shape) if size != plane.shape else spread
                    result[b, k] = np.maximum(result[b, k], spread)
    return torch.from_numpy(result)


def assert_near(result, wanted, tolerance=1e-9):
    torch.testing.assert_close(result.double(), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 1)])
@pytest.mark.parametrize("thresholds", [(0.50, 0.10), (0.1, 0.5), (0.0, 0.0), (0.9, 1.5)])
def test_self_correlation_equals_the_naive_loops(size, thresholds):
    features = random_features(size=size)
    features[0, :, 0, 0] = 0  # a position without features has no direction
    results = self_correlation(features, first_threshold=thresholds[0], second_threshold=thresholds[1])
    for b in range(len(features)):
        for result, wanted in zip(results, naive_correlations(features[b], *thresholds), strict=True):
            assert_near(result[b], torch.tensor(wanted, dtype=torch.float64))


def test_the_cases_reach_every_branch():
    s1, s2 = self_correlation(random_features(), first_threshold=FIRST, second_threshold=SECOND)
    for s in (s1, s2):
        assert 0.2 < float((s == 0).double().mean()) < 0.8
    loose = self_correlation(random_features(), first_threshold=FIRST, second_threshold=0.0)[1]
    assert ((loose > 0) & (s2 == 0)).any(), "the second threshold removes something"
    assert not torch.allclose(s1, s1.transpose(1, 2)), "columns and rows can be told apart"


def test_columns_of_the_first_order_sum_to_1():
    s1, s2 = self_correlation(random_features(), first_threshold=FIRST, second_threshold=0.0)
    for s in (s1, s2):
        assert s.min() >= 0
        torch.testing.assert_close(s.sum(1), torch.ones_like(s.sum(1)), rtol=0, atol=2e-5)


def test_self_correlation_does_not_depend_on_the_length_of_the_features():
    features = random_features()
    scaled = features * torch.linspace(0.1, 20, 15, dtype=torch.float64).reshape(1, 1, 3, 5)
    settings = {"first_threshold": FIRST, "second_threshold": SECOND}
    for a, b in zip(self_correlation(features, **settings), self_correlation(scaled, **settings), strict=True):
        assert_near(a, b)


def test_min_max_stretches_and_turns_what_is_constant_into_zero():
    values = torch.tensor([[2.0, 2.0, 2.0], [1.0, 3.0, 2.0]], dtype=torch.float64)
    wanted = torch.tensor([[0, 0, 0], [0, 1, 0.5]], dtype=torch.float64)
    assert_near(min_max(values, dim=1), wanted)
    assert_near(min_max(values.T, dim=0), wanted.T)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 1)])
def test_scg_equals_the_naive_loops(size):
    features, (cam, tags) = random_features(size=size), random_cam(size=size)
    assert_near(scg(features, cam, tags), naive_scg([features], cam, tags))


@pytest.mark.parametrize(
    "settings",
    [
        {"first_threshold": 0.1, "second_threshold": 0.5, "foreground": 0.1, "background": 0.05},
        {"foreground": 2.0},  # no positives: zero
        {"background": -1.0},  # no negatives: nothing is taken away
        {"foreground": 0.0, "background": 1.0},  # every position is both
    ],
)
def test_settings_of_scg_equal_the_naive_loops(settings):
    features, (cam, tags) = random_features(), random_cam()
    short = {name.removesuffix("_threshold"): value for name, value in settings.items()}
    assert_near(scg(features, cam, tags, **settings), naive_scg([features], cam, tags, **short))


@pytest.mark.parametrize(("batch", "size"), [(3, (3, 5)), (2, (7, 9)), (1, (5, 1))])
@pytest.mark.parametrize("thresholds", [(0.50, 0.10), (0.1, 0.5), (0.0, 0.0), (0.9, 1.5)])
def test_blocks_give_what_whole_matrices_give(batch, size, thresholds, monkeypatch):
    """Without a gradient the matrices are halved and the pictures taken in turn, here in pieces of a few rows."""
    features, (cam, tags) = random_features(batch=batch, size=size), random_cam(batch=batch, size=size)
    settings = dict(zip(("first_threshold", "second_threshold"), thresholds, strict=True))
    wanted = scg(features.clone().requires_grad_(), cam, tags, **settings)
    assert wanted.requires_grad and wanted.any()
    assert_near(scg(features, cam, tags, **settings), wanted.detach())
    monkeypatch.setattr("rsepm_edu.methods.scg.BLOCK", 4)
    monkeypatch.setattr("rsepm_edu.methods.scg.MATRIX", 2 * (size[0] * size[1]) ** 2)
    assert_near(scg(features, cam, tags, **settings), wanted.detach())


class Largest(TorchDispatchMode):
    """Bytes of the tensors made while it is on that are alive at the same time, at their height."""

    def __init__(self):
        super().__init__()
        self.alive, self.height = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.alive:
                    self.alive[key] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, key, None)
        self.height = max(self.height, sum(self.alive.values()))
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_maps_fit_into_little_memory(dtype):
    """Counted without numbers: 8 pictures of 1,024 channels and 64×64 positions; all at once they took 3.5 GB."""
    with torch.device("meta"):
        features, cam, tags = torch.empty(8, 1024, 64, 64, dtype=dtype), torch.empty(8, 20, 64, 64), torch.empty(8, 20)
        with Largest() as memory:
            scg(features, cam, tags)
    assert 0.1e9 < memory.height < 1.1e9


def test_scg_without_positives_is_zero():
    features, (cam, tags) = random_features(), random_cam()
    assert not scg(features, cam, tags, foreground=2.0).any()
    assert not scg(features, torch.zeros_like(cam), tags).any()


def test_values_at_the_thresholds_count():
    features, (cam, tags) = random_features(), random_cam()
    assert (cam == FOREGROUND).any() and (cam == BACKGROUND).any()
    without = scg(features, cam, tags, foreground=FOREGROUND + 1e-6, background=BACKGROUND - 1e-6)
    assert (scg(features, cam, tags) - without).abs().max() > 1e-3


def test_scg_takes_the_maximum_over_stages_of_different_sizes():
    cam, tags = random_cam(size=(3, 5))
    # Off the thresholds: after a resize, rounding decides on which side a value at the threshold comes to lie.
    cam = cam + 0.001 * (1 + torch.rand(cam.shape, generator=torch.Generator().manual_seed(6)))
    stages = (
        random_features(channels=2, size=(6, 7), seed=2),
        random_features(channels=4, size=(3, 5), seed=3),
        random_features(channels=6, size=(2, 3), seed=4),
    )
    result = scg(stages, cam, tags)
    assert_near(result, naive_scg(stages, cam, tags))
    alone = torch.stack([scg(stage, cam, tags) for stage in stages])
    assert torch.equal(result, alone.amax(dim=0))
    assert all((alone.argmax(dim=0) == number).any() for number in range(3)), "every stage wins somewhere"


def test_seed_lies_in_0_to_1_and_absent_classes_stay_zero():
    for seed in range(5):
        features = (random_features(seed=seed), random_features(size=(5, 4), seed=seed))
        cam, tags = random_cam(seed=seed)
        result = scg(features, cam, tags)
        assert result.min() >= 0 and result.max() <= 1
        assert not result[tags == 0].any()
        assert (result[tags > 0].amax(dim=(1, 2)) > 1 - 1e-6).all()


def test_a_certain_position_spreads_over_what_looks_alike():
    features = torch.zeros(1, 2, 2, 4)
    features[:, 0, :, :2] = 1.0  # left half: one kind
    features[:, 1, :, 2:] = 3.0  # right half: another
    cam = torch.tensor([[[[0.2, 1.0, 0.2, 0.0], [0.2, 0.2, 0.2, 0.2]]]])
    wanted = torch.tensor([[[[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]])
    torch.testing.assert_close(scg(features, cam, torch.ones(1, 1)), wanted, rtol=0, atol=1e-4)


def test_positions_may_come_in_any_order():
    features, (cam, tags) = random_features(), random_cam()
    order = torch.randperm(15, generator=torch.Generator().manual_seed(5))

    def moved(maps):
        return maps.flatten(2)[:, :, order].view_as(maps)

    assert_near(scg(moved(features), moved(cam), tags), moved(scg(features, cam, tags)))


def test_classes_may_come_in_any_order():
    features, (cam, tags) = random_features(), random_cam()
    order = [2, 0, 1]
    assert_near(scg(features, cam[:, order], tags[:, order]), scg(features, cam, tags)[:, order])


def test_a_batch_is_its_pictures_one_by_one():
    features, (cam, tags) = random_features(batch=3), random_cam(batch=3)
    singles = [scg(features[b : b + 1], cam[b : b + 1], tags[b : b + 1]) for b in range(3)]
    assert_near(scg(features, cam, tags), torch.cat(singles))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 5e-3)],
)
def test_every_float_type_comes_back_and_is_near_to_float64(dtype, tolerance):
    features, (cam, tags) = random_features(dtype=dtype), random_cam(dtype=dtype)
    # The thresholds as this type knows them: a cam that was rounded below 0.3 is below 0.3.
    limits = {
        "foreground": float(torch.tensor(FOREGROUND, dtype=dtype)),
        "background": float(torch.tensor(BACKGROUND, dtype=dtype)),
    }
    result = scg(features, cam, tags, **limits)
    assert result.dtype == dtype
    assert_near(result, naive_scg([features], cam, tags, **limits), tolerance)
    assert scg(features.float(), cam, tags.bool()).dtype == dtype


def test_inputs_are_left_as_they_were():
    given = random_features(), *random_cam()
    copies = [tensor.clone() for tensor in given]
    scg(*given)
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


def test_gradients_reach_the_features():
    features = random_features(batch=1, size=(2, 3)).requires_grad_()
    cam, tags = random_cam(batch=1, size=(2, 3))
    torch.autograd.gradcheck(lambda f: scg(f, cam, tags), (features,), atol=1e-4)


def test_shapes_that_do_not_go_together_are_refused():
    features, (cam, tags) = random_features(), random_cam()
    with pytest.raises(ValueError, match=r"^cam: expected BxCxhxw, got shape \(2, 3, 3\)$"):
        scg(features, cam[..., 0], tags)
    with pytest.raises(ValueError, match=r"^tags: expected BxK = \(2, 3\), got shape \(2, 2\)$"):
        scg(features, cam, tags[:, :2])
    with pytest.raises(ValueError, match=r"^features: expected BxCxhxw, got shape \(4, 3, 5\)$"):
        scg([features, features[0]], cam, tags)
    with pytest.raises(ValueError, match=r"^features: expected the cam's batch of 2, got shape \(1, 4, 3, 5\)$"):
        scg(features[:1], cam, tags)
    with pytest.raises(ValueError, match="^features: expected at least one stage, got none$"):
        scg([], cam, tags)
    with pytest.raises(TypeError, match="^cam: expected a floating dtype, got torch.int64$"):
        scg(features, cam.long(), tags)
    with pytest.raises(ValueError, match=r"^features: expected BxCxhxw, got shape \(2, 4, 15\)$"):
        self_correlation(features.flatten(2), first_threshold=FIRST, second_threshold=SECOND)


@pytest.mark.gpu
def test_the_gpu_gives_the_same():
    features, (cam, tags) = random_features(), random_cam()
    result = scg(features.cuda(), cam.cuda(), tags.cuda())
    assert result.is_cuda
    assert_near(result.cpu(), scg(features, cam, tags))
