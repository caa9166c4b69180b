"""What is made of runs that are there: compare, report, export."""

import base64
import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from torch import Tensor

from rsepm_edu import cli
from rsepm_edu.cli import lab
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.inference import NEAR_SCALES
from rsepm_edu.evaluation.segmenting import ScoredRecipe, score_recipes
from rsepm_edu.evaluation.tables import Row, to_json
from rsepm_edu.training.checkpoint import load_network
from rsepm_edu.training.map_scores import read_map_scores
from rsepm_edu.training.run_folder import read_run, scores_without_masks

TINY = (
    *("--set", "epochs=3", "--set", "rs_start=1", "--set", "mix_start=2", "--set", "size=32"),
    *("--set", "batch_size=4", "--set", "decoder_channels=16", "--set", "decoder_rates=(1, 2)"),
)


def train(root: Path, out: Path, *more: str) -> Path:
    begin = ["train", "--preset", "creatures-cpu", "--root", str(root), "--out", str(out), "--quiet"]
    assert cli.main([*begin, *TINY, *more]) == 0
    return out


def scores_of(run: Path) -> list[ScoredRecipe]:
    found = read_map_scores(run / "last.pt")
    assert found is not None
    return found.scores


def with_scores(run: Path, miou: float) -> Path:
    rows = [Row("cam", miou, 0.2, 0.3, 0.4, oracle, 0, "oracle" if oracle else "colour") for oracle in (True, False)]
    (run / "table").mkdir()
    (run / "table" / "table.json").write_text(to_json(rows))
    return run


