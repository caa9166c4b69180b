import json
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from rsepm_edu.course.networks import load_lesson_network
from rsepm_edu.data.palette import read_mask
from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.thresholds import ThresholdSweep
from rsepm_edu.methods.random_walk import affinity_labels
from rsepm_edu.models.affinity import WalkNetwork
from rsepm_edu.models.backbones import build_backbone
from rsepm_edu.multistage import labelled, walk
from rsepm_edu.multistage.labelled import LabelledDataset
from rsepm_edu.multistage.walk import (
    WALK_PRESETS,
    Kind,
    WalkConfig,
    build_walk_network,
    load_walk_network,
    pair_loss,
    train_walk,
    walk_labels,
)
from rsepm_edu.training.loop import NotFiniteError

VOID = 255


@pytest.fixture(scope="module")
def tiny_walk() -> WalkConfig:
    """Three epochs of two steps."""
    return WalkConfig(
        radius=3,
        backbone="creatures",
        weights="none",
        epochs=3,
        learning_rate=0.5,
        batch_size=4,
        size=32,
        scale=(0.5, 1.0),
        workers=0,
    )


@pytest.fixture(scope="module")
def oracle_labels(creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ORACLE: labels from the masks, which only a test may use, to see whether anything is learnt from labels."""
    return shutil.copytree(creatures / "SegmentationClass", tmp_path_factory.mktemp("oracle") / "labels")


def run(config: WalkConfig, root: Path, labels: Path, out: Path, **settings: Any) -> WalkNetwork:
    kind = settings.pop("kind", "boundary")
    return train_walk(config, kind, root, "train", labels, out, device="cpu", progress=False, **settings)


@pytest.fixture(scope="module")
def straight(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("straight")
    run(tiny_walk, creatures, oracle_labels, out)
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def same_weights(first: Path, second: Path) -> bool:
    states = [load_walk_network(out / "last.pt").state_dict() for out in (first, second)]
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as info:
        call()
    assert "\n" not in str(info.value)
    return str(info.value)


# labels


def test_labels_of_two_passes_are_put_together() -> None:
    images = torch.zeros(1, 3, 1, 5, dtype=torch.uint8)
    seed = torch.tensor([[[[0.9, 0.3, 0.06, 0.05, 0.0]], [[0.1, 0.31, 0.02, 0.01, 0.0]]]])
    seen = []

    def refine(pictures: Tensor, labels: Tensor) -> Tensor:
        assert pictures is images
        seen.append(labels.flatten().tolist())
        return labels.flip(-1)

    labels = walk_labels(images, seed, refine)
    assert seen == [[1, 2, 0, 0, 0], [1, 2, 1, 0, 0]]
    assert labels.flatten().tolist() == [0, 0, VOID, 2, 1]
    assert walk_labels(images, seed, lambda _, labels: labels, foreground=0.9, background=0.0).flatten().tolist() == [
        VOID, VOID, VOID, VOID, 0
    ]  # fmt: skip


@pytest.mark.parametrize(("background", "foreground"), [(0.3, 0.3), (-0.1, 0.3), (0.1, 1.0)])
def test_thresholds_that_leave_no_void_are_refused(background: float, foreground: float) -> None:
    with pytest.raises(ValueError, match="^expected 0 <= background < foreground < 1, got "):
        walk_labels(
            torch.zeros(1, 3, 2, 2),
            torch.zeros(1, 1, 2, 2),
            lambda _, x: x,
            foreground=foreground,
            background=background,
        )


def test_labels_take_the_place_of_masks(creatures: Path, tmp_path: Path) -> None:
    root, labels = shutil.copytree(creatures, tmp_path / "set"), tmp_path / "labels"
    shutil.move(root / "SegmentationClass", labels)  # training must not miss the masks
    dataset = LabelledDataset(root, "train", labels)
    name = dataset.names[2]
    assert torch.equal(dataset[2]["mask"].as_subclass(Tensor), read_mask(labels / f"{name}.png"))
    (labels / f"{name}.png").unlink()
    message = error_of(lambda: LabelledDataset(root, "train", labels))
    assert message == f"{labels / name}.png: expected labels of a picture of train, got no such file"


def test_labels_are_those_of_the_upright_photograph(creatures: Path, tmp_path: Path) -> None:
    """The stages before have seen it upright; only masks of data sets belong to the pixels as they are stored."""
    root, labels = shutil.copytree(creatures, tmp_path / "set"), tmp_path / "labels"
    shutil.copytree(root / "SegmentationClass", labels)
    name = VocDataset(root, "train").names[2]
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    with Image.open(root / "JPEGImages" / f"{name}.jpg") as picture:
        picture.save(root / "JPEGImages" / f"{name}.jpg", exif=exif)
    stored = read_mask(labels / f"{name}.png")
    assert torch.equal(LabelledDataset(root, "train", labels)[2]["mask"].as_subclass(Tensor), stored)
    masks = VocDataset(root, "train", masks=True)
    assert torch.equal(masks[2]["mask"].as_subclass(Tensor), stored.flip(0, 1))


# training


def test_presets_are_settings_that_pass_the_checks() -> None:
    assert WALK_PRESETS["voc-gpu"] == WalkConfig()
    assert WALK_PRESETS["creatures-cpu"].backbone == "creatures"
    assert WALK_PRESETS["voc-sample-cpu"].backbone == "mobilenet_v2"


def test_a_run_leaves_settings_log_and_a_checkpoint(straight: Path, tiny_walk: WalkConfig) -> None:
    assert {path.name for path in straight.iterdir()} == {"config.json", "log.jsonl", "last.pt"}
    assert WalkConfig.from_dict(json.loads((straight / "config.json").read_text())) == tiny_walk
    assert [row["epoch"] for row in rows(straight)] == [1, 2, 3]
    for index, row in enumerate(rows(straight)):
        last_step = 2 * index + 1  # of six
        assert row["learning_rate"] == pytest.approx(0.5 * (1 - last_step / 6) ** 0.9)
        assert row["seconds"] > 0 and row["loss"] > 0


@pytest.mark.parametrize("kind", ["boundary", "affinity"])
def test_a_step_is_sgd_on_the_pair_loss(
    kind: Any, tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    config = replace(tiny_walk, epochs=1, batch_size=8, weight_decay=0.01)
    backbone, seen = load_lesson_network().backbone, []

    def record(network: WalkNetwork, images: Tensor, labels: Tensor, *, radius: int) -> Tensor:
        loss = pair_loss(network, images, labels, radius=radius)
        if not torch.is_grad_enabled():  # the check after the epoch
            return loss
        assert radius == 3 and images.dtype == torch.float32 and labels.shape == (8, 32, 32)
        learnt = {name: p for name, p in network.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(loss, list(learnt.values()), retain_graph=True)
        steps = [p.detach() - 0.5 * (g + 0.01 * p.detach()) for p, g in zip(learnt.values(), gradients, strict=True)]
        seen.append((float(loss.detach()), dict(zip(learnt, steps, strict=True))))
        return loss

    monkeypatch.setattr(walk, "pair_loss", record)
    network = run(config, creatures, oracle_labels, tmp_path, backbone=backbone, kind=kind)
    [(loss, wanted)] = seen
    assert rows(tmp_path)[0]["loss"] == pytest.approx(loss)
    state = network.state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(state[name], value, msg=name)
    fixed = backbone.state_dict()
    assert all(torch.equal(state[f"backbone.{name}"], value) for name, value in fixed.items())
    assert all(parameter.requires_grad for parameter in backbone.parameters())  # the given one is left alone
    assert not network.training


def test_labels_are_read_at_the_middle_of_each_position() -> None:
    network = build_walk_network(WalkConfig(backbone="creatures", weights="none"), "boundary")
    images = torch.rand(1, 3, 8, 8)
    labels = torch.full((1, 8, 8), VOID, dtype=torch.uint8)
    labels[:, 1::2, 1::2] = torch.randint(0, 2, (4, 4), dtype=torch.uint8)
    only_middles = pair_loss(network, images, labels, radius=2)
    filled = labels[:, 1::2, 1::2].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert float(only_middles.detach()) > 0
    torch.testing.assert_close(only_middles, pair_loss(network, images, filled, radius=2))


class StopError(Exception):
    pass


def test_a_stopped_run_goes_on_as_if_it_never_was(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, straight: Path, tmp_path: Path
) -> None:
    calls = iter(range(100))

    def stop_at_third(*args: Any, **settings: Any) -> Tensor:
        if torch.is_grad_enabled() and next(calls) == 3:
            raise StopError
        return pair_loss(*args, **settings)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        patch.setattr(walk, "pair_loss", stop_at_third)
        run(tiny_walk, creatures, oracle_labels, tmp_path)
    assert [row["epoch"] for row in rows(tmp_path)] == [1]
    run(replace(tiny_walk, weights="imagenet"), creatures, oracle_labels, tmp_path, resume=True)  # none are looked for
    assert same_weights(tmp_path, straight)
    assert [row["loss"] for row in rows(tmp_path)] == [row["loss"] for row in rows(straight)]
    before = rows(tmp_path)
    run(tiny_walk, creatures, oracle_labels, tmp_path, resume=True)  # there is nothing left to do
    assert rows(tmp_path) == before and same_weights(tmp_path, straight)


@pytest.mark.parametrize(("name", "value"), [("radius", 4), ("scale", (0.4, 1.0))])
def test_resuming_with_another_setting_is_refused_by_name(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, straight: Path, name: str, value: Any
) -> None:
    config = replace(tiny_walk, **{name: value})
    message = error_of(lambda: run(config, creatures, oracle_labels, straight, resume=True))
    wanted = f"{straight / 'last.pt'}: expected {name} = {getattr(tiny_walk, name)!r} as in the run to resume, "
    assert message == f"{wanted}got {value!r}"


def test_resuming_another_kind_or_for_other_pictures_is_refused(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, straight: Path
) -> None:
    last = straight / "last.pt"
    message = error_of(lambda: run(tiny_walk, creatures, oracle_labels, straight, resume=True, kind="affinity"))
    assert message == f"{last}: expected the kind boundary of the run to resume, got affinity"
    settings: Any = {"device": "cpu", "resume": True}
    message = error_of(lambda: train_walk(tiny_walk, "boundary", creatures, "val", oracle_labels, straight, **settings))
    assert message == f"{last}: expected the split train of the run to resume, got val"
    message = error_of(lambda: build_walk_network(tiny_walk, "both"))  # type: ignore[arg-type]
    assert message == "walk: expected one of boundary, affinity, got 'both'"


def test_checkpoints_that_have_kind_and_split_among_their_settings_are_read(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, straight: Path, tmp_path: Path
) -> None:
    state = torch.load(straight / "last.pt", weights_only=True)
    state["config"] = json.dumps(json.loads(state["config"]) | {name: state.pop(name) for name in ("kind", "split")})
    torch.save(state, tmp_path / "last.pt")
    assert same_weights(straight, tmp_path)
    run(tiny_walk, creatures, oracle_labels, tmp_path, resume=True)


def test_a_run_that_is_there_is_not_overwritten_and_none_is_not_resumed(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, straight: Path, tmp_path: Path
) -> None:
    message = error_of(lambda: run(tiny_walk, creatures, oracle_labels, straight))
    assert message.startswith(f"{straight / 'last.pt'}: expected a new folder or resume=True, got ")
    assert "got no such file" in error_of(lambda: run(tiny_walk, creatures, oracle_labels, tmp_path, resume=True))
    torch.save({"format": 1}, tmp_path / "other.pt")
    assert "format walk 1, got another file" in error_of(lambda: load_walk_network(tmp_path / "other.pt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": None}, r"expected a checkpoint with rows \(str\), got nothing"),
        ({"rows": '[{"epoch": 2}]'}, "expected rows of epochs 1, 2, …, got {'epoch': 2} for epoch 1"),
        ({"rows": '["x"]'}, "expected rows of epochs 1, 2, …, got 'x' for epoch 1"),
        ({"network": None}, "expected weights of BoundaryNetwork, tensors by name, got nothing"),
        ({"optimizer": {}}, "expected the state of SGD for this network, got a dict without it"),
        ({"scaler": None}, "expected the state of GradScaler, got nothing without it"),
    ],
)
def test_a_state_with_parts_that_are_missing_or_of_another_kind(
    tiny_walk: WalkConfig,
    creatures: Path,
    oracle_labels: Path,
    straight: Path,
    tmp_path: Path,
    change: Any,
    message: str,
) -> None:
    torch.save(torch.load(straight / "last.pt", weights_only=True) | change, tmp_path / "last.pt")
    said = error_of(lambda: run(tiny_walk, creatures, oracle_labels, tmp_path, resume=True))
    assert re.fullmatch(f"{re.escape(str(tmp_path / 'last.pt'))}: {message}", said), said


def test_the_backbone_must_be_the_one_of_the_settings(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, tmp_path: Path
) -> None:
    other = build_backbone("mobilenet_v2")
    message = error_of(lambda: run(tiny_walk, creatures, oracle_labels, tmp_path, backbone=other))
    assert message.startswith("backbone: expected one of creatures, got other weights: ")


@pytest.mark.parametrize("step", [0, 2])
def test_a_loss_that_is_not_finite_stops_the_run_and_the_last_good_state_stays(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, tmp_path: Path, step: int
) -> None:
    calls = iter(range(100))

    def broken(*args: Any, **settings: Any) -> Tensor:
        loss = pair_loss(*args, **settings)
        return loss * float("nan") if torch.is_grad_enabled() and next(calls) == step else loss

    with pytest.MonkeyPatch.context() as patch, pytest.raises(NotFiniteError) as info:
        patch.setattr(walk, "pair_loss", broken)
        run(tiny_walk, creatures, oracle_labels, tmp_path)
    kept = f"the last good state is {tmp_path / 'last.pt'}" if step else "none was saved yet"
    assert str(info.value) == f"training stopped: the loss is nan at step {step}; {kept}"
    assert (tmp_path / "last.pt").is_file() == (step > 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg"}, "backbone: expected one of .* got 'vgg'"),
        ({"radius": 1}, "radius: expected at least 2, got 1"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"weight_decay": -1.0}, "weight_decay: expected at least 0, got -1.0"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0, got 0.0"),
        ({"momentum": 1.0}, "momentum: expected 0 or more and less than 1, got 1.0"),
        ({"scale": (0.5, 2.0)}, r"scale: expected 0 < smallest <= greatest <= 1, got \(0.5, 2.0\)"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    assert re.fullmatch(message, error_of(lambda: WalkConfig(**changes)))
    assert "settings of WalkConfig, got nonsense" in error_of(lambda: WalkConfig.from_dict({"nonsense": 1}))


def test_the_data_set_of_a_run_can_be_sent_to_workers_that_are_not_forked(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    seen, original = [], labelled.epoch_loader

    def record(dataset: Any, **settings: Any) -> Any:
        seen.append(pickle.loads(pickle.dumps(dataset)))
        return original(dataset, **settings)

    monkeypatch.setattr(labelled, "epoch_loader", record)
    run(replace(tiny_walk, epochs=1), creatures, oracle_labels, tmp_path)
    image, labels, colours = seen[0][0]
    assert image.shape == (3, 32, 32) and labels.shape == (32, 32) and labels.dtype == torch.uint8
    assert colours.tolist() == [1, 1, 1]


def test_colours_are_changed_where_they_are_to_be(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    drawn: list[Tensor] = []

    def record(images: Tensor, factors: Tensor) -> Tensor:
        drawn.append(factors)
        return images

    monkeypatch.setattr(labelled, "change_colours", record)
    run(replace(tiny_walk, epochs=1), creatures, oracle_labels, tmp_path / "without")
    assert drawn == []
    run(replace(tiny_walk, epochs=1, jitter=0.3), creatures, oracle_labels, tmp_path / "with")
    assert drawn and ((torch.cat(drawn) - 1).abs() <= 0.3).all() and torch.cat(drawn).unique().numel() > 3


# does it learn?


def poor_seed(mask: Tensor, classes: int) -> Tensor:
    """A disc about the middle of each class's pixels, which misses much of the object and holds some ground."""
    height, width = mask.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    seed = torch.zeros(classes, height, width)
    for k in range(classes):
        places = (mask == k + 1).nonzero().float()
        if len(places):
            centre = places[(places - places.mean(0)).square().sum(1).argmin()]
            reach = 0.4 * len(places) ** 0.5
            seed[k] = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= reach**2).float()
    return seed


