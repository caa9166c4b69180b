import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.choosing import DEFAULT_CRITERIA
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.training import experiments
from rsepm_edu.training.checkpoint import load_checkpoint, network_from_config
from rsepm_edu.training.config import Method, TrainConfig
from rsepm_edu.training.experiments import MIXINGS, Experiment, train_branch
from rsepm_edu.training.loop import train
from rsepm_edu.training.mixings import Mixing

MAPS = ("cam", "cam+pamr", "cam+scg", "cam+scg+pamr", "decoder", "decoder+pamr", "decoder (arg-max)")


class Scored:
    """Stands for a scored network: a row for each map."""

    def __init__(self, decode: bool) -> None:
        self.maps = [name for name in MAPS if decode or name.startswith("cam")]

    def rows(self, *, seed: int, chosen: Any, classes: Any) -> list[Row]:
        assert chosen == {}
        return [Row(name, 50.0, 0.2, 0.3, 0.25, True, seed) for name in self.maps]


@pytest.fixture
def labels_of(tiny: TrainConfig, creatures: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Labels of the rows that a method gives."""
    monkeypatch.setattr(experiments, "choose_thresholds", lambda *args, **settings: {})
    monkeypatch.setattr(
        experiments, "score_seeds", lambda network, dataset, options, **settings: Scored(options.decode)
    )

    def labels(method: Method, mixing: Mixing = "none") -> list[str]:
        experiment = Experiment(tiny, creatures)
        return [row.method for row in experiment.rows(None, method, mixing)]  # type: ignore[arg-type]

    return labels


def test_methods_without_a_decoder_are_scored_on_their_cam_alone(labels_of: Any) -> None:
    refined = ["CAM", "CAM + PAMR", "CAM + SCG", "CAM + SCG + PAMR"]
    assert labels_of("cam") == refined
    assert labels_of("puzzle") == [f"Puzzle-{label}" for label in refined]


def test_rows_name_how_pictures_were_mixed(labels_of: Any) -> None:
    heads = ["cam", "decoder", "decoder + PAMR", "decoder, arg-max"]
    assert labels_of("rs") == [f"RS ({head})" for head in heads]
    assert labels_of("rs", "epm") == [f"RS + EPM ({head})" for head in heads]
    assert labels_of("rs", "saliency-grafting") == [f"RS + Saliency Grafting ({head})" for head in heads]
    assert MIXINGS.keys() == set(get_args(Mixing)) - {"none"}


def test_methods_branch_off_a_shorter_one_bit_for_bit(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    experiment = Experiment(tiny, creatures, progress=False)
    branched = train_branch(experiment, tmp_path / "branched", ("rs", "cutmix"), progress=False)
    assert {path.parent.name for path in tmp_path.glob("branched/*/last.pt")} == {"cam", "rs", "rs+cutmix"}

    whole = replace(tiny, mixing="cutmix")
    train(whole, creatures, tmp_path / "whole", progress=False)
    expected = load_checkpoint(tmp_path / "whole" / "last.pt")
    assert branched.epoch == expected.epoch == tiny.epochs
    for name, weights in expected.ema.items():
        assert torch.equal(branched.ema[name], weights), name


def test_puzzle_cam_that_waits_branches_off_classification(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    config = replace(tiny, method="puzzle", mixing="none", puzzle_start=2, epochs=3)
    branched = train_branch(Experiment(config, creatures, progress=False), tmp_path, ("puzzle", "none"), progress=False)
    assert {path.parent.name for path in tmp_path.glob("*/last.pt")} == {"cam", "puzzle"}
    train(config, creatures, tmp_path / "whole", progress=False)
    expected = load_checkpoint(tmp_path / "whole" / "last.pt")
    assert all(torch.equal(branched.ema[name], value) for name, value in expected.ema.items())


def test_alpha_may_be_another_until_it_is_used(tiny: TrainConfig, creatures: Path, tmp_path: Path) -> None:
    config = replace(tiny, method="puzzle", mixing="none", puzzle_start=2, epochs=3)
    train_branch(Experiment(config, creatures, progress=False), tmp_path, ("cam", "none"), progress=False)
    other = replace(config, puzzle_alpha=1.0)
    branched = train_branch(Experiment(other, creatures, progress=False), tmp_path, ("puzzle", "none"), progress=False)
    train(other, creatures, tmp_path / "whole", progress=False)
    expected = load_checkpoint(tmp_path / "whole" / "last.pt")
    assert all(torch.equal(branched.ema[name], value) for name, value in expected.ema.items())
    with pytest.raises(UserError, match="expected puzzle_alpha = 1.0 as in the run to resume, got 4.0"):
        train(replace(config, puzzle_alpha=4.0), creatures, tmp_path / "whole", resume=True, progress=False)


def test_a_finished_branch_is_not_trained_again(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(replace(tiny, epochs=1), creatures, progress=False)
    first = train_branch(experiment, tmp_path, ("cam", "none"), progress=False)
    monkeypatch.setattr(experiments, "train", lambda *args, **options: pytest.fail("trained again"))
    again = train_branch(experiment, tmp_path, ("cam", "none"), progress=False)
    assert all(torch.equal(again.ema[name], value) for name, value in first.ema.items())


def test_rows_carry_the_oracle_and_the_choice_without_masks(tiny: TrainConfig, creatures: Path) -> None:
    config = replace(tiny, method="cam", mixing="none")
    network = network_from_config(config, VocDataset(creatures, "val").classes)
    rows = Experiment(config, creatures, split="val", scales=(1.0,), progress=False).rows(network, "cam")
    maps = ("CAM", "CAM + PAMR", "CAM + SCG", "CAM + SCG + PAMR")
    choices = ("oracle", *DEFAULT_CRITERIA)
    assert [(row.method, row.choice) for row in rows] == [(name, choice) for name in maps for choice in choices]


@pytest.mark.parametrize("scored", range(3))
@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_full_run_that_was_cut_has_the_rows_of_all_phases(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, scored: int, cut: str
) -> None:
    """Stopped before a phase's rows are kept, or right after."""
    experiment = Experiment(tiny, creatures, split="val", scales=(1.0,), choose=2, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        left = iter(range(3))
        original = experiments.atomic_write_text

        def stop(path: Path, text: str) -> None:
            if (number := next(left)) == scored and cut == "before":
                raise KeyboardInterrupt
            original(path, text)
            if number == scored:
                raise KeyboardInterrupt

        patch.setattr(experiments, "atomic_write_text", stop)
        with pytest.raises(KeyboardInterrupt):
            experiments.full_run(experiment, tmp_path, progress=False)
    rows = experiments.full_run(experiment, tmp_path, resume=True, progress=False)
    names = [row.method for row in rows if row.oracle or row.threshold is None]
    heads = ["cam", "decoder", "decoder + PAMR", "decoder, arg-max"]
    cams = ["CAM", "CAM + PAMR", "CAM + SCG", "CAM + SCG + PAMR"]
    assert names == cams + [f"{method} ({head})" for method in ("RS", "RS + EPM") for head in heads]
    assert rows == experiments.full_run(experiment, tmp_path / "uncut", progress=False)


def test_a_full_run_without_the_rows_of_an_earlier_phase_is_refused_first(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(trainer: experiments.Trainer, row: dict[str, Any]) -> None:
        if trainer.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, creatures, tmp_path, progress=False, on_epoch=stop)
    monkeypatch.setattr(experiments.Trainer, "step", lambda *args, **options: pytest.fail("trained"))
    with pytest.raises(UserError, match="epoch_001.json: expected a JSON table of results, got no such file"):
        experiments.full_run(Experiment(tiny, creatures), tmp_path, resume=True, progress=False)


def test_networks_are_scored_where_they_are_trained(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is read onto the CPU; with a GPU, scoring a table there would take longer than training it."""
    seen: list[torch.device] = []
    checkpoint = SimpleNamespace(build_network=lambda: torch.nn.Linear(1, 1))
    monkeypatch.setattr(experiments, "train_branch", lambda *args, **options: checkpoint)
    monkeypatch.setattr(experiments, "resolve_device", lambda name: torch.device(name or "meta"))
    monkeypatch.setattr(Experiment, "rows", lambda self, network, *branch: seen.append(network.weight.device) or [])
    experiments.ablation(Experiment(tiny, creatures), tmp_path, experiments.PUZZLE)
    experiments.ablation(Experiment(tiny, creatures), tmp_path / "cpu", experiments.PUZZLE[:1], device="cpu")
    assert [device.type for device in seen] == ["meta", "meta", "cpu"]


def test_scores_of_a_run_are_kept_until_it_is_trained_on(
    tiny: TrainConfig, creatures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that seeds made side by side go into one table, and a table whose making was cut off goes on."""
    scored: list[str] = []

    def rows(self: Experiment, network: Any, *branch: Any) -> list[Row]:
        scored.append("/".join(branch))
        return [Row(f"{branch[0]} {len(scored)}", 50.0, 0.2, 0.3, 0.25, True, self.config.seed)]

    monkeypatch.setattr(Experiment, "rows", rows)
    experiment = Experiment(tiny, creatures)
    first = experiments.ablation(experiment, tmp_path, experiments.PUZZLE, progress=False)
    assert experiments.ablation(experiment, tmp_path, experiments.PUZZLE, progress=False) == first
    assert scored == ["cam/none", "puzzle/none"]
    later = (tmp_path / "puzzle" / "rows.json").stat().st_mtime + 5
    os.utime(tmp_path / "puzzle" / "last.pt", (later, later))
    assert [row.method for row in experiments.ablation(experiment, tmp_path, experiments.PUZZLE, progress=False)] == [
        "cam 1",
        "puzzle 3",
    ]
