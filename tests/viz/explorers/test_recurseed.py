import base64
import io
from types import SimpleNamespace

import ipywidgets
import pytest
import torch
from PIL import Image

from rsepm_edu.viz.explorers import recurseed_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE

NAMES = ["cat", "dog"]


@pytest.fixture
def film():
    generator = torch.Generator().manual_seed(0)
    tags = torch.tensor([[1.0, 1], [0, 1]])
    shown = tags[None, :, :, None, None]
    labels = torch.tensor([0, 1, 2, 255])
    logits = torch.randn(3, 2, 3, 12, 12, generator=generator)
    logits[:, 1, 1] = float("-inf")
    return SimpleNamespace(
        epochs=(4, 5, 6),
        tags=tags,
        cam=torch.rand(3, 2, 2, 6, 6, generator=generator) * shown,
        rs_map=torch.rand(3, 2, 2, 12, 12, generator=generator) * shown,
        pseudo_mask=labels[torch.randint(0, 4, (3, 2, 12, 12), generator=generator)],
        probabilities=logits.softmax(dim=2),
    )


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    images = list(torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8, generator=generator))
    truths = torch.zeros(2, 24, 24, dtype=torch.int64)
    truths[0, 4:12, 4:20], truths[0, 14:20, 2:9], truths[1, 6:18, 6:18] = 1, 2, 2
    truths[:, 3] = 255
    return images, list(truths)


def test_every_control_changes_the_picture(live, film, pictures):
    explorer = recurseed_explorer(pictures[0], film, NAMES, pictures[1])
    assert list(explorer.choice.options) == [("1: cat", (0, 0)), ("1: dog", (0, 1)), ("2: dog", (1, 1))]
    seen = [live(explorer)]
    for control, value in [
        (explorer.epoch, 1),
        (explorer.epoch, 2),
        (explorer.choice, (0, 1)),
        (explorer.choice, (1, 1)),
    ]:
        control.value = value
        seen.append(live(explorer))
    assert len(set(seen)) == len(seen)
    explorer.epoch.value, explorer.choice.value = 0, (0, 0)
    assert live(explorer) == seen[0]
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == 4 * TILE + 3 * GAP


def test_the_numbers_written_are_those_of_naive_counting(film, pictures):
    explorer = recurseed_explorer(pictures[0], film, NAMES, pictures[1], epoch=5)
    explorer.choice.value = (0, 1)
    truth = pictures[1][0].tolist()
    pseudo = film.pseudo_mask[1, 0].tolist()
    scaled = torch.nn.functional.interpolate(film.probabilities[1, 0][None], size=(24, 24), mode="bilinear")[0]
    found = (scaled.argmax(0) == 2).tolist()
    counted = labelled = agreed = right = extra = missed = 0
    for y in range(24):
        for x in range(24):
            if truth[y][x] == 255:
                continue
            label = pseudo[y // 2][x // 2]
            counted += 1
            labelled += label != 255
            agreed += label == truth[y][x]
            right += found[y][x] and truth[y][x] == 2
            extra += found[y][x] and truth[y][x] != 2
            missed += truth[y][x] == 2 and not found[y][x]
    _, captions, legend = explorer.render()
    assert captions[0] == "epoch 5: CAM"
    assert captions[2] == f"pseudo mask: {labelled / counted:.0%} labelled, {agreed / labelled:.0%} right"
    union = right + extra + missed
    shares = [f"IoU {right / union:.2f}", f"FP {extra / union:.2f}", f"FN {missed / union:.2f}"]
    assert [text for text, _ in legend] == shares


def test_the_bundle_holds_the_live_view_and_a_static_picture(film, pictures):
    explorer = recurseed_explorer(pictures[0], film, NAMES, pictures[1], epoch=6)
    bundle = explorer._repr_mimebundle_(include=None, exclude=None)
    assert base64.b64decode(bundle["image/png"]) == explorer.png()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.box.model_id
    assert bundle["text/plain"] == "RecurSeedExplorer(1: cat, epoch 6)"


def test_no_output_widget_is_made(film, pictures):
    def children(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from children(child)

    explorer = recurseed_explorer(pictures[0], film, NAMES, pictures[1])
    widgets = list(children(explorer.box))
    assert not any(isinstance(widget, ipywidgets.Output) for widget in widgets)
    assert sum(isinstance(widget, ipywidgets.Image) for widget in widgets) == len(explorer.pictures)


def test_bad_arguments_are_rejected_before_a_slider_moves(film, pictures):
    images, truths = pictures
    with pytest.raises(ValueError, match="expected 2 images, 2 truths and 2 names, got 1, 2 and 2"):
        recurseed_explorer(images[:1], film, NAMES, truths)
    with pytest.raises(ValueError, match="got 2, 2 and 1"):
        recurseed_explorer(images, film, NAMES[:1], truths)
    with pytest.raises(ValueError, match="expected images and truths of one size"):
        recurseed_explorer(images, film, NAMES, [truth[:12] for truth in truths])
    with pytest.raises(ValueError, match=r"epoch: expected one of \(4, 5, 6\), got 9"):
        recurseed_explorer(images, film, NAMES, truths, epoch=9)
    with pytest.raises(TypeError, match="expected a uint8 image"):
        recurseed_explorer([image / 255 for image in images], film, NAMES, truths)
