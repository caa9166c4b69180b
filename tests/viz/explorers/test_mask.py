import io

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.viz.explorers import mask as module
from rsepm_edu.viz.explorers import mask_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE
from rsepm_edu.viz.explorers.mask import grown, shifted

NAMES = ["cat", "dog", "cow"]


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(60, 200, (3, 40, 50), dtype=torch.uint8, generator=generator)
    truth = torch.zeros(40, 50, dtype=torch.uint8)
    truth[10:20, 12:30] = 1
    truth[25:35, 20:44] = 3
    truth[25, 20:44] = 255
    return image, truth


def test_each_control_changes_the_picture_and_going_back_restores_it(live, inputs):
    explorer = mask_explorer(*inputs, NAMES)
    first = live(explorer)
    seen = {first}
    for control, value in ((explorer.right, 3), (explorer.down, -2), (explorer.grow, 2), (explorer.choice, 3)):
        control.value = value
        seen.add(live(explorer))
    assert len(seen) == 5
    assert repr(explorer) == "MaskExplorer(cow, right 3, down -2, grow 2)"
    explorer.choice.value, explorer.right.value, explorer.down.value, explorer.grow.value = 1, 0, 0, 0
    assert live(explorer) == first
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.width == 3 * TILE + 2 * GAP


def test_only_classes_that_the_truth_has_are_offered(inputs):
    assert list(mask_explorer(*inputs, NAMES).choice.options) == [("cat", 1), ("cow", 3)]


def test_the_bars_are_those_of_naive_counting(inputs, monkeypatch):
    image, truth = inputs
    written = []

    def bars(values, height, width):
        written.append([share for share, _ in values])
        return np.zeros((height, width, 3), np.uint8)

    monkeypatch.setattr(module, "_bars", bars)
    explorer = mask_explorer(image, truth, NAMES)
    assert written[-1] == [1.0, 1.0, 0.0, 0.0]
    names = ("pixels right", "right: IoU", "superfluous: FP", "missed: FN")
    explorer.choice.value, explorer.right.value, explorer.down.value, explorer.grow.value = 3, 5, -3, -1
    right = extra = missed = counted = 0
    for y in range(40):
        for x in range(50):
            if truth[y, x] == 255:
                continue
            # Rows 26 to 34 and columns 20 to 43 of the cow, moved up 3 and right 5, one pixel less all around.
            found, wanted = 24 <= y <= 30 and 26 <= x <= 47, truth[y, x] == 3
            counted += 1
            right += bool(found and wanted)
            extra += bool(found and not wanted)
            missed += bool(wanted and not found)
    union = right + extra + missed
    shares = written[-1]
    assert [text for text, _ in explorer.render().legend] == [
        f"{n} {s:.2f}" for n, s in zip(names, shares, strict=True)
    ]
    assert shares == pytest.approx((1 - (extra + missed) / counted, right / union, extra / union, missed / union))
    assert sum(shares[1:]) == pytest.approx(1)


def test_a_mask_shrunk_to_nothing_has_missed_everything(inputs, monkeypatch):
    image, truth = inputs
    small = torch.where(truth == 1, 0, truth)
    small[3, 3] = 1
    explorer = mask_explorer(image, small, NAMES, grow=-2)
    assert not explorer.mask.any()


def test_shifting_is_by_whole_pixels_and_loses_what_leaves():
    mask = np.zeros((5, 6), dtype=bool)
    mask[1, 4] = mask[4, 0] = True
    assert [tuple(place) for place in np.argwhere(shifted(mask, -1, 1))] == [(0, 5), (3, 1)]
    assert [tuple(place) for place in np.argwhere(shifted(mask, 1, -2))] == [(2, 2)]
    assert (shifted(mask, 0, 0) == mask).all()


@pytest.mark.parametrize("radius", [-3, -1, 0, 1, 2, 5])
def test_growing_is_by_distance(radius):
    mask = np.random.default_rng(0).random((17, 23)) < (0.03 if radius > 0 else 0.97)
    result = grown(mask, radius)
    for y in range(17):
        for x in range(23):
            near = [mask[v, u] for v in range(17) for u in range(23) if (v - y) ** 2 + (u - x) ** 2 <= radius**2]
            assert result[y, x] == (any(near) if radius >= 0 else all(near))


def test_bad_arguments_are_rejected_before_a_slider_moves(inputs):
    image, truth = inputs
    with pytest.raises(ValueError, match=r"expected truth \(40, 50\), got \(20, 50\)"):
        mask_explorer(image, truth[:20], NAMES)
    with pytest.raises(ValueError, match=r"truth: expected labels 1 to 2, got \[1, 3\]"):
        mask_explorer(image, truth, NAMES[:2])
    with pytest.raises(ValueError, match=r"truth: expected labels 1 to 3, got \[\]"):
        mask_explorer(image, 0 * truth, NAMES)
