import base64
import io

import ipywidgets
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.methods.dense_crf import dense_crf_labels
from rsepm_edu.methods.random_walk import propagate, random_walk
from rsepm_edu.viz.explorers import walk as module
from rsepm_edu.viz.explorers import walk_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE

NAMES = ["cat", "dog", "cow"]


@pytest.fixture
def inputs():
    """A bright box on dark ground, maps that cover its left half and more, and an edge around it with a weak place."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(60, 90, (3, 24, 30), dtype=torch.uint8, generator=generator)
    image[:, 5:20, 8:22] += 120
    seed = torch.zeros(3, 24, 30)
    seed[0, 3:21, 4:15] = 0.8
    seed[2] = 0.6 * torch.rand(24, 30, generator=generator)
    edge = torch.zeros(12, 15)
    edge[2:10, [4, 10]] = 0.9
    edge[[2, 9], 4:11] = 0.9
    edge[5, 10] = 0.2
    truth = torch.zeros(24, 30, dtype=torch.int64)
    truth[5:20, 8:22] = 1
    truth[4] = 255
    return image, seed, edge, NAMES, truth


def test_every_control_changes_the_picture_and_going_back_restores_it(live, inputs):
    explorer = walk_explorer(*inputs)
    seen = [live(explorer)]
    for control, value in [
        (explorer.iterations, 1),
        (explorer.colour_sigma, 50.0),
        (explorer.steps, 4),
        (explorer.beta, 1.0),
        (explorer.choice, 2),
    ]:
        control.value = value
        seen.append(live(explorer))
    assert len(set(seen)) == len(seen)
    explorer.choice.value, explorer.beta.value, explorer.steps.value = 0, 10.0, 256
    explorer.colour_sigma.value, explorer.iterations.value = 5.0, 10
    assert live(explorer) == seen[0]
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == 4 * TILE + 3 * GAP


@pytest.mark.parametrize("iterations", [0, 1, 10])
@pytest.mark.parametrize("sigma", [1.0, 5.0])
def test_the_labels_are_those_of_the_crf(inputs, iterations, sigma):
    image, seed, _, _, _ = inputs
    explorer = walk_explorer(*inputs)
    explorer.iterations.value, explorer.colour_sigma.value = iterations, sigma
    labels = labels_at(seed[None], 0.3)
    assert labels.unique().tolist() == [0, 1, 3]  # 2 occurs nowhere and takes part in nothing
    numbered = torch.where(labels == 3, 2, labels)
    refined = dense_crf_labels(image[None], numbered, 3, iterations=iterations, colour_sigma=sigma)
    assert torch.equal(explorer.refined(), torch.where(refined == 2, 3, refined))


def test_the_maps_are_those_of_the_walk_in_whatever_order_the_sliders_move(inputs):
    _, seed, edge, _, _ = inputs
    explorer = walk_explorer(*inputs)
    start = F.interpolate(seed[None], (12, 15), mode="bilinear", antialias=True)
    for beta, steps in [(10.0, 4), (10.0, 256), (1.0, 16), (10.0, 64), (1.0, 1), (1.0, 64), (10.0, 0)]:
        explorer.beta.value, explorer.steps.value = beta, steps
        wanted = F.interpolate(propagate(start, edge[None, None], beta=beta, steps=steps), (24, 30), mode="bilinear")
        torch.testing.assert_close(explorer.walked(), wanted / wanted.max(), rtol=0, atol=1e-4)


def test_steps_are_not_taken_twice(inputs, monkeypatch):
    asked = []

    def counting(*args, **settings):
        asked.append((settings["beta"], settings["steps"]))
        return random_walk(*args, **settings)

    monkeypatch.setattr(module, "random_walk", counting)
    explorer = walk_explorer(*inputs)
    for steps in (16, 64, 256, 0):
        explorer.steps.value = steps
    explorer.choice.value, explorer.steps.value = 2, 16
    explorer.beta.value = 2.0
    assert asked == [(10.0, 256), (10.0, 16), (10.0, 48), (2.0, 16)]


def test_labels_are_not_refined_twice(inputs, monkeypatch):
    asked = []

    def counting(*args, **settings):
        asked.append((settings["iterations"], settings["colour_sigma"]))
        return dense_crf_labels(*args, **settings)

    monkeypatch.setattr(module, "dense_crf_labels", counting)
    explorer = walk_explorer(*inputs)
    explorer.iterations.value = 3
    explorer.iterations.value = 10
    explorer.steps.value = 4
    explorer.colour_sigma.value = 1.0
    assert asked == [(10, 5.0), (3, 5.0), (10, 1.0)]


def test_the_scores_written_are_those_of_naive_counting(inputs):
    explorer = walk_explorer(*inputs, before=0.4, after=0.5)
    _, seed, _, _, truth = inputs

    def shares(labels):
        right = extra = missed = 0
        for y in range(24):
            for x in range(30):
                if truth[y, x] != 255:
                    found, wanted = bool(labels[y, x] == 1), bool(truth[y, x] == 1)
                    right += found and wanted
                    extra += found and not wanted
                    missed += wanted and not found
        union = right + extra + missed
        return f"IoU {right / union:.2f}, FP {extra / union:.2f}, FN {missed / union:.2f}"

    _, captions, legend = explorer.render()
    assert captions[0] == f"cat: {shares(labels_at(seed[None], 0.4)[0])}"
    assert captions[1] == f"CRF: {shares(explorer.refined()[0])}"
    assert ", ".join(text for text, _ in legend) == shares(labels_at(explorer.walked(), 0.5)[0])


def test_large_pictures_are_worked_on_at_a_smaller_size():
    image = torch.zeros(3, 300, 400, dtype=torch.uint8)
    image[:, :, 200:] = 200
    seed = torch.zeros(1, 300, 400)
    seed[:, :, :200] = 1
    explorer = walk_explorer(image, seed, torch.zeros(75, 100), ["cat"], (seed[0] > 0).long())
    assert explorer.refined().shape == (1, 96, 128) and explorer.walked().shape == (1, 1, 96, 128)
    assert explorer._start.shape == (1, 1, 48, 64)


def test_a_seed_below_its_threshold_everywhere_stays_background(inputs):
    image, seed, *rest = inputs
    explorer = walk_explorer(image, 0.2 * seed, *rest)
    assert not explorer.refined().any()


def test_classes_with_an_empty_map_are_not_offered(inputs):
    assert list(walk_explorer(*inputs).choice.options) == [("cat", 0), ("cow", 2)]


def test_the_bundle_holds_the_live_view_and_a_static_picture(inputs):
    explorer = walk_explorer(*inputs)
    bundle = explorer._repr_mimebundle_(include=None, exclude=None)
    assert base64.b64decode(bundle["image/png"]) == explorer.png()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.box.model_id
    assert bundle["text/plain"] == "WalkExplorer(cat; CRF 10 times, sigma 5; walk 256 steps, beta 10)"


def test_no_output_widget_is_made(inputs):
    def children(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from children(child)

    explorer = walk_explorer(*inputs)
    widgets = list(children(explorer.box))
    assert not any(isinstance(widget, ipywidgets.Output) for widget in widgets)
    assert sum(isinstance(widget, ipywidgets.Image) for widget in widgets) == len(explorer.pictures)


def test_bad_arguments_are_rejected_before_a_slider_moves(inputs):
    image, seed, edge, names, truth = inputs
    with pytest.raises(ValueError, match="expected 2 maps, one a name, got 3"):
        walk_explorer(image, seed, edge, names[:2], truth)
    with pytest.raises(ValueError, match=r"expected a map in \[0, 1\]"):
        walk_explorer(image, 2 * seed, edge, names, truth)
    with pytest.raises(ValueError, match=r"expected an edge map HxW in \[0, 1\], got shape \(12, 15\)"):
        walk_explorer(image, seed, 2 * edge, names, truth)
    with pytest.raises(ValueError, match=r"expected an edge map HxW in \[0, 1\], got shape \(1, 12, 15\)"):
        walk_explorer(image, seed, edge[None], names, truth)
    with pytest.raises(ValueError, match=r"expected truth \(24, 30\), got \(12, 30\)"):
        walk_explorer(image, seed, edge, names, truth[:12])
    with pytest.raises(ValueError, match="not zero everywhere"):
        walk_explorer(image, 0 * seed, edge, names, truth)
    with pytest.raises(TypeError, match="expected a uint8 image, got float32"):
        walk_explorer(image / 255, seed, edge, names, truth)
