import json
import os
import re
import shlex
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from rsepm_edu import cli
from rsepm_edu.cli import demo
from rsepm_edu.cli import multistage as multistage_command
from rsepm_edu.data.palette import read_mask
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.choosing import DEFAULT_CRITERIA
from rsepm_edu.evaluation.scoring import SEEDS
from rsepm_edu.multistage.config import MultistageConfig
from rsepm_edu.training import checkpoint, loop
from rsepm_edu.training.checkpoint import load_checkpoint, read_state, save_checkpoint
from rsepm_edu.training.config import PRESETS, preset
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.step import Term

TINY = (
    *("--set", "epochs=3", "--set", "rs_start=1", "--set", "mix_start=2", "--set", "size=32"),
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


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_explains_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "--help"])
    assert exit_.value.code == 0
    capsys.readouterr()
    (commands,) = [action for action in cli.build_parser()._actions if action.dest == "command"]
    assert commands.choices is not None
    for action in commands.choices[command]._actions:  # type: ignore[call-overload]
        assert action.help, action.option_strings


def test_train_says_first_what_the_run_will_take(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--preset", "creatures-cpu", "--root", str(creatures), "--out", str(tmp_path / "run"), *TINY]
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'run' / LAST}\n"
    first = said.err.splitlines()[:3]
    assert first[0] == "8 pictures, 6 steps to go"
    assert re.fullmatch(r"memory: about \d+ MiB for a step, counted", first[1])
    assert re.fullmatch(r"time: about \d+ s, from a few steps tried: .* \(no workers\)", first[2])
    assert cli.main([*command, "--resume", "auto"]) == 0  # nothing is left to say anything about
    assert capsys.readouterr().err == ""


