import io
import math

import pytest
from PIL import Image

from rsepm_edu.evaluation.tables import Row
from rsepm_edu.viz.explorers import ranges_explorer
from rsepm_edu.viz.explorers.ranges import _axis, name_of

CAM = [Row("CAM", 40.0 + s, 0.4, 0.3, 0.3, True, s) for s in range(3)]
RS = [Row("RS", 44.0 + 2 * s, 0.2, 0.3, 0.3, True, s) for s in (0, 2, 3)]
PLAIN = [Row("RS", 30.0, 0.1, math.nan, None, False, 0)]
TABLES = {"drawn": [*CAM, *RS, *PLAIN], "photographs": [Row("CAM", 50.0, 0.1, 0.2, 0.3, True, 0)]}


def test_each_control_changes_the_picture_and_going_back_restores_it(live):
    explorer = ranges_explorer(TABLES)
    first = live(explorer)
    seen = {first}
    for control, value in (
        (explorer.measure, "FP"),
        (explorer.against, "CAM [oracle]"),
        (explorer.table, "photographs"),
    ):
        control.value = value
        seen.add(live(explorer))
    assert len(seen) == 4
    explorer.table.value, explorer.measure.value, explorer.against.value = "drawn", "mIoU in %", "nothing"
    assert live(explorer) == first
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == 2 * 760


def test_rows_are_told_apart_by_how_their_threshold_was_chosen():
    shown = ranges_explorer(TABLES).shown()
    assert shown == {
        "CAM [oracle]": {0: 40.0, 1: 41.0, 2: 42.0},
        "RS [oracle]": {0: 44.0, 2: 48.0, 3: 50.0},
        "RS [none]": {0: 30.0},
    }
    assert name_of(TABLES["drawn"][0]) == "CAM [oracle]"


def test_differences_are_seed_by_seed_and_only_for_common_seeds():
    explorer = ranges_explorer(TABLES)
    explorer.against.value = "CAM [oracle]"
    assert explorer.shown() == {"RS [oracle]": {0: 4.0, 2: 6.0}, "RS [none]": {0: -10.0}}
    explorer.measure.value = "FN"  # the decoder's FN is no number
    assert list(explorer.shown()) == ["RS [oracle]"]


def test_a_table_without_the_chosen_row_compares_with_nothing():
    explorer = ranges_explorer(TABLES)
    explorer.against.value = "RS [none]"
    explorer.table.value = "photographs"
    assert explorer.against.value == "nothing"
    assert explorer.against.options == ("nothing", "CAM [oracle]")
    assert repr(explorer) == "RangesExplorer(photographs, mIoU in %, minus nothing)"


def test_a_measure_that_no_row_has_leaves_an_empty_picture(live):
    explorer = ranges_explorer({"plain": PLAIN})
    explorer.measure.value = "FN"
    assert explorer.shown() == {} and live(explorer)
    explorer.against.value = "RS [none]"
    assert explorer.shown() == {} and live(explorer)


def test_a_row_minus_itself_alone_leaves_an_empty_picture(live):
    explorer = ranges_explorer({"one": TABLES["photographs"]})
    explorer.against.value = "CAM [oracle]"
    assert explorer.shown() == {} and live(explorer)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([36.9, 78.5], (30, 80, 10)),
        ([-3.2, 0.0, 5.9], (-4, 6, 2)),
        ([0.105, 0.611], (0.1, 0.7, 0.1)),
        ([47.58, 47.58], None),
    ],
)
def test_the_axis_holds_all_values_in_few_round_steps(values, expected):
    low, high, step = _axis(values)
    assert low <= min(values) and high >= max(values) and high > low
    assert round((high - low) / step) <= 11
    if expected:
        assert (low, high, step) == pytest.approx(expected)


def test_bad_arguments_are_rejected():
    with pytest.raises(ValueError, match="measure: expected one of mIoU in %, FP, FN, got 'F1'"):
        ranges_explorer(TABLES, measure="F1")
    with pytest.raises(ValueError, match="tables: expected some, with rows, got"):
        ranges_explorer({"empty": []})