def learn(
    config: WalkConfig, creatures: Path, labels: Path, out: Path, *, kind: Kind = "boundary"
) -> tuple[WalkNetwork, list[float]]:
    """Forty steps on all eight pictures, from the features of a network trained on tags; the losses."""
    config = replace(
        config, epochs=40, batch_size=8, learning_rate=0.1, momentum=0.9, radius=4, size=64, scale=(0.8, 1.0)
    )
    network = run(config, creatures, labels, out, backbone=load_lesson_network().backbone, kind=kind)
    return network, [row["loss"] for row in rows(out)]


def all_pictures(creatures: Path) -> tuple[Tensor, Tensor]:
    dataset = VocDataset(creatures, "train", masks=True)
    samples = [dataset.sample(index, masks=True) for index in range(len(dataset))]
    images = torch.stack([sample["image"].as_subclass(Tensor) for sample in samples])
    return normalise(images), torch.stack([sample["mask"].as_subclass(Tensor) for sample in samples])


def test_boundaries_are_learnt_and_a_walk_makes_a_poor_seed_better(
    tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, tmp_path: Path
) -> None:
    """ORACLE labels and, for the score, the oracle threshold: what is asked is whether it works at all."""
    network, losses = learn(tiny_walk, creatures, oracle_labels, tmp_path)
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3])
    images, masks = all_pictures(creatures)
    edge = network.mirrored_edge(images)[:, 0]
    border = masks[:, 1::2, 1::2] == VOID  # what was void in training: no label told where the boundary is
    assert edge[border].mean() > 1.5 * edge[~border].mean()

    classes = VocDataset(creatures, "train").classes
    seed = torch.stack([poor_seed(mask, len(classes)) for mask in masks])
    results = []
    for maps in (seed, network.walk(images, seed)):
        sweep = ThresholdSweep(len(classes))
        sweep.update(maps, masks)
        results.append(sweep.best(classes)[1].miou)
    assert results[1] > results[0] + 0.05


def test_affinities_are_learnt(tiny_walk: WalkConfig, creatures: Path, oracle_labels: Path, tmp_path: Path) -> None:
    """ORACLE labels. No walk: at stride 4 these pictures have 16×16 positions."""
    network, losses = learn(tiny_walk, creatures, oracle_labels, tmp_path, kind="affinity")
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3])
    images, masks = all_pictures(creatures)
    with torch.no_grad():
        affinity = network.affinity(images, radius=4)
    pairs = affinity_labels(masks[:, 2::4, 2::4], radius=4)
    background, foreground, different = (float(affinity[kind].mean()) for kind in pairs)
    assert background > different + 0.03 and foreground > different + 0.03
