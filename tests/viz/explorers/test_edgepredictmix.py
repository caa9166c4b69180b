import base64
import io

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.methods.edgepredictmix import edge_predict
from rsepm_edu.viz.explorers import edge_predict_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE

NAMES = ["cat", "dog", "cow"]


@pytest.fixture
def inputs():
    """A blob that falls off slowly, with a jump half way down; the cow is nowhere."""
    y, x = np.mgrid[:24, :30]
    distance = np.hypot(y - 12, x - 12)
    cat = np.clip(0.9 - distance / 20, 0, 1) - 0.15 * (distance > 7)
    maps = np.stack([np.clip(cat, 0, 1), np.clip(x / 60, 0, 0.6), np.zeros_like(cat)])
    image = torch.randint(0, 256, (3, 24, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    truth = torch.from_numpy((distance < 7).astype(np.int64))
    truth[0] = 255
    return image, torch.from_numpy(maps).float(), truth


def test_every_control_changes_the_picture(live, inputs):
    image, maps, truth = inputs
    explorer = edge_predict_explorer(image, maps, NAMES, truth)
    assert list(explorer.choice.options) == [("cat", 0), ("dog", 1)]
    seen = [live(explorer)]
    for control, value in [
        (explorer.thresholds, (0.2, 0.55)),
        (explorer.thresholds, (0.2, 0.7)),
        (explorer.levels, (300, 500)),
        (explorer.choice, 1),
    ]:
        control.value = value
        seen.append(live(explorer))
    assert len(set(seen)) == len(seen)
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == 4 * TILE + 3 * GAP


@pytest.mark.parametrize(("thresholds", "levels"), [((0.10, 0.55), (10, 100)), ((0.35, 0.7), (0, 50))])
def test_the_regions_are_those_of_edge_predict(inputs, thresholds, levels):
    image, maps, truth = inputs
    explorer = edge_predict_explorer(image, maps, NAMES, truth)
    explorer.thresholds.value, explorer.levels.value = thresholds, levels
    probabilities = torch.cat([1 - maps[:1], maps[:1]])[None]
    (uncertain, certain), (low, high) = thresholds, levels
    settings = {"certain": certain, "uncertain": uncertain, "low": low, "high": high}
    wanted = edge_predict(probabilities, torch.ones(1, 1), **settings)[0].numpy()
    regions = explorer.regions()
    assert np.array_equal(regions["object"], wanted == 1) and np.array_equal(regions["rest"], wanted == 0)


def test_both_thresholds_at_one_place_are_no_error(inputs):
    image, maps, truth = inputs
    explorer = edge_predict_explorer(image, maps, NAMES, truth)
    explorer.thresholds.value = (0.5, 0.5)
    regions = explorer.regions()
    assert not (regions["inside"] & regions["outside"]).any()


def test_the_scores_written_are_those_of_naive_counting(inputs):
    image, maps, truth = inputs
    explorer = edge_predict_explorer(image, maps, NAMES, truth)
    regions = explorer.regions()
    right = extra = missed = counted = decided = labelled = 0
    for y in range(24):
        for x in range(30):
            if truth[y, x] != 255:
                found, wanted = bool(regions["object"][y, x]), bool(truth[y, x] == 1)
                right, extra, missed = right + (found and wanted), extra + (found > wanted), missed + (wanted > found)
                counted += 1
                decided += bool(maps[0, y, x] >= 0.55 or maps[0, y, x] <= 0.10)
                labelled += found or bool(regions["rest"][y, x])
    _, captions, legend = explorer.render()
    assert captions[1:3] == [
        f"CF decides {decided / counted:.0%}; edges blue",
        f"EP decides {labelled / counted:.0%}",
    ]
    shares = zip(("IoU", "FP", "FN"), (right, extra, missed), strict=True)
    assert [text for text, _ in legend] == [f"{name} {n / (right + extra + missed):.2f}" for name, n in shares]


def test_the_bundle_holds_the_live_view_and_a_static_picture(inputs):
    explorer = edge_predict_explorer(*inputs[:2], NAMES, inputs[2])
    bundle = explorer._repr_mimebundle_(include=None, exclude=None)
    assert base64.b64decode(bundle["image/png"]) == explorer.png()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.box.model_id
    assert bundle["text/plain"] == "EdgePredictExplorer(cat, CF 0.10 to 0.55, Canny 10 to 100)"


def test_no_output_widget_is_made(inputs):
    def children(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from children(child)

    explorer = edge_predict_explorer(*inputs[:2], NAMES, inputs[2])
    widgets = list(children(explorer.box))
    assert not any(isinstance(widget, ipywidgets.Output) for widget in widgets)
    assert sum(isinstance(widget, ipywidgets.Image) for widget in widgets) == len(explorer.pictures)


def test_bad_arguments_are_rejected_before_a_slider_moves(inputs):
    image, maps, truth = inputs
    with pytest.raises(ValueError, match="expected 2 maps, one a name, got 3"):
        edge_predict_explorer(image, maps, NAMES[:2], truth)
    with pytest.raises(ValueError, match=r"expected a map in \[0, 1\]"):
        edge_predict_explorer(image, 2 * maps, NAMES, truth)
    with pytest.raises(ValueError, match=r"expected truth \(24, 30\), got \(12, 30\)"):
        edge_predict_explorer(image, maps, NAMES, truth[:12])
    with pytest.raises(ValueError, match="not zero everywhere"):
        edge_predict_explorer(image, 0 * maps, NAMES, truth)
