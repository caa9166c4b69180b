import io

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.evaluation.metrics import confusion_matrix, scores
from rsepm_edu.evaluation.thresholds import ThresholdSweep, labels_at
from rsepm_edu.viz.explorers import plane as module
from rsepm_edu.viz.explorers import plane_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE

NAMES = ["cat", "dog", "cow"]
METHODS = ["CAM", "SCG"]


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (4, 30, 40), generator=generator)  # no cow
    masks[:, :4] = 255
    maps = {name: (torch.rand(4, 3, 30, 40, generator=generator) * 20).round() / 20 for name in METHODS}
    sweeps = {name: ThresholdSweep(3) for name in METHODS}
    for name in METHODS:
        sweeps[name].update(maps[name], masks)
    images = torch.randint(60, 200, (4, 3, 30, 40), dtype=torch.uint8, generator=generator)
    examples = {
        name: {"name": name, "image": images[i], "tags": torch.ones(3), "mask": masks[i]}
        for i, name in enumerate(["cat", "dog"])
    }
    seeds = {method: {"cat": maps[method][0], "dog": maps[method][1]} for method in METHODS}
    return sweeps, examples, seeds, maps, masks


def test_each_control_changes_the_picture_and_going_back_restores_it(live, inputs):
    explorer = plane_explorer(*inputs[:3], NAMES)
    first = live(explorer)
    seen = {first}
    for control, value in ((explorer.threshold, 0.6), (explorer.method, "SCG"), (explorer.choice, "dog")):
        control.value = value
        seen.add(live(explorer))
    assert len(seen) == 4
    explorer.method.value, explorer.choice.value, explorer.threshold.value = "CAM", "cat", 0.3
    assert live(explorer) == first
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.width == 3 * TILE + 2 * GAP and png.height > TILE


def test_the_point_is_that_of_the_confusion_matrix_over_all_pictures(inputs):
    sweeps, examples, seeds, maps, masks = inputs
    explorer = plane_explorer(sweeps, examples, seeds, NAMES)
    explorer.method.value, explorer.choice.value, explorer.threshold.value = "SCG", "dog", 0.4
    wanted = scores(confusion_matrix(labels_at(maps["SCG"], 0.4), masks, 4), NAMES)
    assert explorer.point == (wanted.class_fp["dog"], wanted.class_fn["dog"])
    assert repr(explorer) == "PlaneExplorer(SCG, dog, 0.40)"


def test_the_numbers_written_are_those_of_the_set_and_of_the_picture(inputs):
    sweeps, examples, seeds, maps, masks = inputs
    tiles, captions, legend = plane_explorer(sweeps, examples, seeds, NAMES, threshold=0.4).render()
    assert {tile.shape for tile in tiles} == {(TILE, TILE, 3)}  # also for pictures that are not square
    right = extra = missed = 0
    for y in range(30):
        for x in range(40):
            values = maps["CAM"][0, :, y, x]
            found = bool(values.argmax() == 0 and values[0] > torch.tensor(0.4))
            true = int(masks[0, y, x])
            if true != 255:
                right += found and true == 1
                extra += found and true != 1
                missed += not found and true == 1
    union = right + extra + missed
    assert [text for text, _ in legend] == [
        f"right: IoU {right / union:.2f}",
        f"FP {extra / union:.2f}",
        f"FN {missed / union:.2f}",
    ]
    whole = sweeps["CAM"].at(0.4, NAMES)
    assert captions[0] == f"cat: FP {whole.class_fp['cat']:.2f}, FN {whole.class_fn['cat']:.2f}, IoU " + (
        f"{whole.iou['cat']:.2f}"
    )


def test_places_lie_in_the_tile_and_keep_their_order():
    corners = np.array([module._place(fp, fn) for fp, fn in ((0, 0), (1, 0), (0, 1))])
    assert (corners >= 0).all() and (corners <= module.FINER * TILE).all()
    assert corners[1, 0] > corners[0, 0] and corners[1, 1] == corners[0, 1]  # FP to the right
    assert corners[2, 1] < corners[0, 1] and corners[2, 0] == corners[0, 0]  # FN upwards


def test_bad_arguments_are_rejected_before_a_slider_moves(inputs):
    sweeps, examples, seeds, _, _ = inputs
    with pytest.raises(ValueError, match="threshold: expected one of"):
        plane_explorer(sweeps, examples, seeds, NAMES, threshold=0.33)
    with pytest.raises(ValueError, match=r"examples: expected some of \('dog', 'cow'\), got \('cat', 'dog'\)"):
        plane_explorer(sweeps, examples, seeds, NAMES[1:])
    with pytest.raises(ValueError, match=r"seeds: expected \('CAM', 'SCG'\), each for \('cat', 'dog'\)"):
        plane_explorer(sweeps, examples, {"CAM": seeds["CAM"]}, NAMES)
    with pytest.raises(ValueError, match="same thresholds for all, got 2 different"):
        plane_explorer(sweeps | {"SCG": ThresholdSweep(3, [0.3])}, examples, seeds, NAMES)
    cow = {"cow": examples["cat"]}
    cow_seeds = {method: {"cow": seeds[method]["cat"]} for method in METHODS}
    empty = {method: ThresholdSweep(3) for method in METHODS}
    for method in METHODS:
        empty[method].update(inputs[3][method] * torch.tensor([1.0, 1, 0])[:, None, None], inputs[4])
    with pytest.raises(ValueError, match="expected pictures of every class of the examples, got none of cow"):
        plane_explorer(empty, cow, cow_seeds, NAMES)
