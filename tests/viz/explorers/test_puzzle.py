import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.viz.explorers import puzzle as module
from rsepm_edu.viz.explorers import puzzle_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE

NAMES = ["cat", "dog", "cow"]


def looks(images):
    """A network with stride 4 whose map depends on its whole input, as the mean of the input enters everywhere."""
    coarse = torch.nn.functional.avg_pool2d(images, 4, ceil_mode=True)  # ⌈n / 4⌉ positions, as with padding
    return 3 * coarse - images.mean(dim=(2, 3), keepdim=True)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 255, (3, 24, 48), dtype=torch.uint8, generator=generator)
    return image, torch.tensor([1.0, 0.0, 1.0]), {"one": looks, "two": lambda images: looks(images).flip(1)}


@pytest.fixture
def written(monkeypatch):
    """What is drawn: every map on the picture's size."""
    maps = []
    overlay, heat = module.overlay, module.heat
    monkeypatch.setattr(module, "overlay", lambda i, v: maps.append(v.numpy()) or overlay(i, v))
    monkeypatch.setattr(module, "heat", lambda v: maps.append(v.numpy()) or heat(v))
    return maps


def by_hand(image, parts):
    """Map of the whole picture and map of the tiles, cut and joined by slices; sides are multiples of 4 · parts."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs = ((image / 255 - mean[:, None, None]) / std[:, None, None])[None]
    whole, merged = looks(inputs)[0], torch.zeros(3, 6, 12)
    height, width = 24 // parts, 48 // parts
    for y in range(parts):
        for x in range(parts):
            tile = inputs[:, :, y * height : (y + 1) * height, x * width : (x + 1) * width]
            rows, columns = (slice(i * n // 4, (i + 1) * n // 4) for i, n in ((y, height), (x, width)))
            merged[:, rows, columns] = looks(tile)[0]
    return whole, merged


def tag_loss(maps, tags):
    total = 0.0
    for values, tag in zip(maps.double(), tags.tolist(), strict=True):
        p = 1 / (1 + math.exp(-float(values.mean())))
        total -= math.log(p) if tag else math.log(1 - p)
    return total / len(tags)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_maps_and_terms_are_those_of_slices_and_loops(inputs, written, parts):
    image, tags, networks = inputs
    explorer = puzzle_explorer(image, tags, networks, NAMES, parts=parts, alpha=0.5)
    whole, merged = by_hand(image, parts)
    unit = max(float(whole[0].max()), float(merged[0].max()))
    cam, other = (np.asarray(m[0].clamp(min=0) / unit) for m in (whole, merged))
    for drawn, wanted in zip(written, (cam, other, np.abs(cam - other)), strict=True):
        np.testing.assert_allclose(drawn, wanted.repeat(4, axis=0).repeat(4, axis=1), atol=1e-5)
    difference = float((whole - merged).abs()[[0, 2]].sum()) / (3 * 6 * 12)
    total = tag_loss(whole, tags) + tag_loss(merged, tags) + 0.5 * difference
    assert explorer.render().captions[3] == f"this image's loss: {total:.2f}"
    assert repr(explorer) == f"PuzzleExplorer(one, cat, {parts}×{parts} tiles, α = 0.5)"


def test_one_tile_is_the_picture_and_differs_nowhere(live, inputs, written):
    image, tags, networks = inputs
    explorer = puzzle_explorer(image, tags, networks, NAMES, parts=1)
    assert np.abs(written[2]).max() < 1e-6
    before, said = live(explorer), explorer.render().captions
    explorer.alpha.value = 0.0
    assert explorer.render().captions == said and live(explorer) != before  # the words name α


def test_every_control_changes_the_picture_and_no_network_runs_again(live, inputs):
    image, tags, _ = inputs
    calls = []
    networks = {name: lambda x, n=name: calls.append(n) or looks(x) * len(n) for name in ("a", "bb")}
    explorer = puzzle_explorer(image, tags, networks, NAMES)
    made, seen = len(calls), {live(explorer)}
    for control, value in (
        (explorer.network, "bb"),
        (explorer.choice, 2),
        (explorer.parts, 4),
        (explorer.alpha, 1.0),
    ):
        control.value = value
        seen.add(live(explorer))
    assert len(seen) == 5 and len(calls) == made
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == 4 * TILE + 3 * GAP


def test_absent_classes_are_not_offered(inputs):
    image, tags, networks = inputs
    assert list(puzzle_explorer(image, tags, networks, NAMES).choice.options) == [("cat", 0), ("cow", 2)]


def test_tiles_that_share_a_position_fit(inputs):
    _, tags, networks = inputs
    image = torch.randint(0, 255, (3, 36, 28), dtype=torch.uint8)  # maps of 9×7 positions
    for parts in (2, 3, 4):
        assert puzzle_explorer(image, tags, networks, NAMES, parts=parts).png()


def test_bad_arguments_are_rejected_before_a_slider_moves(inputs):
    image, tags, networks = inputs
    with pytest.raises(ValueError, match="^networks: expected at least one, got none$"):
        puzzle_explorer(image, tags, {}, NAMES)
    with pytest.raises(ValueError, match=r"^tags: expected 3, one a name and not all 0, got \[0.0, 0.0, 0.0\]$"):
        puzzle_explorer(image, 0 * tags, networks, NAMES)
    with pytest.raises(ValueError, match="^tags: expected 2, one a name"):
        puzzle_explorer(image, tags, networks, NAMES[:2])
    with pytest.raises(ValueError, match="^expected parts 1 to 4 and alpha 0 to 4, got 5 and 4.0$"):
        puzzle_explorer(image, tags, networks, NAMES, parts=5)
    with pytest.raises(ValueError, match=r"^networks: expected cams 1x3xhxw, got shape \(1, 2, 6, 12\)$"):
        puzzle_explorer(image, tags, {"one": lambda x: looks(x)[:, :2]}, NAMES)
