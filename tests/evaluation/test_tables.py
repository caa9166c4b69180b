import json
import math
import platform
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.metrics import scores
from rsepm_edu.evaluation.tables import (
    Row,
    Spread,
    markdown,
    overview,
    read_rows,
    summary,
    text,
    to_json,
    versions,
    write_results,
)

RESULTS = Path(__file__).parents[2] / "results"

ROWS = [
    Row("CAM", 40.1234, 0.41011, 0.2, 0.25, True, 0),
    Row("CAM", 42.0, 0.39, 0.3, 0.3, True, 1),
    Row("RS (decoder)", 52.5, 0.25, 0.2, None, False, 0),
]


def test_a_row_turns_the_fraction_into_percent_once():
    result = scores(torch.tensor([[4, 2], [1, 3]]), ["cat"])
    row = Row.from_scores("CAM", result, threshold=0.25, oracle=True, seed=3)
    assert row.miou == pytest.approx(100 * (4 / 7 + 3 / 6) / 2)
    assert (row.fp, row.fn) == pytest.approx((2 / 6, 1 / 6))
    assert (row.method, row.threshold, row.oracle, row.seed) == ("CAM", 0.25, True, 3)


def test_summary_is_mean_and_range_over_seeds():
    cam, decoder = summary(ROWS)
    assert (cam.method, cam.choice, cam.seeds) == ("CAM", "oracle", 2)
    assert cam.miou == pytest.approx((41.0617, 40.1234, 42.0))
    assert cam.fn == pytest.approx((0.25, 0.2, 0.3))
    assert (decoder.method, decoder.choice, decoder.seeds) == ("RS (decoder)", "none", 1)
    assert decoder.miou == Spread(52.5, 52.5, 52.5)


def test_rows_of_different_choices_are_never_averaged_together():
    chosen = [
        replace(ROWS[0], miou=miou, oracle=False, choice=choice) for choice, miou in (("colour", 30), ("otsu", 20))
    ]
    assert [(s.choice, s.seeds, s.miou.mean) for s in summary([ROWS[0], *chosen])] == [
        ("oracle", 1, 40.1234),
        ("colour", 1, 30),
        ("otsu", 1, 20),
    ]


def test_a_choice_and_the_word_oracle_never_contradict_one_another():
    assert [row.choice for row in ROWS] == ["oracle", "oracle", "none"]
    for oracle, choice in ((True, "colour"), (True, "none"), (False, "oracle")):
        with pytest.raises(ValueError, match=f"choice: expected 'oracle' if and only if oracle, got '{choice}'"):
            replace(ROWS[0], oracle=oracle, choice=choice)


def test_a_seed_counts_once():
    with pytest.raises(ValueError, match="got seed 0 twice for .*CAM"):
        summary([ROWS[0], ROWS[0]])


def test_text_table():
    assert text(ROWS).splitlines() == [
        "method         mIoU     FP     FN  threshold  choice  seed",
        "-" * 58,
        "CAM           40.12  0.410  0.200       0.25  oracle     0",
        "CAM           42.00  0.390  0.300       0.30  oracle     1",
        "RS (decoder)  52.50  0.250  0.200          –    none     0",
    ]


def test_markdown_table():
    lines = markdown(ROWS).splitlines()
    assert lines[:5] == [
        "| method | mIoU | FP | FN | threshold | choice | seed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| CAM | 40.12 | 0.410 | 0.200 | 0.25 | oracle | 0 |",
        "| CAM | 42.00 | 0.390 | 0.300 | 0.30 | oracle | 1 |",
        "| RS (decoder) | 52.50 | 0.250 | 0.200 | – | none | 0 |",
    ]
    assert "| CAM | oracle | 2 | 41.06 (40.12 – 42.00) | 0.400 (0.390 – 0.410) | 0.250 (0.200 – 0.300) |" in lines


def test_one_seed_is_not_told_twice():
    single = markdown([ROWS[0], ROWS[2]])
    assert "Mean over seeds" not in single and single.count("40.12") == 1
    assert "| RS (decoder) | none | 1 | 52.50 | 0.250 | 0.200 |" in markdown(ROWS)  # beside others of several seeds


def test_a_bar_in_a_name_does_not_break_the_markdown():
    assert r"| a\|b | 40.12" in markdown([replace(ROWS[0], method="a|b")])


def test_json_has_exactly_the_fields_rounded():
    assert json.loads(to_json(ROWS))[0] == {
        "method": "CAM",
        "miou": 40.12,
        "fp": 0.41,
        "fn": 0.2,
        "threshold": 0.25,
        "oracle": True,
        "seed": 0,
        "choice": "oracle",
    }
    assert json.loads(to_json(ROWS))[2]["threshold"] is None


def test_rows_without_foreground_survive_the_way_through_json(tmp_path):
    row = Row("CAM", 100.0, math.nan, math.nan, 0.8, True, 0)
    (tmp_path / "table.json").write_text(to_json([row]))
    (back,) = read_rows(tmp_path / "table.json")
    assert math.isnan(back.fp) and math.isnan(back.fn) and back.miou == 100
    assert "| CAM | 100.00 | – | – | 0.80 | oracle | 0 |" in markdown([back])


def test_tables_written_before_there_was_a_choice_are_read(tmp_path):
    rows = [*ROWS, replace(ROWS[0], oracle=False, choice="colour")]
    objects = json.loads(to_json(rows))
    for entry in objects[:3]:
        del entry["choice"]
    (tmp_path / "table.json").write_text(json.dumps(objects))
    assert [row.choice for row in read_rows(tmp_path / "table.json")] == ["oracle", "oracle", "none", "colour"]


