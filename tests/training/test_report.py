import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.labels import VOID
from rsepm_edu.training import report
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import Trainer
from rsepm_edu.training.report import TrainingLog, panel_samples, read_square


@pytest.fixture
def dataset(creatures: Path) -> VocDataset:
    return VocDataset(creatures, "train", transform=lambda sample: pytest.fail("panels show untouched pictures"))


@pytest.fixture
def trainer(tiny: TrainConfig, dataset: VocDataset) -> Trainer:
    return Trainer(replace(tiny, panel_every=2, epochs=5), dataset.classes, torch.device("cpu"))


def row(epoch: int) -> dict[str, object]:
    return {
        "epoch": epoch,
        "phase": "rs",
        "learning_rate": 0.1 / epoch,
        "losses": {"tags": 1.0 / epoch, "cam": 0.25},
        "seconds": 1.5,
        "pictures_per_second": 10.0,
    }


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "epoch 3/5 rs: tags 0.333, cam 0.250; 2 s, about 3 s left"),
        ({"epoch": 5}, "epoch 5/5 rs: tags 0.333, cam 0.250; 2 s"),
        ({"seconds": 100.0}, "epoch 3/5 rs: tags 0.333, cam 0.250; 2 min, about 3 min left"),
        ({"seconds": 4000.0}, "epoch 3/5 rs: tags 0.333, cam 0.250; 67 min, about 2 h 13 min left"),
    ],
)
def test_an_epoch_in_one_line(changes: dict[str, object], line: str) -> None:
    assert report.epoch_line("rs", row(3) | changes, 5) == line


def test_an_epoch_of_one_loss_in_one_line() -> None:
    line = report.epoch_line("boundary", {"epoch": 1, "loss": 0.5, "seconds": 1.0}, 2)
    assert line == "epoch 1/2 boundary: loss 0.500; 1 s, about 1 s left"


def epochs(out: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_each_epoch_is_a_line_of_json_and_a_point_of_each_curve(
    tmp_path: Path, trainer: Trainer, dataset: VocDataset
) -> None:
    with TrainingLog(tmp_path, trainer, dataset, keep_epochs=0) as log:
        for epoch in (1, 2, 3):
            log.write(row(epoch))
            assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1]) == row(epoch)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == {"loss/tags", "loss/cam", "learning_rate", "pictures_per_second"}
    points = [(event.step, event.value) for event in board.Scalars("loss/tags")]
    assert points == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


def test_curves_have_each_epoch_once_after_a_resume(tmp_path: Path, trainer: Trainer, dataset: VocDataset) -> None:
    with TrainingLog(tmp_path, trainer, dataset, keep_epochs=0) as log:
        for epoch in (1, 2, 3):
            log.write(row(epoch))
    with TrainingLog(tmp_path, trainer, dataset, keep_epochs=1) as log:
        log.write(row(2) | {"learning_rate": 7.0})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("learning_rate")] == [
        (1, pytest.approx(0.1)),
        (2, 7.0),
    ]


