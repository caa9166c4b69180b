import json
import re
from pathlib import Path

import pytest

from rsepm_edu.course import results
from rsepm_edu.course.results import read_published, read_tables
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.tables import overview, read_rows

ROOT = Path(__file__).parents[2]
COPIES = ROOT / "rsepm_edu" / "course" / "numbers"


def test_the_copies_in_the_package_are_those_of_the_repository():
    """If this is red: python data_scripts/publish_results.py"""
    tables = {path.parent.name: path.read_text("utf-8") for path in (ROOT / "results").glob("*/table.json")}
    assert {path.stem: path.read_text("utf-8") for path in COPIES.glob("*.json")} == tables


def test_the_tables_in_the_readme_are_those_of_the_repository():
    """If this is red: python data_scripts/publish_results.py"""
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    found = re.findall(r"<!-- RESULTS:(\w+) -->\n(.*?)<!-- END:\1 -->", page, flags=re.DOTALL)
    assert [name for name, _ in found] == ["creatures", "voc_sample_gpu", "voc_sample_gpu_mixings"]
    for name, table in found:
        assert table == overview(read_rows(ROOT / "results" / name / "table.json")), name


def test_the_repository_comes_first_and_the_copies_where_there_is_none(tmp_path):
    from_repository, from_copies = read_tables(), read_tables(tmp_path)
    assert set(from_repository) == set(from_copies) >= {"creatures", "creatures_free_seed", "voc_sample_gpu"}
    assert repr(from_repository) == repr(from_copies)  # NaN is not equal to itself
    assert repr(from_repository["creatures"]) == repr(read_rows(ROOT / "results" / "creatures" / "table.json"))


def test_a_folder_of_tables_is_read_as_it_is(tmp_path):
    (tmp_path / "mine").mkdir()
    row = {"method": "CAM", "miou": 1.0, "fp": 0.1, "fn": 0.2, "threshold": 0.3, "oracle": True, "seed": 0}
    (tmp_path / "mine" / "table.json").write_text(json.dumps([row]))
    assert [(name, rows[0].miou) for name, rows in read_tables(tmp_path).items()] == [("mine", 1.0)]
    (tmp_path / "mine" / "table.json").write_text("[{}]")
    with pytest.raises(UserError, match="expected rows with"):
        read_tables(tmp_path)


def test_published_numbers_are_whole_and_possible():
    numbers = read_published()
    keys = [(n.paper, n.table, n.split, n.method, n.backbone, n.measure) for n in numbers]
    assert len(set(keys)) == len(keys) > 100
    for number in numbers:
        fraction = number.measure in ("FP", "FN")
        assert 0 < number.value < (1 if fraction else 100), number
        assert number.supervision in ("I", "I+S")
        assert number.measure in ("FP", "FN", "F1") or number.measure.endswith("mIoU")


@pytest.mark.parametrize(
    ("table", "split", "method", "measure", "value"),
    [
        ("ablation", "train", "RS, SCG + PAMR, decoder", "mIoU", 70.7),
        ("ablation", "train", "SCG + PAMR", "FN", 0.194),
        ("mixing", "train", "RS + CutMix", "mIoU", 68.5),
        ("final segmentation, single stage", "val", "RS + EPM", "mIoU", 69.5),
        ("random walk", "train", "RS", "RW mIoU", 74.8),
    ],
)
def test_some_published_numbers_as_the_papers_have_them(table, split, method, measure, value):
    found = [
        n.value for n in read_published() if (n.table, n.split, n.method, n.measure) == (table, split, method, measure)
    ]
    assert found == [value]


def test_numbers_name_their_paper():
    assert {n.paper.split(" (")[0] for n in read_published()} == {"Puzzle-CAM", "RecurSeed + EdgePredictMix", "MARS"}
    assert results.Published.__doc__ is not None and "never ours" in results.Published.__doc__
