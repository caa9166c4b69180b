import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rsepm_edu.data.creature_coats import COATS
from rsepm_edu.data.creature_drawing import CREATURES, STRANGERS, head_disc, owners, render
from rsepm_edu.data.creature_grounds import GROUNDS
from rsepm_edu.data.creature_pretext import LEAST_ANIMAL, PRETEXT_TAGS, draw_close_ups, pretext_scene
from rsepm_edu.data.creatures import draw_picture
from rsepm_edu.data.palette import VOID
from rsepm_edu.data.transforms import normalise
from rsepm_edu.models.backbones import build_backbone

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "train_pretext.py"


def test_close_ups_come_again_and_are_none_of_the_courses():
    first = [draw_close_ups(0, index) for index in range(4)]
    again = [draw_close_ups(0, index) for index in range(4)]
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    courses = {draw_picture(0, split, index)[0][:48, :48].tobytes() for split in ("train", "val") for index in range(4)}
    shown = {image.tobytes() for images, _ in first for image in images}
    assert len(shown) == 16 and not shown & courses
    images, tags = first[0]
    assert images.shape == (4, 48, 48, 3) and images.dtype == np.uint8
    assert tags.shape == (4, len(PRETEXT_TAGS)) and tags.dtype == np.float32


def test_close_ups_are_the_quarters_of_a_scene_of_strangers_off_the_track():
    for index in range(20):
        scene, ground = pretext_scene(3, index, 96)
        images, tags = draw_close_ups(3, index)
        picture, mask = render(scene)
        assert np.array_equal(np.concatenate([np.concatenate(images[:2], 1), np.concatenate(images[2:], 1)]), picture)
        labels = {creature.label for creature in scene.creatures}
        assert not labels or min(labels) >= len(CREATURES)
        assert (tags[:, PRETEXT_TAGS.index(ground)] == 1).all()
        # Independent of `owners`: from the mask, whose labels are heads, where no two animals have the same.
        if len(labels) == len(scene.creatures):
            for part, row in zip((mask[:48, :48], mask[:48, 48:], mask[48:, :48], mask[48:, 48:]), tags, strict=True):
                shares = [(part == label + 1).mean() for label in labels]
                border = (part == VOID).mean()
                sure = sum(share >= LEAST_ANIMAL for share in shares)
                possible = sum(share + border >= LEAST_ANIMAL for share in shares)
                assert (sure >= 1) <= row[PRETEXT_TAGS.index("an animal")] <= (possible >= 1)
                assert (sure >= 2) <= row[PRETEXT_TAGS.index("two or more animals")] <= (possible >= 2)


def test_a_head_is_named_where_most_of_it_is_seen():
    named = 0
    for index in range(30):
        scene, _ = pretext_scene(0, index, 96)
        _, tags = draw_close_ups(0, index)
        owner = owners(scene)
        for place, creature in enumerate(scene.creatures):
            seen = head_disc(creature, 96) & (owner == place)
            whole = np.pi * creature.head[2] ** 2
            name = STRANGERS[creature.label - len(CREATURES)]
            others = [other for other in scene.creatures if other is not creature and other.label == creature.label]
            if name == "blank" or others:
                continue
            for row, part in zip(tags, (seen[:48, :48], seen[:48, 48:], seen[48:, :48], seen[48:, 48:]), strict=True):
                share = part.sum() / whole
                tag = row[PRETEXT_TAGS.index(f"head with {name}")]
                assert tag == (share > 0.6)
                named += tag
    assert named > 5


def test_every_tag_occurs_and_many_close_ups_show_only_ground():
    tags = np.concatenate([draw_close_ups(1, index)[1] for index in range(150)])
    assert (tags.sum(axis=0) > 0).all()
    animal = tags[:, PRETEXT_TAGS.index("an animal")]
    assert 0.3 < animal.mean() < 0.8
    coats = tags[:, [PRETEXT_TAGS.index(f"coat with {name}") for name in COATS]]
    assert (coats.any(axis=1) == animal).all()
    assert (tags[:, [PRETEXT_TAGS.index(name) for name in GROUNDS]].sum(axis=1) == 1).all()


def test_a_short_run_of_the_command_gives_the_same_weights_again(tmp_path, monkeypatch, capsys):
    states = []
    for name in ("one.pt", "two.pt"):
        out = tmp_path / name
        command = [str(SCRIPT), "--out", str(out), "--scenes", "24", "--epochs", "1", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert end.value.code == 0
        states.append(torch.load(out, weights_only=True))
    assert "epoch 1/1: tag loss" in capsys.readouterr().out
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert {value.dtype for value in states[0].values()} == {torch.float16, torch.int64}
    random = build_backbone("creatures").state_dict()
    assert {name: value.shape for name, value in states[0].items()} == {k: v.shape for k, v in random.items()}

    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--scenes", "8"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("train_pretext: expected at least 24 scenes")


def test_the_shipped_weights_tell_strangers_that_they_have_not_seen():
    drawn = [draw_close_ups(1, index) for index in range(250)]
    images = torch.from_numpy(np.concatenate([images for images, _ in drawn])).permute(0, 3, 1, 2)
    tags = torch.from_numpy(np.concatenate([tags for _, tags in drawn]))
    fitted, unseen = slice(0, 700), slice(700, None)
    errors = {}
    for weights in ("none", "pretext"):
        torch.manual_seed(0)
        backbone = build_backbone("creatures", weights=weights).eval()
        with torch.no_grad():
            features = torch.cat([backbone(normalise(part))[-1] for part in images.split(100)])
        seen = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3)), torch.ones(len(images), 1)], dim=1)
        scaled = (seen / seen[fitted].std(dim=0).clamp(min=1e-3)).double()
        inner = scaled[fitted].T @ scaled[fitted] + 3 * torch.eye(seen.shape[1], dtype=torch.float64)
        guess = scaled[unseen] @ torch.linalg.solve(inner, scaled[fitted].T @ tags[fitted].double())
        wrong = (guess - tags[unseen]).square().mean(dim=0) / tags[unseen].var(dim=0).clamp(min=1e-3)
        coats = [number for number, name in enumerate(PRETEXT_TAGS) if name.startswith("coat with")]
        errors[weights] = float(wrong[0]), float(wrong[coats].mean())  # shares of the variance
    assert errors["pretext"][0] < 0.3 < 0.5 < errors["none"][0]
    assert errors["pretext"][1] < 0.6 * errors["none"][1]
