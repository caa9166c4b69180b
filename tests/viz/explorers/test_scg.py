import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.viz.explorers import scg as module
from rsepm_edu.viz.explorers import scg_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(60, 200, (3, 24, 32), dtype=torch.uint8, generator=generator)
    stages = {
        "stage 5": torch.rand(3, 3, 4, generator=generator),
        "stage 4": torch.randn(5, 6, 8, generator=generator),
    }
    truth = torch.zeros(24, 32, dtype=torch.long)
    truth[4:20, 8:20] = 2
    truth[12, 8:20] = 255
    return image, stages, truth


@pytest.fixture
def shown(monkeypatch):
    """What is drawn: the maps, on the picture's size, and the captions."""
    maps, captions = [], []
    overlay, view = module.overlay, module.View
    monkeypatch.setattr(module, "overlay", lambda i, v, **k: maps.append(np.array(v)) or overlay(i, v, **k))
    monkeypatch.setattr(module, "View", lambda t, c: captions.append(list(c)) or view(t, c))
    return maps, captions


def naive_orders(features, threshold, y, x):
    """Both orders of one column, stretched to [0, 1], entry by entry."""
    vectors = features.double().flatten(1).T.tolist()
    n, chosen = len(vectors), y * features.shape[2] + x

    def cosine(a, b):
        return sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    s = [[max(0.0, cosine(a, b)) for b in vectors] for a in vectors]
    s = [[value if value >= threshold else 0.0 for value in row] for row in s]
    first = [s[i][chosen] for i in range(n)]
    t = [[0.0 if i == j else s[i][j] for j in range(n)] for i in range(n)]
    sums = [sum(t[i][j] for i in range(n)) or 1.0 for j in range(n)]
    t = [[t[i][j] / sums[j] for j in range(n)] for i in range(n)]
    second = [sum(t[i][m] * t[m][chosen] for m in range(n)) for i in range(n)]
    total = sum(second) or 1.0
    second = [value if value / total >= 0.1 / n else 0.0 for value in second]

    def stretch(values):
        spread = max(values) - min(values)
        return [(value - min(values)) / spread if spread else 0.0 for value in values]

    return [np.reshape(stretch(values), features.shape[1:]) for values in (first, second)]


@pytest.mark.parametrize(("stage", "block"), [("stage 5", 8), ("stage 4", 4)])
@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_the_maps_are_those_of_the_naive_loops(inputs, shown, stage, block, threshold):
    image, stages, _ = inputs
    explorer = scg_explorer(image, stages, pixel=(5, 31), first_threshold=threshold)
    explorer.stage.value = stage
    wanted = naive_orders(stages[stage], threshold, 5 // block, 31 // block)
    for drawn, small in zip(shown[0][-2:], wanted, strict=True):
        np.testing.assert_allclose(drawn, small.repeat(block, axis=0).repeat(block, axis=1), atol=1e-5)


def test_the_share_on_the_same_label_is_counted_without_void(inputs, shown):
    image, stages, truth = inputs
    explorer = scg_explorer(image, stages, truth=truth, pixel=(10, 10))
    maps, captions = shown
    for values, caption in zip(maps[-2:], captions[-1][1:], strict=True):
        same = sum(values[y, x] for y in range(24) for x in range(32) if truth[y, x] == 2)
        counted = sum(values[y, x] for y in range(24) for x in range(32) if truth[y, x] != 255)
        assert caption.endswith(f": {same / counted:.0%} on the same label")
    explorer.row.value = 12  # void: belongs to nobody
    assert captions[-1] == ["the chosen position", "first order", "second order"]


def test_a_position_that_agrees_with_nothing_says_so(inputs, shown):
    image, _, truth = inputs
    stages = {"one": torch.eye(12).reshape(12, 3, 4)}  # every position its own direction
    explorer = scg_explorer(image, stages, truth=truth, pixel=(10, 10))
    assert shown[1][-1][2] == "second order: agrees with nothing"
    assert "one, row 10, column 10, θ₁ = 0.50" in repr(explorer)


def test_every_control_changes_the_picture(live, inputs):
    image, stages, truth = inputs
    explorer = scg_explorer(image, stages, truth=truth)
    seen = {live(explorer)}
    for control, value in (
        (explorer.row, 3),
        (explorer.column, 30),
        (explorer.stage, "stage 4"),
        (explorer.threshold, 0.0),
    ):
        control.value = value
        seen.add(live(explorer))
    assert len(seen) == 5
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == 3 * TILE + 2 * GAP


def test_moving_the_pixel_does_not_compute_the_correlation_again(live, inputs, monkeypatch):
    image, stages, _ = inputs
    calls = []
    compute = module.self_correlation
    monkeypatch.setattr(module, "self_correlation", lambda *a, **k: calls.append(k) or compute(*a, **k))
    explorer = scg_explorer(image, stages)
    first = live(explorer)
    explorer.row.value, explorer.column.value = 0, 0
    explorer.stage.value = "stage 4"
    explorer.stage.value = "stage 5"
    assert len(calls) == 2
    explorer.threshold.value = 0.8
    explorer.row.value, explorer.column.value, explorer.threshold.value = 12, 16, 0.5
    assert len(calls) == 4
    assert live(explorer) == first


def test_bad_arguments_are_rejected(inputs):
    image, stages, truth = inputs
    with pytest.raises(ValueError, match="^stages: expected at least one, got none$"):
        scg_explorer(image, {})
    with pytest.raises(ValueError, match=r"^stages: expected Cxhxw, got a of shape \(1, 3, 3, 4\)$"):
        scg_explorer(image, {"a": stages["stage 5"][None]})
    with pytest.raises(ValueError, match=r"^expected truth \(24, 32\), got \(12, 32\)$"):
        scg_explorer(image, stages, truth=truth[:12])
    with pytest.raises(ValueError, match=r"^pixel: expected a place in \(24, 32\), got \(24, 0\)$"):
        scg_explorer(image, stages, pixel=(24, 0))
