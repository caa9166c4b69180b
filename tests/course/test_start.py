import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from rsepm_edu.course import start as module
from rsepm_edu.course.start import start
from rsepm_edu.data.creatures import CREATURES
from rsepm_edu.data.voc import VOC_CLASSES
from rsepm_edu.errors import UserError
from rsepm_edu.models.network import build_network
from rsepm_edu.training.checkpoint import Checkpoint, save_checkpoint
from rsepm_edu.training.config import preset


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, creatures):
    """No GPU, no VOC, and the small Creatures set in place of the whole."""
    monkeypatch.setattr(module, "ensure_creatures", lambda: creatures)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in (module.VOC_ROOT, module.VOC_NETWORK, module.VOC_PUZZLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RSEPM_EDU_DATA", str(creatures.parent / "nothing"))


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """A devkit of VOC's twenty classes with two pictures and no masks."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("a\nb\n")
    for name in VOC_CLASSES:
        (root / f"ImageSets/Main/{name}_train.txt").write_text("a  1\nb -1\n")
    for name in ("a", "b"):
        (root / f"JPEGImages/{name}.jpg").write_bytes(b"")
    monkeypatch.setenv(module.VOC_ROOT, str(tmp_path))
    return root


def test_it_prints_what_is_used_and_returns_it(capsys, creatures):
    course = start("01")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Lesson 01, seed 0"
    assert lines[1].startswith("rsepm-edu ") and f"torch {torch.__version__}" in lines[1]
    assert lines[2] == "Device: CPU, no GPU found (enough for this lesson)"
    assert lines[3].startswith("Data: creatures, 5 classes, in ") and len(lines) == 4
    assert (course.lesson, course.dataset, course.root, course.seed) == (
        "01",
        "creatures",
        creatures,
        0,
    )
    assert course.classes == CREATURES and course.device == torch.device("cpu")
    assert set(course.versions) == {"rsepm-edu", "Python", "torch", "torchvision", "numpy"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        course.seed = 1


def test_the_home_folder_is_not_printed(capsys, monkeypatch, creatures):
    monkeypatch.setattr(Path, "home", lambda: creatures.parent)
    start()
    printed = capsys.readouterr().out
    assert printed.endswith(f"in ~/{creatures.name}\n") and str(creatures.parent) not in printed


def test_the_seed_is_set():
    start(seed=3)
    first = torch.rand(2)
    start(seed=3)
    assert torch.equal(first, torch.rand(2))
    start(seed=4)
    assert not torch.equal(first, torch.rand(2))


def test_a_gpu_is_used_where_there_is_one(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert start().device == torch.device("cuda")
    assert "Device: GPU, Tesla T4" in capsys.readouterr().out


def test_pictures_come_with_tags_and_masks():
    course = start()
    pictures = course.pictures()
    assert len(pictures) == 3 and set(pictures[0]) == {"name", "image", "tags", "mask"}
    assert len(course.pictures("train")) == 8


def test_the_network_of_creatures_comes_with_the_package():
    network = start().network()
    assert network.classes == CREATURES and not network.training
    with torch.inference_mode():
        outputs = network(torch.zeros(2, 3, 64, 64), decode=False)
    assert outputs.cam.shape == (2, 5, 16, 16) and outputs.seg_logits is None


def test_voc_is_found_below_the_folder_that_is_named(voc, capsys):
    course = start("01", dataset="voc")
    assert course.root == voc and course.classes == VOC_CLASSES
    assert course.pictures().split == "train"
    assert "slow on photographs" in capsys.readouterr().out


def test_voc_takes_its_network_from_a_checkpoint(voc, tmp_path, monkeypatch):
    config = preset("creatures-cpu", method="cam", batch_size=8)
    network = build_network("creatures", VOC_CLASSES, decoder_channels=48, separable=True)
    state = network.state_dict()
    checkpoint = Checkpoint(
        config=config,
        classes=VOC_CLASSES,
        epoch=1,
        network=state,
        ema=state,
        optimizer={},
        scaler={},
    )
    save_checkpoint(tmp_path / "last.pt", checkpoint)
    monkeypatch.setenv(module.VOC_NETWORK, str(tmp_path / "last.pt"))
    loaded = start(dataset="voc").network()
    assert loaded.classes == VOC_CLASSES and not loaded.training
    assert torch.equal(loaded.classifier.weight, network.classifier.weight)
    # A run of its tags alone: a lesson goes on from it through all phases.
    assert start(dataset="voc").settings() == dataclasses.replace(config, method="rs", mixing="epm", weights="none")


def test_voc_has_a_network_of_puzzle_cam_of_its_own_or_says_what_stands_in(voc, tmp_path, monkeypatch, capsys):
    config = preset("creatures-cpu", method="cam", batch_size=8)
    for folder in ("cam", "puzzle"):
        state = build_network("creatures", VOC_CLASSES, decoder_channels=48, separable=True).state_dict()
        checkpoint = Checkpoint(config, VOC_CLASSES, 1, network=state, ema=state, optimizer={}, scaler={})
        save_checkpoint(tmp_path / folder / "last.pt", checkpoint)
    monkeypatch.setenv(module.VOC_NETWORK, str(tmp_path / "cam" / "last.pt"))
    course = start(dataset="voc")
    weights = course.network().classifier.weight
    assert "Puzzle-CAM" not in capsys.readouterr().out
    assert torch.equal(course.network("creatures_puzzle").classifier.weight, weights)
    assert "RSEPM_EDU_VOC_PUZZLE names no network trained with Puzzle-CAM" in capsys.readouterr().out
    monkeypatch.setenv(module.VOC_PUZZLE, str(tmp_path / "puzzle" / "last.pt"))
    assert not torch.equal(course.network("creatures_puzzle").classifier.weight, weights)
    assert torch.equal(course.network().classifier.weight, weights)
    assert "Puzzle-CAM" not in capsys.readouterr().out


def test_the_settings_of_creatures_are_the_preset():
    assert start().settings() == preset("creatures-cpu")


def test_voc_is_fetched_only_when_asked_and_missing(voc, tmp_path, monkeypatch, creatures):
    asked = []
    monkeypatch.setattr(module, "get_voc", lambda root: asked.append(root) or voc)
    assert start(dataset="voc", download=True).root == voc  # the one that RSEPM_EDU_VOC names
    assert start(dataset="creatures", download=True).root == creatures
    assert asked == []
    kept = tmp_path / "kept"
    monkeypatch.delenv(module.VOC_ROOT)
    monkeypatch.setenv("RSEPM_EDU_DATA", str(kept))
    with pytest.raises(UserError, match="download=True"):
        start(dataset="voc")
    assert asked == []
    assert start(dataset="voc", download=True).root == voc
    assert asked == [kept / "voc"]
    shutil.copytree(voc, kept / "voc" / "VOCdevkit" / "VOC2012")  # as get_voc leaves it
    assert start(dataset="voc").root == kept / "voc" / "VOCdevkit" / "VOC2012"
    assert start(dataset="voc", download=True).root == kept / "voc" / "VOCdevkit" / "VOC2012"
    assert len(asked) == 1


def test_mistakes_are_one_clear_line(voc, monkeypatch, creatures):
    with pytest.raises(UserError, match="dataset: expected creatures or voc, got 'coco'"):
        start(dataset="coco")
    with pytest.raises(UserError, match="RSEPM_EDU_VOC_NETWORK: expected this .* last.pt"):
        start(dataset="voc").network()
    monkeypatch.setenv(module.VOC_ROOT, str(creatures / "ImageSets"))
    with pytest.raises(UserError, match="ImageSets: expected a VOC devkit"):
        start(dataset="voc")
    monkeypatch.delenv(module.VOC_ROOT)
    with pytest.raises(UserError, match="RSEPM_EDU_VOC: expected this .* PASCAL VOC 2012") as error:
        start(dataset="voc")
    assert "\n" not in str(error.value)


def test_a_network_for_other_classes_is_rejected(tmp_path, monkeypatch, creatures):
    other = shutil.copytree(creatures, tmp_path / "other")
    names = ["a", "b", "c", "d", "e"]
    (other / "classes.txt").write_text("\n".join(names))
    monkeypatch.setattr(module, "ensure_creatures", lambda: other)
    with pytest.raises(UserError, match="network: expected the classes a, b, c, d, e of .* zebbo"):
        start().network()
