import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rsepm_edu.data import creature_pretext
from rsepm_edu.data.creature_drawing import CREATURES, STRANGERS
from rsepm_edu.data.creature_grounds import GROUNDS, THINGS
from rsepm_edu.data.creature_pretext import PRETEXT_TAGS, draw_pretext_picture
from rsepm_edu.data.creatures import draw_picture

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "train_pretext.py"


def test_pictures_come_again_and_are_none_of_the_courses():
    first = [draw_pretext_picture(0, index) for index in range(4)]
    again = [draw_pretext_picture(0, index) for index in range(4)]
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    pictures = {image.tobytes() for image, _ in first}
    assert len(pictures) == 4
    assert not pictures & {
        draw_picture(0, split, index)[0].tobytes() for split in ("train", "val") for index in range(4)
    }
    image, tags = first[0]
    assert image.shape == (96, 96, 3) and image.dtype == np.uint8
    assert tags.shape == (len(PRETEXT_TAGS),) and tags.dtype == np.float32


def test_no_class_of_the_course_and_no_track_is_shown(monkeypatch):
    scenes = []

    def spy(*arguments, **options):
        assert not options
        scenes.append(creature_pretext_populate(*arguments))
        return scenes[-1]

    creature_pretext_populate = creature_pretext.populate
    monkeypatch.setattr(creature_pretext, "populate", spy)
    tags = np.stack([draw_pretext_picture(1, index)[1] for index in range(40)])
    for scene, row in zip(scenes, tags, strict=True):
        labels = {creature.label for creature in scene.creatures}
        assert min(labels) >= len(CREATURES)
        assert {name for name, tag in zip(PRETEXT_TAGS, row, strict=True) if tag and name.startswith("head")} == {
            f"head of a {STRANGERS[label - len(CREATURES)]}" for label in labels
        }
        assert row[PRETEXT_TAGS.index("two or more animals")] == (len(scene.creatures) > 1)
    grounds = tags[:, [PRETEXT_TAGS.index(name) for name in GROUNDS]]
    assert (grounds.sum(axis=1) == 1).all()
    things = tags[:, [PRETEXT_TAGS.index(name) for name in THINGS]]
    assert 0 < things.mean() < 1
    assert (tags.sum(axis=0) > 0).all()


def test_a_short_run_of_the_command_gives_the_same_weights_again(tmp_path, monkeypatch, capsys):
    states = []
    for name in ("one.pt", "two.pt"):
        out = tmp_path / name
        command = [str(SCRIPT), "--out", str(out), "--pictures", "64", "--epochs", "1"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert end.value.code == 0
        states.append(torch.load(out, weights_only=True))
    assert "epoch 1/1: tag loss" in capsys.readouterr().out
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert {value.dtype for value in states[0].values()} == {torch.float16, torch.int64}

    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--pictures", "8"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("train_pretext: expected at least 32 pictures")
