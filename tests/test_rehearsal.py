import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rsepm_edu.data.voc import VOC_CLASSES, VocDataset
from rsepm_edu.training.checkpoint import network_from_config
from rsepm_edu.training.config import TrainConfig, preset

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "rehearsal.py"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rehearsal")
    SCRIPT["make_set"](root, 8, progress=False)
    return root


@pytest.fixture(scope="module")
def small() -> TrainConfig:
    return replace(
        preset("creatures-cpu"),
        split="trainaug",
        epochs=3,
        rs_start=1,
        mix_start=2,
        size=32,
        batch_size=4,
        jitter=0.2,
    )


def test_drawn_pictures_have_the_size_and_the_bytes_of_voc(drawn: Path) -> None:
    dataset = VocDataset(drawn, "trainaug")
    assert len(dataset) == 8 and dataset.classes == VOC_CLASSES
    assert {tuple(dataset[index]["image"].shape[1:][::-1]) for index in range(8)} <= set(SCRIPT["SIZES"])
    sizes = [dataset.image_path(name).stat().st_size for name in dataset.names]
    assert 95_000 < sum(sizes) / len(sizes) < 125_000


def test_a_set_that_is_there_is_kept(drawn: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*.jpg")}
    SCRIPT["make_set"](drawn, 8, progress=False)
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*.jpg")} == before


def test_every_picture_of_an_epoch_is_read(drawn: Path, small: TrainConfig) -> None:
    figures = SCRIPT["loading"](small, drawn, workers=1, progress=False)
    assert figures["pictures"] == 8 and figures["cpu_milliseconds_a_picture"] > 0


def test_operations_are_those_of_every_layer_once_forward_and_twice_backward(small: TrainConfig) -> None:
    # Classification alone; a frozen stage would have no backward pass.
    small = replace(small, rs_start=3, mix_start=3, epochs=3, freeze_stages=0)
    network = network_from_config(small, VOC_CLASSES)
    layers: list[int] = []

    def count(layer: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        layers.append(2 * output.numel() * layer.weight[0].numel())  # a product and a sum for each weight

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    outputs = network(torch.zeros(2, 3, small.size, small.size), decode=False)
    first = layers[0]  # nothing asks for the gradient of the picture
    layers.append(2 * outputs.cam.numel() * outputs.stages[-1].shape[1])  # the classifier, at every position
    by_hand = (3 * sum(layers) - first) / 2
    found = SCRIPT["operations"](small, VOC_CLASSES)
    assert found["gflop_a_picture"] == {"cam": pytest.approx(by_hand / 1e9, rel=1e-4)}
    assert found["pflop_of_the_run"] == pytest.approx(by_hand * 10_580 * 3 / 1e15, rel=1e-3)


def test_the_time_of_a_run_is_made_of_its_phases(
    drawn: Path, small: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearse: Any = SCRIPT["rehearse"]
    monkeypatch.setitem(rehearse.__globals__, "WARM_UP", 1)
    figures = rehearse("small", small, drawn, steps=1, device=torch.device("cpu"))
    assert list(figures["phases"]) == ["cam", "rs", "rs+epm"]
    seconds = sum(8 / row["pictures_per_second"] for row in figures["phases"].values())
    assert figures["minutes_of_the_run"] == pytest.approx(seconds / 60, abs=0.06)
    assert all(0 <= row["share_waiting"] <= 1 for row in figures["phases"].values())
    assert "3 epochs of 2 steps would take" in capsys.readouterr().out


def test_a_full_step_takes_one_part_of_a_batch_in_the_last_phase(small: TrainConfig) -> None:
    figures = SCRIPT["full_step"](replace(small, accumulate=2), VOC_CLASSES)
    assert (figures["phase"], figures["pictures"], figures["size"]) == ("rs+epm", 2, 32)
    assert figures["gb_counted"]["float32"] > figures["gb_counted"]["float16"] > 0