@pytest.mark.parametrize("folder", ["creatures", "creatures_free_seed", "creatures_short_warmup", "voc_sample_gpu"])
def test_the_tables_of_the_repository_are_read(folder):
    rows = read_rows(RESULTS / folder / "table.json")
    assert rows and {row.choice for row in rows if row.oracle} == {"oracle"}


def write(folder, rows=ROWS, **changed):
    arguments = {"command": "rsepm-edu demo", "config": {"lr": 0.1, "sizes": (1, 2)}, "log": None}
    write_results(folder, rows, **{**arguments, **changed})


def test_folder_holds_all_that_belongs_to_the_table(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"step": 1}\n')
    folder = tmp_path / "results" / "creatures"
    write(folder, log=tmp_path / "train.jsonl")
    assert sorted(path.name for path in folder.iterdir()) == [
        "command.txt",
        "config.json",
        "log.jsonl",
        "table.json",
        "table.md",
        "versions.json",
    ]
    assert (folder / "command.txt").read_text() == "rsepm-edu demo\n"
    assert json.loads((folder / "config.json").read_text()) == {"lr": 0.1, "sizes": [1, 2]}
    assert (folder / "log.jsonl").read_text() == '{"step": 1}\n'
    assert json.loads((folder / "versions.json").read_text()) == versions()


def test_the_markdown_can_be_made_again_from_the_json(tmp_path):
    # 40.005 + 40.015: means of rounded and of full numbers differ, both files show the former
    rows = [replace(ROWS[0], miou=40.0049), replace(ROWS[1], miou=40.0149)]
    write(tmp_path, rows)
    again = read_rows(tmp_path / "table.json")
    assert markdown(again) == (tmp_path / "table.md").read_text(encoding="utf-8")


def test_nothing_is_written_when_something_is_wrong(tmp_path):
    write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="rows: expected at least one"):
        write(tmp_path, [])
    with pytest.raises(ValueError, match="got seed 0 twice"):
        write(tmp_path, [ROWS[0], ROWS[0]])
    with pytest.raises(UserError, match=r"train.jsonl: expected the log of the run"):
        write(tmp_path, ROWS[:1], log=tmp_path / "train.jsonl")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write(tmp_path, ROWS[:1], config={"bad": object()})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_log_already_in_its_place_stays(tmp_path):
    (tmp_path / "log.jsonl").write_text("{}\n")
    write(tmp_path, log=tmp_path / "log.jsonl")
    assert (tmp_path / "log.jsonl").read_text() == "{}\n"


def test_versions_name_no_machine():
    found = versions()
    assert list(found) == [
        "python",
        "torch",
        "torchvision",
        "numpy",
        "platform",
        "cpu_count",
        "gpu",
    ]
    assert found["torch"] == torch.__version__
    assert found["platform"] == f"{platform.system()} {platform.machine()}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "expected a JSON table of results, got"),
        ('{"method": "CAM"}', r"expected rows with \['choice', 'fn', .*got .*CAM"),
        ('[{"method": "CAM", "extra": 1}]', "expected rows with"),
        (to_json(ROWS[:1]).replace("true", "false"), "choice: expected 'oracle' if and only if oracle"),
    ],
)
def test_reading_names_the_file_and_what_came(tmp_path, content, message):
    (tmp_path / "table.json").write_text(content)
    with pytest.raises(UserError, match=rf"table\.json: {message}"):
        read_rows(tmp_path / "table.json")


def test_reading_a_missing_table(tmp_path):
    with pytest.raises(UserError, match="nothing.json: expected a JSON table"):
        read_rows(tmp_path / "nothing.json")


def test_overview_sets_the_choice_without_masks_beside_the_oracle_by_hand() -> None:
    rows = [
        Row("CAM", 40.0, 0.4, 0.2, 0.3, True, 0),
        Row("CAM", 42.0, 0.2, 0.4, 0.4, True, 1),
        Row("CAM", 39.0, 0.5, 0.1, 0.2, False, 0, "colour"),
        Row("CAM", 30.0, 0.6, 0.1, 0.2, False, 0, "otsu"),
        Row("decoder, arg-max", 51.25, 0.1, 0.3, None, False, 0),
    ]
    assert overview(rows).splitlines() == [
        "| method | mIoU, oracle θ | FP | FN | mIoU, no masks | FP | FN |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| CAM | 41.0 (40.0 – 42.0) | 0.300 (0.200 – 0.400) | 0.300 (0.200 – 0.400) | 39.0 | 0.500 | 0.100 |",
        "| decoder, arg-max | – | – | – | 51.2 | 0.100 | 0.300 |",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("miou", "41"), ("fp", True), ("fn", [1]), ("threshold", "0.3"), ("seed", 0.5), ("method", 3), ("oracle", 1)],
)
def test_a_field_of_another_kind_is_named(tmp_path: Path, name: str, value: object) -> None:
    row = {"method": "cam", "miou": 41.0, "fp": 0.1, "fn": 0.2, "threshold": 0.3, "oracle": False, "seed": 0}
    (tmp_path / "table.json").write_text(json.dumps([row | {name: value}]))
    with pytest.raises(UserError, match=rf"table.json: expected rows with numbers, names and switches, got {name} = "):
        read_rows(tmp_path / "table.json")