def test_a_dry_run_says_all_and_writes_nothing(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(creatures, tmp_path / "run", "--dry-run") == 0
    said = capsys.readouterr()
    assert re.search(r"^\* batch_size +4 +pictures per optimiser step", said.out, flags=re.MULTILINE)
    assert "\nmemory: about " in said.out and "\ntime: about " in said.out and said.err == ""
    assert not (tmp_path / "run").exists()


def test_settings_tells_what_a_preset_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["settings", "voc-t4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    changed = {line.split()[1]: line.split()[2] for line in lines if line.startswith("*")}
    assert changed == {name: str(getattr(PRESETS["voc-t4"], name)) for name in ("accumulate", "workers")}
    assert "preset: expected one of creatures-cpu" in fails(capsys, "settings", "voc")


def test_settings_tells_those_of_multistage_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["settings", "--multistage", "creatures-cpu"]) == 0
    told = capsys.readouterr().out
    assert re.findall("^=== .*$", told, flags=re.MULTILINE) == [
        *("=== between the networks", "=== walk.…, the network of the walk", "=== segmentation.…, the segmenter")
    ]
    parts = [re.findall(r"^[* ] (\w+) ", part, flags=re.MULTILINE) for part in told.split("===")[1:]]
    config = MultistageConfig.preset("creatures-cpu")
    assert [sorted(part) for part in parts] == [
        sorted(part.to_dict()) for part in (config.stages, config.walk, config.segmentation)
    ]
    assert "preset: expected one of creatures-cpu" in fails(capsys, "settings", "--multistage", "voc-t4")


def test_an_epoch_is_a_line_and_nothing_is_drawn_where_there_is_no_terminal(
    creatures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--preset", "creatures-cpu", "--root", str(creatures), *TINY, "--set", "panel_every=0"]
    assert cli.main([*command, "--out", str(tmp_path / "told")]) == 0
    told = capfd.readouterr().err
    assert "\r" not in told and "%|" not in told
    lines = told.splitlines()[3:]  # after what the run will take
    assert len(lines) == 3
    for line, begin, losses in zip(lines, ("epoch 1/3 cam", "epoch 2/3 rs", "epoch 3/3 rs"), (1, 3, 5), strict=True):
        assert line.startswith(begin) and len(re.findall(r" \w+ \d+\.\d{3}[,;]", line)) >= losses, line
    assert cli.main([*command, "--out", str(tmp_path / "quiet"), "--quiet"]) == 0
    assert capfd.readouterr() == (f"{tmp_path / 'quiet' / LAST}\n", "")


def test_a_terminal_of_80_columns_cuts_no_bar_and_no_loss_in_two(
    creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the longest phase: its name, its losses, and an epoch of hours."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    written: list[bytes] = []
    reader = threading.Thread(target=lambda: written.extend(iter(lambda: _read_terminal(screen), b"")))
    reader.start()
    command = ["train", "--preset", "creatures-cpu", "--root", str(creatures), *TINY, "--set", "panel_every=0"]
    with os.fdopen(terminal, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert cli.main([*command, "--set", "mixing=saliency-grafting", "--out", str(tmp_path / "run")]) == 0
    reader.join()
    os.close(screen)
    rows = re.split(r"[\r\n]+", b"".join(written).decode())
    assert max(map(len, rows)) <= 80
    bars = [row for row in rows if row.startswith("epoch 3/3 rs+saliency-grafting: 100%|")]
    assert bars and all(re.search(r"\d/\d \[[\d:<]+, loss=\d+\.\d{3}\]$", bar) for bar in bars), bars
    begin = next(i for i, row in enumerate(rows) if row.startswith("epoch 3/3 rs+saliency-grafting: tags "))
    assert rows[begin + 1].startswith("  mix_"), rows  # the line goes on below, in whole words
    told = " ".join(row.strip() for row in rows[begin : begin + 2])
    assert len(re.findall(r" (?:tags|cam|decoder|mix_cam|mix_decoder) \d+\.\d{3}[,;]", told)) == 5, told


def _read_terminal(screen: int) -> bytes:
    try:
        return os.read(screen, 4096)
    except OSError:  # on Linux, once nobody writes any more
        return b""


def test_out_of_memory_is_one_line(
    creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nMuch more.")

    monkeypatch.setattr(loop.Trainer, "step", full)
    assert train(creatures, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("rsepm-edu train: memory: expected 4 pictures of 32x32 at a time") and error.count("\n") == 1
    )
    assert "try --set accumulate=2 (2 at a time)" in error


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
    seeds = ("cam", "cam+pamr", "cam+scg", "cam+scg+pamr", "decoder", "decoder+pamr")
    choices = ("oracle", *DEFAULT_CRITERIA)
    assert [(row["method"], row["choice"]) for row in rows] == [
        *((seed, choice) for seed in seeds for choice in choices),
        ("decoder (arg-max)", "none"),
    ]
    assert all(row["oracle"] == (row["choice"] == "oracle") for row in rows)
    assert json.loads((tmp_path / "table.json").read_text()) == rows
    command = (tmp_path / "command.txt").read_text().strip()
    assert command == "rsepm-edu evaluate last.pt --split train --scales 1.0"
    cli.build_parser().parse_args(command.split()[1:])  # a command that can be given again


def test_the_network_of_creatures_is_asked_at_sizes_that_it_knows(run: Path, creatures: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(run / LAST), "--root", str(creatures), "--final", "--split", "train", "--quiet"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    assert "--scales 1.0,0.75,1.25" in (tmp_path / "command.txt").read_text()


def test_evaluate_takes_other_ways_to_choose(
    run: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", run / LAST, "--root", creatures, "--scales", "1.0", "--format", "json", "--quiet"]
    assert cli.main([*map(str, arguments), "--choose", "otsu,stability", "--out", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["choice"] for row in rows[:3]] == ["oracle", "otsu", "stability"]
    assert (tmp_path / "command.txt").read_text().strip().endswith("--choose otsu,stability")


def test_choose_ranks_checkpoints_of_a_folder_without_masks(
    run: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "maskless"
    shutil.copytree(creatures, root, ignore=shutil.ignore_patterns("SegmentationClass", "SegmentationObject"))
    other = tmp_path / "other.pt"
    shutil.copyfile(run / LAST, other)
    arguments = ["choose", run / LAST, other, "--root", root, "--pictures", "2", "--scales", "1.0", "--quiet"]
    assert cli.main([*map(str, arguments), "--choose", "colour,otsu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert [head.split(":")[0] for head in heads] == ["colour", "otsu"]
    ranked = [line.split() for line in lines if line.startswith("  ") and not line.startswith("    ")]
    assert [name for _, name in ranked] == [str(run / LAST), str(other)] * 2  # equals stay in the order given
    assert sum(" θ " in line for line in lines) == 2 * 2 * 6


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


def test_evaluate_tells_classes_boundaries_and_cases(
    run: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", run / LAST, "--root", creatures, "--scales", "1.0", "--quiet", "--map", "cam+pamr"]
    arguments += ["--per-class", "--boundary", "--cases", tmp_path / "cases", "--count", 2, "--out", tmp_path / "out"]
    assert cli.main([*map(str, arguments), "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"] == json.loads((tmp_path / "out" / "table.json").read_text())
    classes = json.loads((tmp_path / "out" / "per_class.json").read_text())
    assert printed["classes"] == classes
    told = [row for row in printed["rows"] if row["choice"] in ("oracle", "none")]
    assert {row["method"] for row in told} == {entry["method"] for entry in classes}
    for row in told:  # the same numbers, told by class
        mine = [entry for entry in classes if entry["method"] == row["method"] and entry["iou"] is not None]
        assert 100 * sum(entry["iou"] for entry in mine) / len(mine) == pytest.approx(row["miou"], abs=0.02)
    assert {entry["method"] for entry in classes if "boundary_iou" in entry} == {"cam+pamr"}
    assert "**cam+pamr**" in (tmp_path / "out" / "per_class.md").read_text()
    assert sorted(path.name for path in (tmp_path / "cases").iterdir()) == ["best.png", "worst.png"]
    command = (tmp_path / "out" / "command.txt").read_text().split()
    assert command[-4:] == ["--per-class", "--boundary", "--map", "cam+pamr"]
    cli.build_parser().parse_args(command[1:])


def test_evaluate_final_tells_its_boundary_alone(
    run: Path, creatures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", run / LAST, "--root", creatures, "--scales", "1.0", "--quiet", "--final", "--boundary"]
    assert cli.main([*map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("rs+epm segmentation on val") == 2 and "boundary IoU" in printed


def test_segment_writes_palette_masks_and_overlays_of_the_pictures_size(run: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"wide": (70, 41), "grey": (33, 50)}
    for name, size in sizes.items():
        Image.new("L" if name == "grey" else "RGB", size, 90).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    assert cli.main(["segment", str(run / LAST), str(tmp_path), "--out", str(out), "--scales", "1.0,0.5"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("grey.png", "grey_overlay.png", "segment.json", "wide.png", "wide_overlay.png")
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
        ((*begin, "--root", creatures, "--copy-to", picture), f"--copy-to: expected a folder, got {picture}"),
        ((*begin[:-1], picture, "--root", creatures), f"--out: expected a folder, got {picture}"),
        (("evaluate", run / LAST, "--root", creatures, "--out", picture), "--out: expected a folder, got"),
        (("evaluate", run / LAST, "--root", creatures, "--out", run), "whose config.json would be overwritten"),
        ((*begin, "--set", "epoch=3"), "got 'epoch'; did you mean epochs?"),
        ((*begin, "--set", "epochs=many"), "--set epochs: expected a value like 30, got 'many'"),
        ((*begin, "--set", "epochs=0"), "epochs: expected at least 1, got 0"),
        ((*begin, "--set", "scale=()"), "scale: expected numbers like (0.625, 1.25), got ()"),
        ((*begin, "--set", "decoder_rates=('a',)"), "decoder_rates: expected numbers like (6, 12, 18), got ('a',)"),
        ((*begin, "--set", "decoder_rates=(0,)"), "decoder_rates: expected whole numbers from 1 to 999, got (0,)"),
        ((*begin, "--set", "poly_power=1e999"), "poly_power: expected a number up to 3.4e+38, got inf"),
        ((*begin, "--root", creatures, "--device", "meta"), "device: expected one that is there (cpu"),
        ((*begin, "--root", creatures, "--device", "abacus"), "device: expected one that is there (cpu"),
        ((*begin, "--root", creatures, "--resume"), "expected a checkpoint, got no such file"),
        (("train", "--preset", "voc-gpu", "--out", out), "--root: expected the folder of the data"),
        (
            ("train", "--preset", "creatures-cpu", "--root", creatures, "--out", run),
            "expected a new folder or --resume",
        ),
        (("evaluate", picture), "expected a whole checkpoint"),
        (("evaluate", run / LAST, "--root", creatures, "--split", "test"), "expected a split"),
        (("evaluate", run / LAST, "--root", creatures, "--classes", "unicorn"), "--classes: expected names among"),
        (
            ("evaluate", run / LAST, "--root", creatures, "--scales", "1", "--boundary", "--map", "cam+crf", "--quiet"),
            "--map: expected one of cam, cam+pamr",
        ),
        (("evaluate", run / LAST, "--root", creatures, "--map", "cam"), "--map: expected with --boundary or --cases"),
        (("choose", run / LAST, "--root", creatures, "--pictures", "0"), "--pictures: expected at least 1, got 0"),
        (("choose", picture, "--root", creatures), "expected a whole checkpoint"),
        (("segment", run / LAST, tmp_path / "none.jpg", "--out", out), "expected an image, got no such file"),
        (("segment", run / LAST, creatures / "ImageSets", "--out", out), "expected a folder with JPEG or PNG files"),
        (("segment", run / LAST, picture, picture, "--out", out), "expected images with different names"),
    ]
    for arguments, message in cases:
        line = fails(capsys, *arguments)
        assert line.startswith(f"rsepm-edu {arguments[0]}: ") and message in line, line
    assert not out.exists() or not any(out.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["train"],
        *(
            ["segment", "a.pt", "b.jpg", "--out", "c", "--scales", s]
            for s in ("0", "nan", "inf", "1e99", "1000", "1,,2")
        ),
        ["choose", "a.pt", "--choose", "x"],
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1 and error.endswith("--help\n")


def test_a_loss_that_is_not_finite_is_one_line_too(
    creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(loop, "step_terms", lambda *_, **__: {"tags": Term(nothing, torch.ones(()))})
    assert train(creatures, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error == "rsepm-edu train: training stopped: loss term 'tags' is nan at step 0; none was saved yet\n"


def test_demo_trains_scores_and_draws(
    creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "ensure_creatures", lambda **_: creatures)
    small = preset("creatures-cpu", epochs=3, rs_start=1, mix_start=2, size=32, batch_size=4, decoder_channels=16)
    monkeypatch.setattr(demo, "preset", lambda name, seed, **_: replace(small, seed=seed))
    out = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(out), "--quiet"]) == 0
    printed = capsys.readouterr().out
    for row in ("tags alone: class activation maps (CAM)", "RecurSeed (RS), its own mask", "the last on new pictures"):
        assert f"\n{row}" in printed
    assert f"\nlook at: {out / 'method.png'}\n" in printed and (out / "method.png").read_bytes().startswith(b"\x89PNG")
    assert list((out / "panels").glob("*.png")) and len(list((out / "masks").glob("*.png"))) == 6
    assert (out / "table" / "table.json").is_file()
    told = "".join(f"{line}\n" for line in printed.splitlines() if "seconds" not in line)
    assert cli.main(["demo", "--out", str(out)]) == 0  # finished: told again
    assert capsys.readouterr().out == told
    assert cli.main(["demo", "--out", str(out), "--full"]) == 0
    full = capsys.readouterr().out
    assert full.endswith(told)
    for method in ("CAM", "CAM + SCG + PAMR", "RS (cam)", "RS (decoder)", "RS + EPM (decoder)"):
        assert f"\n{method} " in full and f"\n{method} " not in told
    assert f"--seed: expected 0, of the finished demo in {out}, got 1" in fails(
        capsys, "demo", "--out", out, "--seed", 1
    )
    shutil.rmtree(out / "table")  # as if it had been stopped just before its end
    assert cli.main(["demo", "--out", str(out), "--quiet"]) == 0
    again = capsys.readouterr().out
    assert again.split("seconds")[0] == printed.split("seconds")[0] and (out / "table" / "table.json").is_file()


def test_a_head_that_was_never_trained_is_not_shown(
    run: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run was to reach RS+EPM, and this is its state after one epoch of tags alone."""
    early = tmp_path / "early.pt"
    save_checkpoint(early, replace(load_checkpoint(run / LAST), epoch=1, batch=0))
    data = ("--root", creatures, "--scales", "1.0", "--quiet")
    capsys.readouterr()
    assert cli.main([*map(str, ["evaluate", early, *data, "--format", "json"])]) == 0
    assert {row["method"] for row in json.loads(capsys.readouterr().out)} == set(SEEDS)
    assert cli.main([*map(str, ["choose", early, *data, "--pictures", "2"])]) == 0
    assert "decoder" not in capsys.readouterr().out
    line = fails(capsys, "evaluate", early, *data, "--final")
    assert f"--final: expected a network whose decoder was trained, got {early}, trained as far as cam" in line
    begin = ("multistage", early, *data[:2], "--preset", "creatures-cpu", "--out", tmp_path / "out")
    line = fails(capsys, *begin, "--map", "decoder")
    assert "seed_map: expected a head that " in line and "has trained (cam), got decoder" in line


def test_a_schedule_that_never_reaches_its_method_is_refused(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ("train", "--preset", "creatures-cpu", "--root", creatures, "--out", tmp_path / "run")
    line = fails(capsys, *begin, "--set", "epochs=10", "--set", "method=rs", "--set", "mixing=none")
    assert "epochs: expected enough to reach rs (" in line and "got 10, which end in cam; change epochs" in line
    assert not (tmp_path / "run").exists()


# multistage

RUN: Any = SimpleNamespace(learnt=("cam", "decoder"))
"""Stands for a checkpoint where a preset says all else."""

SMALL = (
    *("--set", "scales=(1.0,)", "--set", "final_scales=(1.0,)", "--set", "walk_steps=4"),
    *("--set", "walk.epochs=1", "--set", "walk.size=32", "--set", "walk.batch_size=4"),
    *("--set", "segmentation.epochs=1", "--set", "segmentation.size=32", "--set", "segmentation.channels=16"),
    *("--set", "segmentation.rates=(1, 2)", "--set", "segmentation.batch_size=4"),
)


def multistage(run: Path, root: Path, out: Path, *more: str) -> list[str]:
    arguments = ["multistage", str(run / LAST), "--preset", "creatures-cpu", "--root", str(root), "--out", str(out)]
    return [*arguments, "--threshold", "0.25", "--no-skip", "--quiet", *SMALL, *more]


@pytest.fixture(scope="module")
def stages(run: Path, creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stages") / "out"
    assert cli.main(multistage(run, creatures, out)) == 0
    return out


def test_multistage_goes_through_all_stages_and_prints_their_scores(
    run: Path, creatures: Path, stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = stages / "6_deeplabv3+_boundary_0.25_crf"
    written = json.loads((last / "table" / "table.json").read_text())
    capsys.readouterr()
    assert cli.main(multistage(run, creatures, stages)) == 0  # all is there
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(last / LAST)
    assert [row["method"] for row in written] == [
        *("decoder", "decoder", "decoder + IRN walk", "decoder + IRN walk", "decoder + IRN walk + CRF"),
        *(
            "decoder + IRN walk + CRF → DeepLabv3+ (val, no tags)",
            "decoder + IRN walk + CRF → DeepLabv3+ + CRF (val, no tags)",
        ),
    ]
    assert all(f"\n{row['method']} " in printed for row in written)
    command = (last / "table" / "command.txt").read_text().strip()
    assert command.startswith(
        "rsepm-edu multistage last.pt --preset creatures-cpu --out OUT --split train --map decoder --walk boundary "
    )
    cli.build_parser().parse_args(shlex.split(command)[1:])  # a command that can be given again


def test_multistage_needs_but_a_run_data_and_a_place(
    run: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(creatures, tmp_path / "own")
    shutil.rmtree(own / "SegmentationClass")
    out = tmp_path / "out"
    assert cli.main(["multistage", str(run), "--root", str(own), "--out", str(out), "--quiet", *SMALL]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    record = json.loads((out / "1_seeds/stage.json").read_text())
    assert record["seeds"]["seed_map"] == "decoder"
    assert record["seeds"]["data"].startswith(f"{load_checkpoint(run / LAST).config.split} ")
    told = (out / "stages.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in told] == ["IRN walk", "CRF", "DeepLabv3+"]
    assert all(line.endswith((": better", " are taken")) for line in told)


def test_multistage_refuses_what_does_not_go_together(
    run: Path, creatures: Path, stages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = fails(capsys, *multistage(run, creatures, stages, "--set", "foreground=0.5"))
    assert "expected labels.foreground = " in error and " as for the files there, got 0.5 (remove the folder, " in error
    error = fails(capsys, *multistage(run, creatures, stages, "--set", "segmentation.learning_rate=fast"))
    assert "--set segmentation.learning_rate: expected a value like 0.0003, got 'fast'" in error
    assert "expected a setting (" in fails(capsys, *multistage(run, creatures, stages, "--set", "epochs=1"))
    assert "threshold: expected 0 or more" in fails(capsys, *multistage(run, creatures, tmp_path, "--threshold", "2"))
    error = fails(capsys, "multistage", run / LAST, "--preset", "voc-gpu", "--out", tmp_path)
    assert "--root: expected the folder of the data for preset voc-gpu, got none" in error
    missing = tmp_path / "none.pt"
    error = fails(capsys, "multistage", missing, "--preset", "creatures-cpu", "--out", tmp_path)
    assert f"{missing}: expected a checkpoint, got no such file" in error


WALKING = {"walk_radius", "walk_steps", "walk_scaled", "walk_clears_edges", "foreground", "background", "margins"}


def set_to_another(name: str, value: object) -> str:
    words = {
        **{"split": "val", "seed_map": "cam", "walk": "affinity", "backbone": "resnet18", "weights": "other.pth"},
        **{"head": "deeplabv2", "optimizer": "sgd", "precision": "bf16"},
    }
    if isinstance(value, str):
        return words[name.rpartition(".")[2]]
    if isinstance(value, bool):
        return str(not value)
    if isinstance(value, int):
        return str(value + 1)
    if isinstance(value, tuple):
        return repr(tuple(part / 2 if isinstance(part, float) else part + 1 for part in value))
    return "0.16"


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ([], {"segmentation.momentum"}),
        (["--walk", "affinity"], {"segmentation.momentum", "walk_clears_edges"}),
        (["--walk", "none"], {"segmentation.momentum", *WALKING}),
        (["--no-crf"], {"segmentation.momentum", "final_sigmas"}),
        (["--head", "deeplabv2"], {"segmentation.momentum", "segmentation.channels", "segmentation.separable"}),
    ],
)
def test_every_set_of_multistage_takes_effect_or_is_refused(
    tmp_path: Path, options: list[str], refused: set[str]
) -> None:
    refused = refused | {"walk.output_stride", "segmentation.output_stride"}
    base = ["multistage", LAST, "--preset", "creatures-cpu", "--out", str(tmp_path), *options]

    def settings(*more: str) -> dict[str, object]:
        return multistage_command._multistage_config(
            cli.build_parser().parse_args([*base, *more]), RUN, Path()
        ).settings()

    before = settings()
    for name, value in before.items():
        text = set_to_another(name, value)
        taken = {"walk": "--walk", "crf": "--no-crf", "skip": "--no-skip", "segmentation.head": "--head"}.get(name)
        if name in refused or (name.startswith("walk.") and "none" in options):
            with pytest.raises(UserError, match=rf"^--set {name}: expected a setting that changes something, got one "):
                settings("--set", f"{name}={text}")
        elif taken in options:
            if text not in options:
                with pytest.raises(UserError, match=rf"^--\w+, --set {name}: expected one of the two, got "):
                    settings("--set", f"{name}={text}")
        else:
            after = settings("--set", f"{name}={text}")
            differ = {other for other in before if before[other] != after[other]}
            assert str(after[name]) == text
            # AffinityNet has a preset of its own.
            assert differ == ({"walk", "walk_steps"} if name == "walk" else {name})


def test_margins_beside_both_thresholds_are_refused(tmp_path: Path) -> None:
    base = ["multistage", LAST, "--preset", "creatures-cpu", "--out", str(tmp_path)]
    given = ["--set", "foreground=0.3", "--set", "background=0.05", "--set", "margins=(0.2, 0.1)"]
    with pytest.raises(UserError, match="^--set margins: expected a setting that changes something, got one "):
        multistage_command._multistage_config(cli.build_parser().parse_args([*base, *given]), RUN, Path())


def test_what_set_says_of_multistage_is_said_once_and_like_the_options(tmp_path: Path) -> None:
    base = ["multistage", LAST, "--preset", "creatures-cpu", "--out", str(tmp_path)]

    def config(*more: str) -> object:
        return multistage_command._multistage_config(cli.build_parser().parse_args([*base, *more]), RUN, Path())

    with pytest.raises(UserError, match="^--set walk.epochs: expected one value, got 2 and 3$"):
        config("--set", "walk.epochs=2", "--set", "walk.epochs=3")
    same = [
        (("--set", "walk=affinity"), ("--walk", "affinity")),
        (("--set", "segmentation.head=deeplabv2"), ("--head", "deeplabv2")),
        (("--set", "seed_map=cam", "--set", "crf=False"), ("--map", "cam", "--no-crf")),
        (
            ("--set", "foreground=0.04", "--set", "background=0.03"),
            ("--set", "background=0.03", "--set", "foreground=0.04"),
        ),
        (("--walk", "none", "--set", "walk=none"), ("--walk", "none")),
    ]
    for first, second in same:
        assert config(*first) == config(*second)


@pytest.mark.parametrize("command", ["evaluate", "choose"])
def test_a_checkpoint_is_read_once(
    command: str, run: Path, creatures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(checkpoint, "read_state", lambda path, *more: (read.append(path), read_state(path, *more))[1])
    arguments = [command, str(run / LAST), "--root", str(creatures), "--split", "val", "--scales", "1.0", "--quiet"]
    assert cli.main(arguments) == 0 and capsys.readouterr().out
    assert read == [run / LAST]


def test_the_segmenter_segments_and_is_evaluated_like_any_network(
    stages: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = stages / "6_deeplabv3+_boundary_0.25_crf" / LAST
    arguments = [
        "evaluate",
        str(checkpoint),
        "--root",
        str(creatures),
        "--scales",
        "1.0",
        "--format",
        "json",
        "--quiet",
    ]
    capsys.readouterr()
    assert cli.main([*arguments, "--out", str(tmp_path / "table")]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["method"] == "deeplabv3+ segmentation on val" and not row["oracle"] and row["threshold"] is None
    (stored,) = [
        other
        for other in json.loads((checkpoint.parent / "table" / "table.json").read_text())
        if other["method"] == "decoder + IRN walk + CRF → DeepLabv3+ (val, no tags)"
    ]
    assert {name: row[name] for name in ("miou", "fp", "fn")} == {name: stored[name] for name in ("miou", "fp", "fn")}
    val = VocDataset(creatures, "val")
    out = tmp_path / "masks"
    picture = str(val.image_path(val.names[0]))
    assert cli.main(["segment", str(checkpoint), picture, "--out", str(out), "--scales", "1.0", "--quiet"]) == 0
    assert torch.equal(
        read_mask(out / f"{val.names[0]}.png"), read_mask(checkpoint.parent / "val" / f"{val.names[0]}.png")
    )


def test_data_without_masks_is_not_scored(
    run: Path, creatures: Path, stages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = shutil.copytree(creatures, tmp_path / "set"), shutil.copytree(stages, tmp_path / "out")
    shutil.rmtree(root / "SegmentationClass")
    shutil.rmtree(out / "6_deeplabv3+_boundary_0.25_crf" / "table")
    capsys.readouterr()
    assert cli.main(multistage(run, root, out)) == 0
    assert capsys.readouterr().out == f"{out / '6_deeplabv3+_boundary_0.25_crf' / LAST}\n"


def test_splits_that_cannot_be_scored_are_told_before_anything_is_trained(
    run: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(creatures, tmp_path / "set")
    (root / "ImageSets" / "Segmentation" / "val.txt").unlink()
    line = fails(capsys, *multistage(run, root, tmp_path / "out"))
    assert "val.txt: expected a split (" in line and line.endswith("; --evaluate none leaves these scores out\n")
    assert not (tmp_path / "out").exists()


def test_a_segmenter_has_its_boundaries_and_cases_told_too(
    stages: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", stages / "6_deeplabv3+_boundary_0.25_crf" / LAST, "--root", creatures, "--quiet"]
    arguments += ["--scales", "1.0", "--per-class", "--boundary", "--cases", tmp_path / "cases", "--count", "1"]
    assert cli.main([*map(str, arguments), "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {entry["method"] for entry in printed["classes"]} == {"deeplabv3+ segmentation on val"}
    assert all("boundary_iou" in entry for entry in printed["classes"])
    assert sorted(path.name for path in (tmp_path / "cases").iterdir()) == ["best.png", "worst.png"]
