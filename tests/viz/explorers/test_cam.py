import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.viz.explorers import cam_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE, outline

NAMES = ["cat", "dog", "cow"]


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(60, 200, (3, 40, 50), dtype=torch.uint8, generator=generator)
    cam = torch.rand(3, 40, 50, generator=generator)
    cam[1] = 0
    truth = torch.randint(0, 4, (40, 50), generator=generator)
    truth[:5] = 255
    return image, cam, truth


def test_moving_the_slider_changes_the_picture(live, inputs):
    image, cam, truth = inputs
    explorer = cam_explorer(image, cam, NAMES, truth=truth)
    seen = {live(explorer)}
    for threshold in (0.5, 0.7):
        explorer.threshold.value = threshold
        seen.add(live(explorer))
    explorer.choice.value = 2
    seen.add(live(explorer))
    assert len(seen) == 4
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == 3 * TILE + 2 * GAP


def test_the_same_state_gives_the_same_bytes(live, inputs):
    image, cam, _ = inputs
    explorer = cam_explorer(image, cam, NAMES)
    first = live(explorer)
    explorer.threshold.value = 0.9
    explorer.threshold.value = 0.3
    assert live(explorer) == first


def test_classes_with_an_empty_map_are_not_offered(inputs):
    image, cam, _ = inputs
    assert list(cam_explorer(image, cam, NAMES).choice.options) == [("cat", 0), ("cow", 2)]


def test_the_bundle_holds_the_live_view_and_a_static_picture(inputs):
    image, cam, _ = inputs
    explorer = cam_explorer(image, cam, NAMES)
    bundle = explorer._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {
        "text/plain",
        "image/png",
        "application/vnd.jupyter.widget-view+json",
    }
    assert base64.b64decode(bundle["image/png"]) == explorer.png()
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.box.model_id
    assert "CamExplorer object" not in bundle["text/plain"]


def test_no_output_widget_is_made(inputs):
    import ipywidgets

    def children(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from children(child)

    image, cam, _ = inputs
    explorer = cam_explorer(image, cam, NAMES)
    widgets = list(children(explorer.box))
    assert not any(isinstance(widget, ipywidgets.Output) for widget in widgets)
    assert sum(isinstance(widget, ipywidgets.Image) for widget in widgets) == len(explorer.pictures)


def test_the_scores_written_are_those_of_naive_counting(inputs):
    image, cam, truth = inputs
    cam = (cam * 5).round() / 5  # many values lie on the threshold itself: they are background
    legend = cam_explorer(image, cam, NAMES, truth=truth, threshold=0.4).render().legend
    right = extra = missed = 0
    for y in range(40):
        for x in range(50):
            if truth[y, x] == 255:
                continue
            found, wanted = bool(cam[0, y, x] > torch.tensor(0.4)), bool(truth[y, x] == 1)
            right += found and wanted
            extra += found and not wanted
            missed += wanted and not found
    union = right + extra + missed
    texts = [text for text, _ in legend]
    assert texts == [
        f"right: IoU {right / union:.2f}",
        f"FP {extra / union:.2f}",
        f"FN {missed / union:.2f}",
    ]


def test_outline_lies_inside_the_mask_along_its_border():
    mask = np.zeros((7, 7), dtype=bool)
    mask[2:5, 2:5] = True
    line = outline(mask)
    assert line.sum() == 8 and not line[3, 3] and not (line & ~mask).any()


def test_bad_arguments_are_rejected_before_a_slider_moves(inputs):
    image, cam, truth = inputs
    with pytest.raises(ValueError, match="expected 2 maps, one a name, got 3"):
        cam_explorer(image, cam, NAMES[:2])
    with pytest.raises(ValueError, match=r"expected a map in \[0, 1\]"):
        cam_explorer(image, 2 * cam, NAMES)
    with pytest.raises(ValueError, match=r"expected truth \(40, 50\), got \(20, 50\)"):
        cam_explorer(image, cam, NAMES, truth=truth[:20])
    with pytest.raises(ValueError, match="not zero everywhere"):
        cam_explorer(image, 0 * cam, NAMES)
