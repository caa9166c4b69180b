"""make gpu-check where there is no GPU: the same code on the CPU, so that it runs on the day when there is a card."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"
PARTS = [
    "methods", "steps", "speeds", "whole_steps", "memory", "rehearsal", "scoring", "resume", "one_process", "lesson",
]  # fmt: skip


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as where it is started: it runs other benchmarks
        spec.loader.exec_module(module)
        yield module


@pytest.mark.filterwarnings("ignore:find_unused_parameters=True was specified")
@pytest.mark.parametrize("part", PARTS)
def test_every_part_runs_on_the_cpu_and_finds_nothing_wrong(script: ModuleType, part: str, tmp_path: Path) -> None:
    assert list(script.PARTS) == PARTS
    status = script.main(["--device", "cpu", "--tiny", "--parts", part, "--out", str(tmp_path)])
    found = json.loads((tmp_path / f"{part}.json").read_text())
    assert status == 0 and found["ok"] and found["error"] is None, found
    assert found["rows"] and found["versions"]["torch"] == torch.__version__
    table = (tmp_path / "table.md").read_text()
    assert f"## {part}: as it must be" in table and "Not run" not in table
    assert all(f"| {row['what']} |" in table for row in found["rows"])


@pytest.mark.gpu
def test_on_a_gpu_the_numbers_are_right(script: ModuleType, tmp_path: Path) -> None:
    parts = "methods,steps,resume,one_process"
    assert script.main(["--parts", parts, "--out", str(tmp_path)]) == 0, (tmp_path / "table.md").read_text()


def test_wrong_numbers_are_seen(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = script.pamr
    monkeypatch.setattr(
        script, "pamr", lambda image, masks: right(image, masks) * (1 + 1e-3 * (masks.dtype.itemsize == 4))
    )
    assert script.main(["--device", "cpu", "--tiny", "--parts", "methods", "--out", str(tmp_path)]) == 1
    wrong = [row["what"] for row in json.loads((tmp_path / "methods.json").read_text())["rows"] if row["ok"] is False]
    assert wrong == ["PAMR"] and "## methods: FAILED" in (tmp_path / "table.md").read_text()


def test_a_part_that_fails_is_told_and_the_others_go_on(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def parts_so_far(check: Any) -> Iterator[Any]:
        seen.append(sorted(path.name for path in tmp_path.iterdir()))
        yield script.Row("height", 3.0, "m", "at least 2", True)

    def broken(check: Any) -> Iterator[Any]:
        yield script.Row("width", 1.0, "m")
        raise ValueError("too narrow\nmore")

    monkeypatch.setattr(script, "PARTS", {"one": parts_so_far, "two": broken, "three": parts_so_far})
    arguments = ["--device", "cpu", "--out", str(tmp_path), "--parts", "one,two,three"]
    assert script.main(arguments) == 1
    assert seen == [[], ["one.json", "table.md", "two.json"]], "written after every part"
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["error"] == "ValueError: too narrow" and [row["what"] for row in two["rows"]] == ["width"]
    table = (tmp_path / "table.md").read_text()
    assert "## two: FAILED (ValueError: too narrow)" in table and "| height | 3 | m | at least 2 | ok |" in table
    assert script.main([*arguments, "--minutes", "-1", "--parts", "one"]) == 1, "nothing was checked in time"


def test_without_a_gpu_one_line_says_so(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert script.main([]) == 0
    expected = f"gpu-check: no GPU that torch {torch.__version__} can use: nothing was checked\n"
    assert capsys.readouterr() == (expected, "") and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda:99"], "gpu-check: device: expected one that is there (cpu"),
        (["--device", "cpu", "--parts", "steps,dance"], "gpu-check: parts: expected some of methods, steps, "),
    ],
)
def test_a_wrong_argument_is_one_line(
    script: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(message) and error.count("\n") == 1