@pytest.fixture(scope="module")
def rs(creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_scores(train(creatures, tmp_path_factory.mktemp("runs") / "rs"), 41.25)


@pytest.fixture(scope="module")
def cam(creatures: Path, rs: Path) -> Path:
    return with_scores(train(creatures, rs.parent / "cam", "--set", "method=cam"), 37.5)


def test_a_run_leaves_the_scores_of_its_maps_by_which_segment_chooses(
    rs: Path, cam: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {recipe.map for recipe, _ in scores_of(cam)} == {"cam"}
    assert {recipe.map for recipe, _ in scores_of(rs)} == {"cam", "decoder", "argmax"}
    pictures = VocDataset(creatures, "train")
    looked_at = [(pictures[i]["image"].as_subclass(Tensor), pictures[i]["tags"]) for i in range(len(pictures))]
    again = score_recipes(
        load_network(cam / "last.pt"), looked_at, maps=("cam",), pamrs=(False, True), scales=NEAR_SCALES, pamr_stride=2
    )
    assert [recipe for recipe, _ in scores_of(cam)] == [recipe for recipe, _ in again]
    assert [score for _, score in scores_of(cam)] == pytest.approx([score for _, score in again], abs=1e-4)
    picture = pictures.image_path(pictures.names[0])
    capsys.readouterr()
    assert cli.main(["segment", str(rs / "last.pt"), str(picture), "--out", str(tmp_path), "--quiet"]) == 0
    told = capsys.readouterr().out.splitlines()[0]
    best = max(scores_of(rs), key=lambda pair: pair[1])[0]
    assert told == f"{best}, chosen by colour on 8 of the run's 8 training images (map_scores.json), without masks"


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    return error


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_compare_puts_runs_side_by_side(
    rs: Path, cam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", str(rs), str(cam), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    head, _, *rows = [cells(line) for line in printed.split("\n\n")[0].splitlines()]
    last = json.loads((rs / "log.jsonl").read_text().splitlines()[-1])["losses"]
    assert head == ["run", "epochs done", "minutes", "method", "mixing", *(f"loss {name}" for name in last)]
    assert rows[0][:2] + rows[0][3:] == ["rs", "3", "rs", "epm", *(f"{value:.3f}" for value in last.values())]
    assert rows[1][0] == "cam" and rows[1][3:5] == ["cam", "none"] and rows[1][6:] == ["–"] * (len(last) - 1)
    assert "cam     colour  41.25  FP 0.200  FN 0.300  37.50  FP 0.200  FN 0.300" in printed
    assert "no scores" not in printed
    with Image.open(tmp_path / "compare.png") as figure:
        assert figure.width > 1000
    assert "| cam | colour | 41.25  FP 0.200  FN 0.300 |" in (tmp_path / "compare.md").read_text()


def test_runs_of_the_same_name_are_told_apart(rs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(rs, tmp_path / "other" / "rs")
    shutil.rmtree(tmp_path / "other" / "rs" / "table")
    assert cli.main(["compare", str(rs), str(tmp_path / "other" / "rs")]) == 0
    printed = capsys.readouterr().out
    assert f"\n{rs.parent.name}/rs " in printed and "\nother/rs " in printed
    assert "other/rs: no scores; to add some: rsepm-edu evaluate " in printed


def test_scores_of_several_tables_are_told_apart(rs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(rs, tmp_path / "run")
    shutil.copytree(run / "table", run / "val")
    assert set(read_run(run).scores) == {(f"{t}: cam", c) for t in ("table", "val") for c in ("oracle", "colour")}
    assert scores_without_masks(read_run(rs)) == {"cam": (41.25, 0.2, 0.3)}


def test_a_log_whose_last_line_broke_off_is_read_as_far_as_it_goes(rs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(rs, tmp_path / "run")
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text()[:-20])
    assert [epoch.number for epoch in read_run(run).epochs] == [1, 2]


def test_what_is_no_run_is_one_line(rs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected the folder of a run, got no such folder" in fails(capsys, "compare", tmp_path / "none")
    assert "with config.json and log.jsonl, got another one" in fails(capsys, "report", tmp_path)
    assert "expected the folder of a run, got a file" in fails(capsys, "compare", rs / "last.pt")
    assert "expected different runs, got this one twice" in fails(capsys, "compare", rs, rs)
    assert "--out: expected a folder, got" in fails(capsys, "compare", rs, "--out", rs / "last.pt")
    assert "--out: expected an HTML file, got the folder" in fails(capsys, "report", rs, "--out", tmp_path)
    assert "--onnx: expected a file that ends in .onnx" in fails(capsys, "export", rs, "--onnx", tmp_path / "a.pt")
    for name, content, told in (
        ("log.jsonl", "[1]\n{}\n", "log.jsonl, line 1: expected an epoch of the log in JSON"),
        ("log.jsonl", '{"epoch": 1, "losses": {"a": "b"}, "seconds": 1}\n' * 2, "line 1: expected an epoch"),
        ("log.jsonl", "", "log.jsonl: expected at least one epoch that is done, got none"),
        ("config.json", "[]", "config.json: expected the settings of a run in JSON"),
        ("table/table.json", "{", "table.json: expected a JSON table of results"),
        ("panels/epoch_003.png", "no picture", "epoch_003.png: expected a readable picture"),
    ):
        run = shutil.copytree(rs, tmp_path / "run")
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(content)
        assert told in fails(capsys, "report", run, "--no-cases")
        shutil.rmtree(run)


class Page(HTMLParser):
    """Names, sources and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_is_one_page_that_needs_nothing_else(
    rs: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    arguments = ["report", str(rs), "--root", str(creatures), "--out", str(out), "--count", "2", "--scales", "1.0"]
    assert cli.main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().out == f"{out}\n" and [path.name for path in tmp_path.iterdir()] == ["page.html"]
    page = Page(out.read_text("utf-8"))
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(sources) == 1 + len(list((rs / "panels").glob("*.png"))) + 2  # curves, panels, worst and best
    for source in sources:
        assert source is not None and source.startswith("data:image/webp;base64,")
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            picture.load()
            assert picture.width > 300
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert not {tag for tag, _ in page.tags} & {"link", "script", "iframe"} and "http" not in out.read_text("utf-8")
    for told in ("cam → rs → rs+epm · 3 of 3 epochs", "41.25", "Worst of 3 images of val", "pictures per optimiser"):
        assert told in page.text


def test_report_shows_the_cam_of_a_run_without_a_decoder(cam: Path, creatures: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    begin = ["report", str(cam), "--root", str(creatures), "--out", str(out), "--count", "1", "--scales", "1.0"]
    assert cli.main([*begin, "--quiet"]) == 0
    assert "Shown: CAM with tags, cut at " in out.read_text("utf-8")


def test_report_leaves_out_what_is_not_there_and_says_so(rs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(rs, tmp_path / "<b>&run")
    shutil.rmtree(run / "table")
    shutil.rmtree(run / "panels", ignore_errors=True)
    config = json.loads((run / "config.json").read_text()) | {"backbone": "resnet50", "weights": "somewhere/else/w.pth"}
    (run / "config.json").write_text(json.dumps(config))
    assert cli.main(["report", str(run)]) == 0
    page = Page((run / "report.html").read_text("utf-8"))
    for told in ("<b>&run", "None yet:", "The run has left no panels.", "report RUN --root DATA"):
        assert told in page.text
    assert "w.pth" in page.text and "somewhere" not in page.text


def test_export_takes_the_folder_of_a_run(rs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    assert cli.main(["export", str(rs), "--onnx", str(tmp_path / "a.onnx")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.onnx'}\n" and (tmp_path / "a.onnx").stat().st_size > 100_000
    assert "expected a checkpoint, got no such file" in fails(capsys, "export", tmp_path, "--onnx", tmp_path / "b.onnx")


def test_lab_opens_the_lessons_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(lab.subprocess, "Popen", lambda c: started.append(c) or SimpleNamespace(wait=lambda: 3))
    assert cli.main(["lab", "--no-browser", "--port", "9999"]) == 3
    places = [f"--ServerApp.root_dir={Path(__file__).parents[1]}", "--LabApp.default_url=/lab/tree/notebooks"]
    assert started == [[sys.executable, "-m", "jupyterlab", *places, "--no-browser", "--port", "9999"]]


def test_lab_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_other.ipynb").touch()  # somebody else's
    with pytest.raises(UserError, match="^lab: expected the repository's folder notebooks beside the package or here"):
        lab.notebooks(tmp_path)
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    line = fails(capsys, "lab")
    assert "jupyterlab: expected it to be installed, got no such package; pip install 'jupyterlab" in line
