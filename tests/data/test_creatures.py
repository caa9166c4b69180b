import dataclasses
import multiprocessing
import os
import runpy
import sys
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from rsepm_edu.data import creatures
from rsepm_edu.data.creature_coats import COATS
from rsepm_edu.data.creature_drawing import TRACK_CLASS, USUAL_COATS, USUAL_SHARE, head_disc, plan, render
from rsepm_edu.data.creature_grounds import GRAVEL
from rsepm_edu.data.creatures import CREATURES, draw_picture, ensure_creatures, make_creatures
from rsepm_edu.data.palette import VOID, read_mask, voc_palette
from rsepm_edu.errors import UserError

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "make_creatures.py"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def scenes(count: int, size: int = 96):
    return [plan(np.random.default_rng([7, index]), size) for index in range(count)]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory) -> Path:
    return make_creatures(tmp_path_factory.mktemp("creatures") / "set", train=30, val=5, seed=3)


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 96, 256])
def test_draw_picture_shapes_and_values(size):
    image, mask, tags = draw_picture(0, "train", 0, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert mask.shape == (size, size)
    assert mask.dtype == np.uint8
    assert tags.shape == (len(CREATURES),)
    assert tags.dtype == np.float32
    assert set(np.unique(mask)) <= {*range(len(CREATURES) + 1), VOID}
    assert image.std() > 10


def test_each_picture_is_another_one_and_comes_again():
    keys = [(0, "train", 0), (0, "train", 1), (0, "val", 0), (1, "train", 0)]
    first = [draw_picture(*key)[0].tobytes() for key in keys]
    assert len(set(first)) == len(keys)
    assert [draw_picture(*key)[0].tobytes() for key in reversed(keys)] == first[::-1]


@pytest.mark.parametrize("size", [64, 96])
def test_tags_are_the_masks_labels_and_every_creature_is_seen(size):
    for index in range(60):
        _, mask, tags = draw_picture(5, "val", index, size)
        assert set(np.flatnonzero(tags) + 1) == set(np.unique(mask)) - {0, VOID}
        assert 1 <= tags.sum() <= 3
        for label in np.flatnonzero(tags) + 1:
            assert (mask == label).mean() > 0.02


def test_labels_never_touch_without_void_between():
    for scene in scenes(40):
        _, mask = render(scene)
        padded = np.pad(mask, 1, mode="edge").astype(int)
        for dy, dx in [(0, 1), (1, 0), (1, 1), (1, -1)]:
            other = padded[1 + dy : 97 + dy, 1 + dx : 97 + dx]
            touching = (mask != other) & (mask != VOID) & (other != VOID)
            assert not touching.any()
        assert 0.02 < (mask == VOID).mean() < 0.15


def test_heads_stay_visible_and_are_about_a_fifth_of_the_creature():
    shares = []
    for scene in scenes(200):
        _, mask = render(scene)
        for creature in scene.creatures:
            head = head_disc(creature, 96)
            assert np.isin(mask[head], (creature.label + 1, VOID)).mean() > 0.8
            assert creature.head[2] >= 6
        if len(scene.creatures) == 1 and (mask[[0, -1]] == 0).all() and (mask[:, [0, -1]] == 0).all():
            shares.append(head.sum() / (mask > 0).sum())
    assert len(shares) > 5
    assert 0.15 < np.mean(shares) < 0.25


def test_a_class_shows_in_nothing_but_the_head():
    for scene in scenes(30):
        heads = np.any([head_disc(creature, 96) for creature in scene.creatures], axis=0)
        shape = render(scene)[1]
        drawn = []
        for label in range(len(CREATURES)):
            changed = tuple(dataclasses.replace(c, label=label) for c in scene.creatures)
            image, mask = render(dataclasses.replace(scene, creatures=changed))
            drawn.append(image)
            assert np.array_equal(mask == VOID, shape == VOID)
            assert np.array_equal(mask == 0, shape == 0)
        for first in range(len(CREATURES)):
            for second in range(first):
                differs = (drawn[first] != drawn[second]).any(axis=2)
                assert not differs[~heads].any()
                assert np.abs(drawn[first].astype(int) - drawn[second])[heads].mean() > 10


def test_nothing_but_labels_and_coats_depends_on_the_classes(monkeypatch):
    before = scenes(20)
    # Now the draws that gave classes 0 to 3, and 4 on the track, give 1 to 4, and 0 on the track; all wear one coat.
    monkeypatch.setattr("rsepm_edu.data.creature_drawing.USUAL_COATS", dict.fromkeys(CREATURES, ("plain", "plain")))
    plain = scenes(20)
    monkeypatch.setattr("rsepm_edu.data.creature_drawing.TRACK_CLASS", 0)
    for first, mine, yours in zip(before, plain, scenes(20), strict=True):
        assert [c.label for c in first.creatures] == [c.label for c in mine.creatures]
        assert np.array_equal(mine.ground, yours.ground)
        for one, other in zip(mine.creatures, yours.creatures, strict=True):
            assert other.label == (one.label + 1) % len(CREATURES)
            assert repr(dataclasses.replace(one, label=other.label)) == repr(other)


def test_most_of_a_class_wear_its_usual_coats_and_look_alikes_the_same():
    everyone = [creature for scene in scenes(300) for creature in scene.creatures]
    for label, name in enumerate(CREATURES):
        kinds = [creature.coat.kind for creature in everyone if creature.label == label]
        usual = np.isin(kinds, USUAL_COATS[name]).mean()
        assert abs(usual - (USUAL_SHARE + (1 - USUAL_SHARE) * 2 / len(COATS))) < 0.1
        assert len(set(kinds)) > 3  # a coat is a hint, not a proof
    assert USUAL_COATS["dotkin"] == USUAL_COATS["ringlo"]


def rail_pixels(scene) -> int:
    """Pixels of the ground that are pale and grey, as rails are, beside dark brown ones: wood."""
    colour = scene.ground
    pale = (np.ptp(colour, axis=2) < 0.12) & (colour.min(axis=2) > 0.7)
    brown = (colour[..., 0] - colour[..., 2] > 0.08) & (colour.max(axis=2) < 0.5)
    near = np.any([np.roll(brown, dy, axis=0) for dy in range(-3, 4)], axis=0)
    return int((pale & near).sum())


def test_one_class_only_on_its_own_ground_and_that_ground_only_with_it():
    on_track, elsewhere = [], []
    for scene in scenes(80):
        labels = {creature.label for creature in scene.creatures}
        if TRACK_CLASS in labels:
            assert labels == {TRACK_CLASS}
            on_track.append(rail_pixels(scene))
        else:
            elsewhere.append(rail_pixels(scene))
    assert 0.1 < len(on_track) / 80 < 0.45
    assert np.mean(np.array(on_track) > 40) > 0.9  # the largest animals hide theirs
    assert max(elsewhere) < 10


def test_coats_have_two_or_three_colours_and_the_first_is_not_the_grounds():
    for scene in scenes(40):
        for creature in scene.creatures:
            first, second, _ = creature.coat.colours
            assert creature.coat.number in (2, 3)
            assert np.linalg.norm(first - second) > 0.15
            if creature.label == TRACK_CLASS:
                assert np.linalg.norm(GRAVEL - first) > 0.25


def test_colour_alone_does_not_tell_an_animal_from_its_ground():
    """Of the pixels nearer in colour to an animal's coat than to the mean of its ground, many are ground."""
    shares = []
    for scene in scenes(60):
        picture, mask = render(scene)
        colours = np.concatenate([creature.coat.colours[: creature.coat.number] for creature in scene.creatures])
        pixels = picture / 255
        from_coat = np.linalg.norm(pixels[..., None, :] - colours, axis=-1).min(-1)
        from_ground = np.linalg.norm(pixels - pixels[mask == 0].mean(axis=0), axis=-1)
        alike = from_coat < from_ground
        shares.append((mask[alike] == 0).mean())
    assert np.mean(shares) > 0.3


def test_numbers_sizes_and_classes_vary():
    drawn = scenes(150)
    numbers = np.bincount([len(scene.creatures) for scene in drawn], minlength=4) / len(drawn)
    assert numbers[0] == 0
    assert np.allclose(numbers[1:], [0.55, 0.30, 0.15], atol=0.12)
    everyone = [creature for scene in drawn for creature in scene.creatures]
    assert np.bincount([c.label for c in everyone], minlength=5).min() > 25
    lengths = [creature.length / 96 for creature in everyone]
    assert min(lengths) < 0.40
    assert max(lengths) > 0.70
    several = [{c.label for c in scene.creatures} for scene in drawn if len(scene.creatures) > 1]
    assert 0.2 < np.mean([len(labels) > 1 for labels in several]) < 0.9
    assert {c.mirrored for c in everyone} == {True, False}


# --- on disk --------------------------------------------------------------------------------------


def test_the_set_has_vocs_layout(small_set):
    names = {
        split: (small_set / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        for split in ("train", "trainaug", "val")
    }
    assert names["train"] == [f"c{index:06d}" for index in range(30)]
    assert names["trainaug"] == names["train"]
    assert names["val"] == [f"c{100000 + index:06d}" for index in range(5)]
    assert (small_set / "classes.txt").read_text().split() == list(CREATURES)
    assert "Creatures" in (small_set / "README.txt").read_text()
    assert len(os.listdir(small_set / "JPEGImages")) == 35
    assert len(os.listdir(small_set / "SegmentationClass")) == 35

    for split, members in names.items():
        lists = [(small_set / "ImageSets" / "Main" / f"{c}_{split}.txt").read_text() for c in CREATURES]
        tags = []
        for text in lists:
            rows = [line.split(" ", 1) for line in text.splitlines()]
            assert [name for name, _ in rows] == members
            assert {flag for _, flag in rows} <= {" 1", "-1"}
            tags.append([int(flag) == 1 for _, flag in rows])
        for index, name in enumerate(members):
            image, mask, expected = draw_picture(3, "val" if split == "val" else "train", index)
            assert [float(row[index]) for row in tags] == expected.tolist()
            assert np.array_equal(read_mask(small_set / "SegmentationClass" / f"{name}.png"), mask)
            with Image.open(small_set / "JPEGImages" / f"{name}.jpg") as picture:
                assert picture.format == "JPEG"
                assert JpegImagePlugin.get_sampling(picture) == 0  # 4:4:4
                assert np.abs(np.asarray(picture).astype(int) - image).mean() < 4
    with Image.open(small_set / "SegmentationClass" / "c000000.png") as picture:
        assert picture.getpalette() == voc_palette()


def test_same_seed_same_bytes_with_any_workers_and_count(small_set, tmp_path):
    expected = contents(small_set)
    for workers in (0, 2):
        root = make_creatures(tmp_path / str(workers), train=30, val=5, seed=3, workers=workers)
        assert contents(root) == expected
    fewer = contents(make_creatures(tmp_path / "fewer", train=3, val=2, seed=3))
    pictures = {name for name in fewer if name.startswith(("JPEGImages", "SegmentationClass"))}
    assert len(pictures) == 10
    assert all(fewer[name] == expected[name] for name in pictures)
    other = contents(make_creatures(tmp_path / "other", train=3, val=2, seed=4))
    assert all(other[name] != expected[name] for name in pictures)


def test_broken_processes_are_no_obstacle(small_set, tmp_path, monkeypatch):
    def broken(jobs, workers):
        raise BrokenExecutor("a worker died")

    monkeypatch.setattr(creatures, "_in_processes", broken)
    root = make_creatures(tmp_path / "set", train=30, val=5, seed=3, workers=2)
    assert contents(root) == contents(small_set)


def test_a_daemon_draws_alone_because_it_may_have_no_children(small_set, tmp_path, monkeypatch):
    def forbidden(jobs, workers):
        raise AssertionError("daemonic processes are not allowed to have children")

    monkeypatch.setattr(creatures, "_in_processes", forbidden)
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    root = make_creatures(tmp_path / "set", train=30, val=5, seed=3, workers=2)
    assert contents(root) == contents(small_set)


def test_an_empty_folder_is_filled_and_a_finished_set_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    root = make_creatures(tmp_path / "set", train=2, val=0)
    assert (root / "ImageSets" / "Segmentation" / "val.txt").read_text() == ""
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert make_creatures(root, train=2, val=0) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert os.listdir(tmp_path) == ["set"]


def test_foreign_folders_are_refused_and_kept(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UserError, match="thesis: expected a new or empty folder .* other files"):
        make_creatures(tmp_path / "thesis", train=2, val=0)
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="file: expected a folder .* got a file"):
        make_creatures(tmp_path / "file", train=2, val=0)
    with pytest.raises(UserError, match="file"):
        make_creatures(tmp_path / "file" / "below", train=2, val=0)
    make_creatures(tmp_path / "set", train=2, val=0)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"set: expected .*'seed': 1.* got one with .*'seed': 0"):
        make_creatures(tmp_path / "set", train=2, val=0, seed=1)
    assert contents(tmp_path) == before
    assert before["thesis/chapter.txt"] == b"years of work"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": 0}, "train: expected a number from 1 to 100000, got 0"),
        ({"train": 100_001}, "train: expected"),
        ({"val": -1}, "val: expected a number from 0"),
        ({"size": 63}, "size: expected a number from 64 to 256, got 63"),
        ({"size": 257}, "size: expected"),
        ({"seed": -1}, "seed: expected a number from 0"),
        ({"workers": -1}, "workers: expected a number from 0"),
    ],
)
def test_numbers_out_of_range(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        make_creatures(tmp_path / "set", **wrong)
    assert os.listdir(tmp_path) == []


def test_draw_picture_rejects_what_it_does_not_know():
    with pytest.raises(UserError, match="split: expected one of train, val, got 'test'"):
        draw_picture(0, "test", 0)
    with pytest.raises(UserError, match="index: expected a number from 0 to 99999, got 100000"):
        draw_picture(0, "train", 100_000)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(creatures, "write_mask", full_disk)
    with pytest.raises(UserError, match="set: expected a folder to write to, got: .*No space"):
        make_creatures(tmp_path / "set", train=2, val=0)
    assert os.listdir(tmp_path) == []


def test_ensure_creatures_makes_a_set_once_for_each_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("RSEPM_EDU_DATA", str(tmp_path / "cache"))
    root = ensure_creatures(train=2, val=1, size=64)
    assert root.parent == tmp_path / "cache"
    before = contents(root)
    assert ensure_creatures(train=2, val=1, size=64) == root
    others = {
        ensure_creatures(train=3, val=1, size=64),
        ensure_creatures(train=2, val=2, size=64),
        ensure_creatures(train=2, val=1, size=65),
        ensure_creatures(train=2, val=1, size=64, seed=1),
        ensure_creatures(tmp_path / "elsewhere", train=2, val=1, size=64),
    }
    assert len(others | {root}) == 6
    assert contents(root) == before

    monkeypatch.delenv("RSEPM_EDU_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert ensure_creatures(train=2, val=1, size=64).parent == tmp_path / ".cache" / "rsepm-edu"


def test_ensure_creatures_from_many_at_once(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(ensure_creatures, tmp_path, train=8, val=2, size=64) for _ in range(4)]
        roots = {call.result() for call in calls}
    assert len(roots) == 1
    assert os.listdir(tmp_path) == [roots.pop().name]


def test_the_script(tmp_path, monkeypatch, capsys):
    command = [str(SCRIPT), str(tmp_path / "set"), "--train", "2", "--val", "1"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 0
    assert "2 pictures for training, 1 for validation" in capsys.readouterr().out
    expected = make_creatures(tmp_path / "expected", train=2, val=1)
    assert contents(tmp_path / "set") == contents(expected)

    monkeypatch.setattr(sys, "argv", [*command, "--size", "7"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 2
    message = "make_creatures: size: expected a number from 64 to 256, got 7\n"
    assert capsys.readouterr().err == message
