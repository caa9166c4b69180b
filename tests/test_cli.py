import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from rsepm_edu import cli
from rsepm_edu.data.palette import read_mask
from rsepm_edu.training import loop
from rsepm_edu.training.config import preset
from rsepm_edu.training.loop import LAST

TINY = (
    *("--set", "epochs=3", "--set", "seed_start=1", "--set", "mix_start=2", "--set", "size=32"),
    *("--set", "batch_size=4", "--set", "decoder_channels=16", "--set", "decoder_rates=(1, 2)"),
)


def train(root: Path, out: Path, *more: str) -> int:
    return cli.main(
        ["train", "--preset", "creatures-cpu", "--root", str(root), "--out", str(out), "--quiet", *TINY, *more]
    )


@pytest.fixture(scope="module")
def run(creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    assert train(creatures, out) == 0
    return out


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with exit code 2 and one line; returns the line."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    return error


@pytest.mark.parametrize("command", ["demo", "train", "evaluate", "segment"])
def test_help_explains_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "--help"])
    assert exit_.value.code == 0
    capsys.readouterr()
    (commands,) = [action for action in cli.build_parser()._actions if action.dest == "command"]
    assert commands.choices is not None
    for action in commands.choices[command]._actions:  # type: ignore[call-overload]
        assert action.help, action.option_strings


def test_train_leaves_what_a_run_leaves(run: Path) -> None:
    phases = [json.loads(line)["phase"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert phases == ["cam", "rs", "rs+epm"]
    assert (run / LAST).is_file() and list((run / "panels").glob("*.png")) and list((run / "tensorboard").iterdir())
    assert json.loads((run / "config.json").read_text())["epochs"] == 3


def test_evaluate_prints_and_writes_the_same_rows(
    run: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", run / LAST, "--root", creatures, "--scales", "1.0", "--format", "json", "--quiet"]
    assert cli.main([*map(str, arguments), "--out", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == [
        *("cam", "cam+pamr", "cam+scg", "cam+scg+pamr", "decoder", "decoder+pamr", "decoder (arg-max)")
    ]
    assert [row["oracle"] for row in rows] == [True] * 6 + [False]
    assert json.loads((tmp_path / "table.json").read_text()) == rows
    command = (tmp_path / "command.txt").read_text().strip()
    assert command == "rsepm-edu evaluate last.pt --split train --scales 1.0"
    cli.build_parser().parse_args(command.split()[1:])  # a command that can be given again


def test_evaluate_final_uses_no_tags_and_no_oracle(
    run: Path, creatures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "evaluate",
        run / LAST,
        "--root",
        creatures,
        "--final",
        "--scales",
        "1.0",
        "--format",
        "json",
        "--quiet",
    ]
    assert cli.main([*map(str, arguments)]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["method"] == "rs+epm segmentation on val" and not row["oracle"] and row["threshold"] is None


def test_segment_writes_palette_masks_and_overlays_of_the_pictures_size(run: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"wide": (70, 41), "grey": (33, 50)}
    for name, size in sizes.items():
        Image.new("L" if name == "grey" else "RGB", size, 90).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    assert cli.main(["segment", str(run / LAST), str(tmp_path), "--out", str(out), "--scales", "1.0,0.5"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("grey.png", "grey_overlay.png", "wide.png", "wide_overlay.png")
    ]
    for name, (width, height) in sizes.items():
        assert read_mask(out / f"{name}.png").shape == (height, width)
        with Image.open(out / f"{name}.png") as mask, Image.open(out / f"{name}_overlay.png") as overlay:
            assert mask.mode == "P" and overlay.mode == "RGB" and overlay.size == (width, height)


def test_what_a_user_can_get_wrong(
    run: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    picture = next((creatures / "JPEGImages").iterdir())
    begin = ("train", "--preset", "creatures-cpu", "--out", out)
    cases = [
        (("train", "--preset", "none", "--out", out), "preset: expected one of"),
        ((*begin, "--root", tmp_path), "expected a VOC devkit"),
        ((*begin, "--set", "epochs"), "--set: expected NAME=VALUE"),
        ((*begin, "--set", "epoch=3"), "--set: expected a setting"),
        ((*begin, "--set", "epochs=many"), "--set epochs: expected a value like 20, got 'many'"),
        ((*begin, "--set", "epochs=0"), "epochs: expected at least 1, got 0"),
        ((*begin, "--root", creatures, "--device", "abacus"), "device: expected cpu or a GPU that is there"),
        ((*begin, "--root", creatures, "--resume"), "expected a checkpoint, got no such file"),
        (("train", "--preset", "voc-gpu", "--out", out), "--root: expected the folder of the data"),
        (
            ("train", "--preset", "creatures-cpu", "--root", creatures, "--out", run),
            "expected a new folder or --resume",
        ),
        (("evaluate", picture), "expected a whole checkpoint"),
        (("evaluate", run / LAST, "--root", creatures, "--split", "test"), "expected a split"),
        (("evaluate", run / LAST, "--root", creatures, "--classes", "unicorn"), "--classes: expected names among"),
        (("segment", run / LAST, tmp_path / "none.jpg", "--out", out), "expected a picture, got no such file"),
        (("segment", run / LAST, creatures / "ImageSets", "--out", out), "expected a folder with JPEG or PNG files"),
        (("segment", run / LAST, picture, picture, "--out", out), "expected pictures of different names"),
    ]
    for arguments, message in cases:
        line = fails(capsys, *arguments)
        assert line.startswith(f"rsepm-edu {arguments[0]}: ") and message in line, line
    assert not out.exists() or not any(out.iterdir())


@pytest.mark.parametrize(
    "arguments", [[], ["paint"], ["train"], ["segment", "a.pt", "b.jpg", "--out", "c", "--scales", "0"]]
)
def test_wrong_options_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1 and error.endswith("--help\n")


def test_a_loss_that_is_not_finite_is_one_line_too(
    creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "plain_losses", lambda *_: {"tags": torch.tensor(float("nan"), requires_grad=True)})
    assert train(creatures, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error == "rsepm-edu train: training stopped: loss term 'tags' is nan at step 0; none was saved yet\n"


def test_demo_trains_scores_and_draws(
    creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "ensure_creatures", lambda: creatures)
    small = preset("creatures-cpu", epochs=3, seed_start=1, mix_start=2, size=32, batch_size=4, decoder_channels=16)
    monkeypatch.setattr(cli, "preset", lambda name, **changes: replace(small, **changes))
    out = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(out), "--quiet"]) == 0
    printed = capsys.readouterr().out
    for method in ("CAM", "CAM + SCG + PAMR", "RS (cam)", "RS (decoder)", "RS + EPM (decoder)"):
        assert f"\n{method} " in printed
    assert list((out / "panels").glob("*.png")) and len(list((out / "masks").glob("*.png"))) == 6
    assert (out / "table" / "table.json").is_file()
    assert "finished" in fails(capsys, "demo", "--out", out)
