"""rsepm-edu segment: which map, which files, and what happens to pictures that cannot be done."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rsepm_edu import cli
from rsepm_edu.cli import segment
from rsepm_edu.cli.pictures import find_pictures, plan, read_tags
from rsepm_edu.data.palette import read_mask
from rsepm_edu.errors import UserError
from rsepm_edu.files import digest
from rsepm_edu.training.checkpoint import save_checkpoint
from rsepm_edu.training.config import preset
from rsepm_edu.training.loop import Trainer

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """whole.pt, at the end of its run, and early.pt, after an epoch of tags alone."""
    folder = tmp_path_factory.mktemp("networks")
    config = preset("creatures-cpu", epochs=3, rs_start=1, mix_start=2, decoder_channels=8, decoder_rates=(1, 2))
    trainer = Trainer(config, CLASSES, torch.device("cpu"))
    with torch.no_grad():
        trainer.average.network.classifier.weight.mul_(50)
    for name, epoch in (("whole", 3), ("early", 1)):
        save_checkpoint(folder / f"{name}.pt", replace(trainer.checkpoint(), epoch=epoch))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        torch.manual_seed(number)
        pixels = torch.randint(0, 256, (40, 52, 3), dtype=torch.uint8)
        pixels[10:30, 10:30] = torch.tensor([200, 30, 30])
        Image.fromarray(pixels.numpy()).save(folder / f"p{number}.jpg")
    return folder


def run(*arguments: object) -> int:
    return cli.main(["segment", *map(str, arguments), "--scales", "1.0", "--quiet"])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("rsepm-edu segment: ")
    return error


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# which map


def test_the_choice_is_named_and_a_decoder_that_was_not_trained_is_not_chosen(
    networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, maps in (("whole", ("cam", "decoder")), ("early", ("cam",))):
        assert run(networks / f"{name}.pt", photos, "--out", tmp_path / name) == 0
        told, out = capsys.readouterr().out.splitlines()
        why = "(there are no stored scores for this checkpoint)"
        assert told.startswith(maps) and told.endswith(
            f", chosen by colour on 3 of these 3 images {why}, without masks"
        )
        assert out == str(tmp_path / name)
        assert json.loads((tmp_path / name / "segment.json").read_text())["recipe"]["map"] in (*maps, "argmax")
    line = refused(capsys, networks / "early.pt", photos, "--out", tmp_path / "x", "--map", "argmax")
    assert f"--map: expected one that {networks / 'early.pt'} was trained for (cam), got argmax" in line


@pytest.fixture
def run_with_scores(networks: Path, tmp_path: Path) -> Path:
    """whole.pt as the last.pt of a run that has scored its maps: cam + PAMR above the decoder above the others."""
    shutil.copy(networks / "whole.pt", tmp_path / "last.pt")
    scores = {("cam", False): 0.2, ("cam", True): 0.4, ("decoder", False): 0.3, ("decoder", True): 0.1}
    maps: list[dict[str, object]] = [{"recipe": {"map": "argmax"}, "score": 0.25}]
    for (name, pamr), score in scores.items():
        maps.append({"recipe": {"map": name, "pamr": pamr, "threshold": score + 0.01}, "score": score})
    said = {"checkpoint": digest(tmp_path / "last.pt"), "seen": 25, "pictures": 900, "maps": maps}
    (tmp_path / "map_scores.json").write_text(json.dumps(said))
    return tmp_path / "last.pt"


def test_the_scores_that_the_run_has_stored_decide(
    run_with_scores: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(number: int, *options: str) -> str:
        assert run(run_with_scores, photos, "--out", tmp_path / f"out{number}", *options) == 0
        return capsys.readouterr().out.splitlines()[0]

    why = ", chosen by colour on 25 of the run's 900 training images (map_scores.json), without masks"
    assert told(0) == f"cam + PAMR at θ 0.41{why}"
    assert told(1, "--no-pamr") == f"decoder at θ 0.31{why}"
    assert told(2, "--map", "decoder", "--pamr", "--crf") == f"decoder + PAMR at θ 0.11 + CRF{why}"
    assert told(3, "--threshold", "colour").endswith(", chosen by colour on 3 of these 3 images, without masks")
    stored = tmp_path / "map_scores.json"
    stored.write_text(stored.read_text().replace('"score": 0.25', '"score": 0.5'))
    assert told(4) == f"decoder (arg-max){why}"


def test_scores_of_another_state_of_the_run_do_not_count(
    run_with_scores: Path, networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(networks / "early.pt", run_with_scores)
    assert run(run_with_scores, photos, "--out", tmp_path / "out") == 0
    assert "on 3 of these 3 images (there are no stored scores for this checkpoint)" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '{"maps": [], "seen": 1, "pictures": 1}', '{"maps": [{"recipe": 3}]}'])
def test_damaged_scores_of_a_run_are_told_in_one_line(
    text: str, run_with_scores: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map_scores.json").write_text(text)
    line = refused(capsys, run_with_scores, photos, "--out", tmp_path / "out")
    assert f"{tmp_path / 'map_scores.json'}: expected the scores of a run's maps, got" in line


def test_what_is_asked_for_is_done(
    networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = tmp_path / "tags.csv"
    tags.write_text('\ufeffp0.jpg,cat\np1,"cat",owl\nanother.jpg,dog\np2\n', "utf-8")
    options = ("--map", "cam", "--pamr", "--crf", "--threshold", "0.3", "--tags", tags)
    assert run(networks / "whole.pt", photos, "--out", tmp_path / "out", *options) == 0
    assert capsys.readouterr().out.splitlines()[0] == "cam + PAMR at θ 0.30 + CRF"
    labels = [set(read_mask(tmp_path / "out" / f"p{number}.png").unique().tolist()) for number in range(3)]
    assert labels[0] == {0, 1} and labels[1] <= {0, 1, 3} and labels[2] == {0}


def test_options_that_do_not_go_together(
    networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = (networks / "whole.pt", photos, "--out", tmp_path / "out")
    assert "--threshold: expected with --map cam" in refused(capsys, *begin, "--threshold", "0.3")
    assert "--pamr: expected with --map cam" in refused(capsys, *begin, "--map", "argmax", "--pamr")
    tags = tmp_path / "tags.csv"
    for text, message in (
        ("p0,bear\n", "line 1: expected classes of cat, dog, owl, got 'bear'"),
        ("p0,cat\n\np0,dog\n", "line 3: expected each image once, got p0 again"),
        ("p0,cat\np1\n", "expected a line for every image, got none for p2.jpg"),
    ):
        tags.write_text(text)
        assert message in refused(capsys, *begin, "--tags", tags)
    assert "got: No such file" in refused(capsys, *begin, "--tags", tmp_path / "none.csv")
    assert not (tmp_path / "out").exists()


# which files


def test_no_output_lies_over_an_input_or_another_output(
    networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 20)).save(photos / "a.png")
    (tmp_path / "link").symlink_to(photos, target_is_directory=True)
    before = contents(photos)
    for out in (photos, tmp_path / "link", photos / ".." / "photos"):
        line = refused(capsys, networks / "whole.pt", photos, "--out", out)
        assert "--out: expected a folder in which no input is overwritten" in line
    shutil.copy(photos / "p0.jpg", tmp_path / "p0_overlay.jpg")
    pair = (photos / "p0.jpg", tmp_path / "p0_overlay.jpg")
    line = refused(capsys, networks / "whole.pt", *pair, "--out", tmp_path / "out")
    assert f"got p0_overlay.png from {photos / 'p0.jpg'} too" in line
    assert contents(photos) == before and not (tmp_path / "out").exists()


def test_twenty_thousand_pictures_are_planned_with_a_look_at_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    original = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path, **more: looks.append(path) or original(path, **more))
    jobs = plan([tmp_path / f"{number}.jpg" for number in range(20_000)], tmp_path / "out", [])
    assert len(jobs) == 20_000 and len(looks) == 60_000


def test_hidden_files_are_no_pictures(photos: Path) -> None:
    (photos / "._p0.jpg").write_bytes(b"what macOS leaves")
    (photos / ".hidden.png").touch()
    assert [path.name for path in find_pictures([photos])] == ["p0.jpg", "p1.jpg", "p2.jpg"]


def test_an_out_that_is_a_file(
    networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        line = refused(capsys, networks / "whole.pt", photos, "--out", out)
        assert f"--out: expected a folder, got {out}: {tmp_path / 'file'} is a file" in line and "Errno" not in line


# what cannot be done, and what is done already


def test_a_broken_picture_does_not_stop_the_others(
    networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "p1.jpg").write_bytes((photos / "p1.jpg").read_bytes()[:300])
    assert run(networks / "whole.pt", photos, "--out", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[0].startswith(f"rsepm-edu segment: {photos / 'p1.jpg'}: expected a ")
    assert said.err.splitlines()[1:] == ["rsepm-edu segment: 1 of 3 images failed"]
    assert sorted(path.name for path in (tmp_path / "out").glob("p?.png")) == ["p0.png", "p2.png"]
    assert f"{photos / 'p1.jpg'}: expected a" in refused(
        capsys, networks / "whole.pt", photos / "p1.jpg", "--out", tmp_path / "one"
    )
    assert not (tmp_path / "one").exists()


def test_what_is_done_is_not_done_again_unless_asked(
    networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, done = tmp_path / "out", []
    original: Callable[..., Any] = segment.segment_picture
    monkeypatch.setattr(segment, "segment_picture", lambda *a, **o: done.append(1) or original(*a, **o))
    begin = (networks / "whole.pt", photos, "--out", out)
    assert run(*begin) == 0 and len(done) == 3
    told = capsys.readouterr().out.splitlines()[0]
    (out / "p1_overlay.png").unlink()
    os.utime(photos / "p2.jpg", (2e9, 2e9))  # newer than its mask
    (out / ".p0.0123abcd.part.png").touch()  # of a process that was killed
    assert run(*begin) == 0 and len(done) == 5
    assert capsys.readouterr().out.splitlines()[:2] == [
        told,
        "1 of 3 images are done already (--again repeats them)",
    ]
    assert not list(out.glob(".*"))
    line = refused(capsys, *begin, "--crf")
    assert f"{out / 'segment.json'}: expected crf = False as for the masks there, got True (--again" in line
    assert "expected checkpoint = " in refused(capsys, networks / "early.pt", *begin[1:])
    assert run(*begin, "--crf", "--again") == 0 and len(done) == 8
    os.utime(out / "p0.png", (1e9, 1e9))  # as if it had been stopped before this one, made with what was asked before
    assert run(*begin, "--crf") == 0 and len(done) == 10  # with the picture that is newer still


def test_a_full_disk_is_one_line_that_says_how_far_it_came(
    networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = segment.write_mask

    def write(path: Path, labels: torch.Tensor) -> None:
        if path.stem == "p1":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        original(path, labels)

    monkeypatch.setattr(segment, "write_mask", write)
    line = refused(capsys, networks / "whole.pt", photos, "--out", tmp_path / "out")
    assert f"{tmp_path / 'out' / 'p1.png'}: expected to write a mask, got: No space left on device; 1 of 3" in line


def test_memory_that_does_not_suffice_is_told_of_the_picture(
    networks: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(segment, "segment_picture", full)
    assert run(networks / "whole.pt", photos, "--out", tmp_path / "out") == 1
    line = capsys.readouterr().err.splitlines()[0]
    assert f"{photos / 'p0.jpg'}: expected to fit into memory, got out of memory; try --longest 512, or" in line


def test_large_pictures_are_told_of_and_keep_their_size(
    networks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (300, 90), (200, 10, 10)).save(tmp_path / "wide.png")
    options = ("--map", "cam", "--threshold", "0.2", "--longest", "100")
    assert run(networks / "whole.pt", tmp_path / "wide.png", "--out", tmp_path / "out", *options) == 0
    assert "wide.png: 300×90 pixels, resized to a longer side of 100 (--longest)" in capsys.readouterr().err
    assert read_mask(tmp_path / "out" / "wide.png").shape == (90, 300)
    with Image.open(tmp_path / "out" / "wide_overlay.png") as overlay:
        assert overlay.size == (100, 30)


def test_tags_of_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_bytes(b"\xff\xfea\x00")
    with pytest.raises(UserError, match="expected lines NAME,CLASS,CLASS in UTF-8, got: "):
        read_tags(path, [], CLASSES)
