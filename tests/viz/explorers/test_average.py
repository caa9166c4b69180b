import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.optimizer import MovingAverage, set_learning_rate
from rsepm_edu.viz.explorers import average as module
from rsepm_edu.viz.explorers import average_explorer
from rsepm_edu.viz.explorers.explorer import GAP, TILE


def test_each_control_changes_the_picture_and_going_back_restores_it(live):
    explorer = average_explorer()
    first = live(explorer)
    seen = {first}
    for control, value in (
        (explorer.rate, 0.5),
        (explorer.power, 0.9),
        (explorer.decay, 0.99),
        (explorer.early, False),
    ):
        control.value = value
        seen.add(live(explorer))
    assert len(seen) == 5
    explorer.rate.value, explorer.power.value, explorer.decay.value, explorer.early.value = 0.2, 0.0, 0.95, True
    assert live(explorer) == first
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.width == 2 * module.WIDTH + GAP and png.height > TILE


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_rates_and_averages_are_those_of_training(decay):
    explorer = average_explorer(steps=40)
    explorer.rate.value, explorer.power.value, explorer.decay.value = 0.5, 0.9, decay
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(network.weight, -1.0)
    optimizer = torch.optim.SGD([{"params": network.parameters(), "factor": 1.0}], lr=1.0)
    config = replace(TrainConfig(), learning_rate=0.5, poly_power=0.9)
    average, rates, averages = MovingAverage(network, decay), [], []
    for step, weight in enumerate(explorer.weights()):
        rates.append(set_learning_rate(optimizer, config, step=step, steps=40))
        nn.init.constant_(network.weight, weight)
        average.update(network, step)
        averages.append(float(average.network.weight))
    np.testing.assert_allclose(explorer.rates(), rates, rtol=1e-12)
    np.testing.assert_allclose(explorer.averages(), averages, rtol=1e-12)


def test_without_noise_the_weight_follows_the_closed_form():
    explorer = average_explorer(start=-1.0, target=1.0, noise=0.0, steps=20)
    explorer.early.value = False
    np.testing.assert_allclose(explorer.weights(), 1 - 2 * 0.8 ** np.arange(1, 21))
    explorer.rate.value, explorer.decay.value = 1.0, 0.9  # at the target after one step
    np.testing.assert_allclose(explorer.weights(), 1)
    np.testing.assert_allclose(explorer.averages(), 1 - 2 * 0.9 ** np.arange(1, 21))
    assert explorer.off(explorer.weights()) == 0


def test_off_looks_at_the_last_quarter_alone():
    explorer = average_explorer(steps=8)
    assert explorer.off(np.array([9.0, 9, 9, 9, 9, 9, 4, 5])) == pytest.approx(np.sqrt((9 + 16) / 2))


def test_the_average_is_nearer_than_the_weight_and_forgets_its_start():
    explorer = average_explorer()
    assert explorer.off(explorer.averages()) < 0.6 * explorer.off(explorer.weights())
    explorer.decay.value = 0.99
    slow_start = explorer.off(explorer.averages())
    explorer.early.value = False
    assert explorer.off(explorer.averages()) > 2 * slow_start


def test_the_numbers_written_are_those_of_the_paths():
    explorer = average_explorer()
    tiles, _, legend = explorer.render()
    assert {tile.shape for tile in tiles} == {(TILE, module.WIDTH, 3)}
    weight, average = explorer.off(explorer.weights()), explorer.off(explorer.averages())
    assert [text for text, _ in legend] == [f"weight: off by {weight:.2f}", f"average: off by {average:.2f}"]
    assert repr(explorer) == (
        f"AverageExplorer(rate 0.2, power 0 (constant), decay 0.95, fast start): "
        f"off by {weight:.2f}, average by {average:.2f}"
    )


def test_bad_arguments_are_rejected_before_a_slider_moves():
    with pytest.raises(ValueError, match="steps: expected at least 8, got 7"):
        average_explorer(steps=7)
    with pytest.raises(ValueError, match="noise: expected 0 or more, got -1"):
        average_explorer(noise=-1.0)
    with pytest.raises(ValueError, match=r"start: expected another place than the target, got 1\.0"):
        average_explorer(start=1.0)
