from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from rsepm_edu.evaluation.tables import Row
from rsepm_edu.training import experiments
from rsepm_edu.training.config import Method, Mixing, TrainConfig
from rsepm_edu.training.experiments import MIXINGS, Experiment

MAPS = ("cam", "cam+pamr", "cam+scg", "cam+scg+pamr", "decoder", "decoder+pamr", "decoder (arg-max)")


class Scored:
    """Stands for a scored network: a row for each map."""

    def __init__(self, decode: bool) -> None:
        self.maps = [name for name in MAPS if decode or name.startswith("cam")]

    def rows(self, *, seed: int, classes: Any) -> list[Row]:
        return [Row(name, 50.0, 0.2, 0.3, 0.25, True, seed) for name in self.maps]


@pytest.fixture
def labels_of(tiny: TrainConfig, creatures: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Labels of the rows that a method gives."""
    monkeypatch.setattr(experiments, "score_seeds", lambda *args, decode, **settings: Scored(decode))

    def labels(method: Method, mixing: Mixing = "edgepredictmix") -> list[str]:
        experiment = Experiment(replace(tiny, mixing=mixing), creatures)
        return [row.method for row in experiment.rows(None, method)]  # type: ignore[arg-type]

    return labels


def test_methods_without_a_decoder_are_scored_on_their_cam_alone(labels_of: Any) -> None:
    refined = ["CAM", "CAM + PAMR", "CAM + SCG", "CAM + SCG + PAMR"]
    assert labels_of("cam") == refined
    assert labels_of("puzzle") == [f"Puzzle-{label}" for label in refined]


def test_rows_name_how_pictures_were_mixed(labels_of: Any) -> None:
    heads = ["cam", "decoder", "decoder + PAMR", "decoder, arg-max"]
    assert labels_of("rs", "cutmix") == [f"RS ({head})" for head in heads]
    assert labels_of("rs+epm") == [f"RS + EPM ({head})" for head in heads]
    assert labels_of("rs+epm", "saliency-grafting") == [f"RS + Saliency Grafting ({head})" for head in heads]
    assert MIXINGS.keys() == set(get_args(Mixing))