def test_lines_of_epochs_that_were_not_saved_are_dropped(tmp_path: Path, trainer: Trainer, dataset: VocDataset) -> None:
    lines = [json.dumps(row(epoch)) for epoch in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"epoch": 4, "losses": {"ta')  # stopped while it wrote
    with TrainingLog(tmp_path, trainer, dataset, keep_epochs=2) as log:
        assert epochs(tmp_path) == [1, 2]
        log.write(row(3))
    assert epochs(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("line", ["", "{", "[1]", "3", '{"losses": {}}', '{"epoch": "2"}', '{"epoch": true}'])
def test_a_damaged_line_before_the_last_is_not_dropped_in_silence(
    tmp_path: Path, trainer: Trainer, dataset: VocDataset, line: str
) -> None:
    lines = [json.dumps(row(1)), line, json.dumps(row(3))]
    (tmp_path / "log.jsonl").write_text("".join(f"{one}\n" for one in lines))
    with pytest.raises(UserError, match=r"log\.jsonl, line 2: expected an epoch of the log in JSON, got none$"):
        TrainingLog(tmp_path, trainer, dataset, keep_epochs=3)
    assert (tmp_path / "log.jsonl").read_text().splitlines() == lines


@pytest.mark.parametrize(("every", "drawn"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_pictures_come_when_they_are_due_and_at_the_end(
    tmp_path: Path,
    trainer: Trainer,
    dataset: VocDataset,
    monkeypatch: pytest.MonkeyPatch,
    every: int,
    drawn: list[int],
) -> None:
    written = []
    monkeypatch.setattr(report, "panel_samples", lambda trainer, dataset, **_: [])
    monkeypatch.setattr(report, "save_panel", lambda path, samples, classes: written.append(path))
    trainer.config = replace(trainer.config, panel_every=every)
    with TrainingLog(tmp_path, trainer, dataset, keep_epochs=0) as log:
        for epoch in range(1, 6):
            log.draw(epoch)
    assert written == [tmp_path / "panels" / f"epoch_{epoch:03d}.png" for epoch in drawn]


def test_a_panel_shows_every_step_for_the_first_pictures(trainer: Trainer, dataset: VocDataset) -> None:
    samples = panel_samples(trainer, dataset)
    assert [sample.name for sample in samples] == dataset.names[: report.PANEL_ROWS]
    for index, sample in enumerate(samples):
        assert sample.image.dtype == torch.uint8 and sample.image.shape == (3, 32, 32)
        for maps in (sample.cam, sample.rs_map):
            assert maps is not None and maps.shape == (5, 32, 32)
            assert float(maps.min()) >= 0 and float(maps.max()) <= 1
            assert not maps[dataset.tags[index] == 0].any()
        present = {0, VOID} | {k + 1 for k in range(5) if dataset.tags[index, k]}
        for mask in (sample.pseudo_mask, sample.decoder, sample.truth):
            assert mask is not None and mask.shape == (32, 32) and mask.dtype == torch.uint8
            assert set(mask.unique().tolist()) <= present


def test_a_panel_does_without_masks_where_there_are_none(trainer: Trainer, creatures: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    shutil.rmtree(root / "SegmentationClass")
    samples = panel_samples(trainer, VocDataset(root, "train"))
    assert len(samples) == report.PANEL_ROWS and all(sample.truth is None for sample in samples)


def test_a_panel_does_without_masks_that_cannot_be_read(trainer: Trainer, creatures: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    dataset = VocDataset(root, "train")
    with Image.open(dataset.mask_path(dataset.names[0])) as mask:
        coloured = mask.convert("RGB")
    coloured.save(dataset.mask_path(dataset.names[0]))
    assert [sample.truth is None for sample in panel_samples(trainer, dataset)] == [True, False, False, False]


def test_a_panel_shows_no_decoder_that_was_never_trained(
    trainer: Trainer, dataset: VocDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bool] = []
    monkeypatch.setattr(
        report, "save_panel", lambda path, samples, classes: shown.append(samples[0].decoder is not None)
    )
    trainer.config = replace(trainer.config, panel_every=1)
    with TrainingLog(tmp_path, trainer, dataset, keep_epochs=0) as log:
        for epoch in (1, 2):  # tags alone, then RS
            log.draw(epoch)
    assert shown == [False, True]


def test_a_panel_leaves_the_network_and_the_generator_alone(trainer: Trainer, dataset: VocDataset) -> None:
    def everything() -> Iterator[torch.Tensor]:
        yield torch.get_rng_state()
        for network in (trainer.network, trainer.average.network):
            yield from (value.clone() for value in network.state_dict().values())

    before = list(everything())
    panel_samples(trainer, dataset)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    assert trainer.network.training and not trainer.average.network.training


def test_pictures_are_squeezed_to_a_square(dataset: VocDataset) -> None:
    square = read_square(dataset, 0, 24)
    assert square.shape == (3, 24, 24) and square.dtype == torch.uint8
    whole = VocDataset(dataset.devkit, "train")[0]["image"].float().mean()
    assert float(square.float().mean()) == pytest.approx(float(whole), abs=2)
