"""What pages without a kernel show of an explorer is what its widgets show."""

import pytest
import torch

from rsepm_edu.viz.explorers import average_explorer, budget_explorer, cam_explorer, edge_predict_explorer
from rsepm_edu.viz.explorers.frames import frames


@pytest.fixture
def two():
    """An image of 24 pixels a side, maps of two classes, and their truth."""
    image = torch.randint(0, 256, (3, 24, 24), generator=torch.Generator().manual_seed(0)).byte()
    maps = torch.zeros(2, 24, 24)
    maps[0, 4:14, 4:14], maps[1, 10:20, 10:20] = 0.7, 0.5
    truth = torch.zeros(24, 24, dtype=torch.long)
    truth[4:12, 4:12], truth[12:20, 12:20] = 1, 2
    return image, maps, ("cat", "dog"), truth


def test_a_state_holds_what_the_widgets_show_there(two, live):
    image, maps, names, truth = two
    explorer = cam_explorer(image, maps, names, truth=truth, threshold=0.4)
    began = live(explorer)
    made = frames(explorer)
    assert live(explorer) == began and explorer.threshold.value == 0.4
    assert [(control.name, control.slider) for control in made.controls] == [("class", False), ("threshold", True)]
    assert made.states[made.start].labels == ("cat", "0.40")
    for labels in (("dog", "0.60"), ("cat", "0.65")):
        [state] = [state for state in made.states if state.labels == labels]
        explorer.choice.value, explorer.threshold.value = names.index(labels[0]), float(labels[1])
        shown = (*(made.tiles[tile] for tile in state.tiles), *(made.words[words] for words in state.words))
        assert shown == live(explorer)


def test_every_combination_is_there_once_and_every_tile_is_kept_once(two):
    image, maps, names, truth = two
    made = frames(cam_explorer(image, maps, names, truth=truth))
    assert len({state.labels for state in made.states}) == len(made.states) == 2 * 19
    assert len(set(made.tiles)) == len(made.tiles) < len(made.states) * 3
    assert made.still == []


def test_two_handles_are_two_controls(two):
    image, maps, names, truth = two
    made = frames(edge_predict_explorer(image, maps, names, truth))
    assert [control.name for control in made.controls] == ["class", "CF, from", "CF, to", "Canny, from", "Canny, to"]
    assert made.states[made.start].labels == ("cat", "0.10", "0.55", "10", "100")


def test_what_a_control_offers_may_depend_on_another():
    made = frames(budget_explorer(1000, {"cam": 1e3}))
    at = [control.name for control in made.controls].index("accumulate")
    offered = {batch: {s.labels[at] for s in made.states if s.labels[1] == batch} for batch in ("8", "32")}
    assert "32" in offered["32"] and "32" not in offered["8"]


def test_controls_that_do_not_move_are_named_and_switches_are_on_or_off():
    explorer = average_explorer()
    type(explorer).on_pages, whole = {"early": None}, type(explorer).on_pages
    try:
        made = frames(explorer)
    finally:
        type(explorer).on_pages = whole
    assert made.still == ["rate", "power", "decay"]
    assert [state.labels for state in made.states] == [("off",), ("on",)] and made.start == 1
