import math

import pytest
import torch

from rsepm_edu.methods.permutohedral import permutohedral_lattice


def random_features(*, batch=2, points=20, d=5, spread=2.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, points, d, generator=generator, dtype=torch.float64) * spread).to(dtype)


def random_values(*, batch=2, points=20, channels=3, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, points, channels, generator=generator, dtype=torch.float64).to(dtype)


def simplex_of(point):
    """Corners around one point and its barycentric weights there, checked by what defines them."""
    d = len(point)
    scale = [math.sqrt(2 / 3) * (d + 1) / math.sqrt(i * (i + 1)) for i in range(1, d + 1)]
    place = [
        sum(scale[i] * point[i] for i in range(j, d)) - (j * scale[j - 1] * point[j - 1] if j else 0)
        for j in range(d + 1)
    ]
    nearest = [round(value / (d + 1)) * (d + 1) for value in place]
    while sum(nearest):
        sign = 1 if sum(nearest) > 0 else -1
        farthest = max(range(d + 1), key=lambda j: sign * (nearest[j] - place[j]))
        nearest[farthest] -= sign * (d + 1)
    left = [value - low for value, low in zip(place, nearest, strict=True)]
    corners = [tuple(nearest)]
    for axis in sorted(range(d + 1), key=lambda j: left[j])[:-1]:
        corners.append(tuple(c + 1 - (d + 1) * (j == axis) for j, c in enumerate(corners[-1])))
    ascending = sorted(left)
    weights = [(high - low) / (d + 1) for low, high in zip(ascending, ascending[1:], strict=False)]
    weights = [1 - sum(weights)] + weights
    assert min(weights) >= -1e-12
    for j in range(d + 1):  # no other weights in this simplex give back the point
        assert sum(w * corner[j] for w, corner in zip(weights, corners, strict=True)) == pytest.approx(place[j])
    return corners, weights


def naive_filter(features, values):
    """Splat, blur and slice with a dictionary of corners, for one picture."""
    d, channels = features.shape[1], values.shape[1]
    simplices = [simplex_of(point) for point in features.tolist()]
    lattice = {}
    for (corners, weights), value in zip(simplices, values.tolist(), strict=True):
        for corner, weight in zip(corners, weights, strict=True):
            old = lattice.get(corner, [0.0] * channels)
            lattice[corner] = [o + weight * v for o, v in zip(old, value, strict=True)]
    for axis in range(d + 1):
        blurred = {}
        for corner, value in lattice.items():
            sides = [tuple(c + s * (1 - (d + 1) * (j == axis)) for j, c in enumerate(corner)) for s in (1, -1)]
            around = [lattice.get(side, [0.0] * channels) for side in sides]
            blurred[corner] = [v + (a + b) / 2 for v, a, b in zip(value, *around, strict=True)]
        lattice = blurred
    rows = [
        [sum(w * lattice[corner][c] for corner, w in zip(corners, weights, strict=True)) for c in range(channels)]
        for corners, weights in simplices
    ]
    return torch.tensor(rows, dtype=torch.float64)


def normalized(filter, values):
    norm = filter(torch.ones_like(values[..., :1])).rsqrt()
    return norm * filter(norm * values)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("spread", [0.2, 1.0, 20.0])
def test_the_lattice_equals_the_one_with_a_dictionary(d, spread):
    features, values = random_features(d=d, spread=spread), random_values()
    result = permutohedral_lattice(features).filter(values)
    for b in range(2):
        torch.testing.assert_close(result[b], naive_filter(features[b], values[b]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("d", [2, 5])
def test_the_lattice_is_near_the_gaussian_where_points_are_dense(d):
    """Of a range of 1: 0.02 on average, 0.15 at most. The approximation is the paper's and cannot be made smaller."""
    features = random_features(batch=1, points=800, d=d, spread=1.5 if d == 2 else 0.8)
    values = torch.sigmoid(3 * features[..., :2])  # smooth in the features, from 0 to 1
    weights = (-0.5 * (features[0, :, None] - features[0]).square().sum(-1)).exp()
    exact = normalized(lambda v: weights @ v, values)
    result = normalized(permutohedral_lattice(features).filter, values)
    error = (result - exact).abs()
    assert error.mean() < 0.02
    assert error.max() < 0.15
    assert (exact - values).abs().mean() > 0.08, "the filter does something"


def test_pictures_of_a_batch_do_not_touch_each_other():
    features, values = random_features(batch=3), random_values(batch=3)
    features[1] = features[0]
    together = permutohedral_lattice(features).filter(values)
    for b in range(3):
        alone = permutohedral_lattice(features[b : b + 1]).filter(values[b : b + 1])
        torch.testing.assert_close(together[b], alone[0], rtol=0, atol=1e-12)


def test_float32_is_near_float64():
    features, values = random_features(spread=20.0), random_values()
    result = permutohedral_lattice(features.float()).filter(values.float())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), permutohedral_lattice(features).filter(values), rtol=0, atol=1e-3)


def test_points_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="^expected points within fewer standard deviations, got a lattice of "):
        permutohedral_lattice(random_features(spread=1e5))
