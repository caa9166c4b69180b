import base64
import io

import ipywidgets
import pytest
import torch
from PIL import Image

from rsepm_edu.methods.pamr import pamr
from rsepm_edu.viz.explorers import pamr as module
from rsepm_edu.viz.explorers import pamr_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE

NAMES = ["cat", "dog", "cow"]
ALL = (1, 2, 4, 8, 12, 24)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(60, 90, (3, 24, 30), dtype=torch.uint8, generator=generator)
    image[:, 5:20, 8:22] += 120  # a bright box, and maps that cover its left half and more
    cam = torch.zeros(3, 24, 30)
    cam[0, :, :15] = 0.8
    cam[2] = torch.rand(24, 30, generator=generator)
    truth = torch.zeros(24, 30, dtype=torch.int64)
    truth[5:20, 8:22] = 1
    truth[4] = 255
    return image, cam, truth


def test_every_control_changes_the_picture(live, inputs):
    image, cam, truth = inputs
    explorer = pamr_explorer(image, cam, NAMES, truth=truth)
    seen = [live(explorer)]
    for control, value in [
        (explorer.iterations, 3),
        (explorer.iterations, 0),
        (explorer.iterations, 20),
        (explorer.sigma, 1.0),
        (explorer.reach, "1, 2"),
        (explorer.choice, 2),
    ]:
        control.value = value
        seen.append(live(explorer))
    assert len(set(seen)) == len(seen)
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == 4 * TILE + 3 * GAP


def test_the_maps_are_those_of_pamr_in_whatever_order_the_slider_moves(inputs):
    image, cam, _ = inputs
    explorer = pamr_explorer(image, cam, NAMES)
    pixels = image[None] / 255
    for iterations in (4, 30, 7, 0, 8, 1):
        explorer.iterations.value = iterations
        wanted = pamr(pixels, cam[None], iterations=iterations)
        torch.testing.assert_close(explorer.refined(), wanted, rtol=0, atol=1e-5)
    explorer.reach.value, explorer.sigma.value, explorer.iterations.value = "only 12, 24", 0.3, 5
    wanted = pamr(pixels, cam[None], dilations=(12, 24), sigma=0.3, iterations=5)
    torch.testing.assert_close(explorer.refined(), wanted, rtol=0, atol=1e-5)


def test_iterations_are_not_computed_twice(inputs, monkeypatch):
    asked = []

    def counting(*args, **settings):
        asked.append(settings["iterations"])
        return pamr(*args, **settings)

    monkeypatch.setattr(module, "pamr", counting)
    explorer = pamr_explorer(*inputs[:2], NAMES)
    for iterations in (15, 10, 12, 15, 0):
        explorer.iterations.value = iterations
    explorer.choice.value = 2
    assert asked == [10, 5, 2]


def test_the_same_state_gives_the_same_bytes(live, inputs):
    image, cam, truth = inputs
    explorer = pamr_explorer(image, cam, NAMES, truth=truth)
    first = live(explorer)
    explorer.iterations.value = 30
    explorer.reach.value = "1"
    explorer.iterations.value = 10
    explorer.reach.value = "1, 2, 4, 8, 12, 24"
    assert live(explorer) == first


def test_the_scores_written_are_those_of_naive_counting(inputs):
    image, cam, truth = inputs
    _, captions, legend = pamr_explorer(image, cam, NAMES, truth=truth, threshold=0.4).render()
    refined = pamr(image[None] / 255, cam[None])[0, 0]

    def shares(values):
        right = extra = missed = 0
        for y in range(24):
            for x in range(30):
                if truth[y, x] != 255:
                    found, wanted = bool(values[y, x] > 0.4), bool(truth[y, x] == 1)
                    right += found and wanted
                    extra += found and not wanted
                    missed += wanted and not found
        union = right + extra + missed
        return [right / union, extra / union, missed / union]

    assert captions[2] == f"after, maximum {refined.max():.2f} stretched to 1"
    assert captions[3] == "before: IoU {:.2f}, FP {:.2f}, FN {:.2f}".format(*shares(cam[0]))
    now = shares(refined / refined.max())
    assert [text for text, _ in legend] == [f"now: IoU {now[0]:.2f}", f"FP {now[1]:.2f}", f"FN {now[2]:.2f}"]


def test_large_pictures_are_worked_on_at_a_smaller_size():
    image = torch.zeros(3, 300, 400, dtype=torch.uint8)
    image[:, :, 200:] = 200
    cam = torch.zeros(1, 300, 400)
    cam[:, :, :200] = 1
    truth = (cam[0] > 0).long()
    explorer = pamr_explorer(image, cam, ["cat"], truth=truth)
    assert explorer.refined().shape == (1, 1, 96, 128)
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.width == 4 * TILE + 3 * GAP


def test_classes_with_an_empty_map_are_not_offered(inputs):
    image, cam, _ = inputs
    assert list(pamr_explorer(image, cam, NAMES).choice.options) == [("cat", 0), ("cow", 2)]


def test_the_bundle_holds_the_live_view_and_a_static_picture(inputs):
    explorer = pamr_explorer(*inputs[:2], NAMES)
    bundle = explorer._repr_mimebundle_(include=None, exclude=None)
    assert base64.b64decode(bundle["image/png"]) == explorer.png()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.box.model_id
    assert bundle["text/plain"] == "PamrExplorer(cat, 10 iterations, dilations 1, 2, 4, 8, 12, 24, sigma 0.1)"


def test_no_output_widget_is_made(inputs):
    def children(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from children(child)

    explorer = pamr_explorer(*inputs[:2], NAMES)
    widgets = list(children(explorer.box))
    assert not any(isinstance(widget, ipywidgets.Output) for widget in widgets)
    assert sum(isinstance(widget, ipywidgets.Image) for widget in widgets) == len(explorer.pictures)


def test_the_default_settings_are_the_package_s():
    assert module.REACHES["1, 2, 4, 8, 12, 24"] == ALL
    assert all(label.removeprefix("only ") == ", ".join(map(str, d)) for label, d in module.REACHES.items())


def test_bad_arguments_are_rejected_before_a_slider_moves(inputs):
    image, cam, truth = inputs
    with pytest.raises(ValueError, match="expected 2 maps, one a name, got 3"):
        pamr_explorer(image, cam, NAMES[:2])
    with pytest.raises(ValueError, match=r"expected a map in \[0, 1\]"):
        pamr_explorer(image, 2 * cam, NAMES)
    with pytest.raises(ValueError, match=r"expected truth \(24, 30\), got \(12, 30\)"):
        pamr_explorer(image, cam, NAMES, truth=truth[:12])
    with pytest.raises(ValueError, match="not zero everywhere"):
        pamr_explorer(image, 0 * cam, NAMES)
    with pytest.raises(TypeError, match="expected a uint8 image, got float32"):
        pamr_explorer(image / 255, cam, NAMES)
