import io

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.models.network import build_network
from rsepm_edu.training.optimizer import MovingAverage
from rsepm_edu.viz.explorers import budget as module
from rsepm_edu.viz.explorers import budget_explorer

SAVED = {"cam": 2000.0, "rs": 2500.0, "rs+epm": 5000.0}


def test_each_control_changes_the_picture_and_going_back_restores_it(live):
    explorer = budget_explorer(40_000_000, SAVED)
    first = live(explorer)
    seen = {first}
    for control, value in (
        (explorer.precision, "fp16 or bf16"),
        (explorer.accumulate, 4),
        (explorer.size, 384),
        (explorer.batch, 16),
    ):
        control.value = value
        seen.add(live(explorer))
    assert len(seen) == 5
    explorer.batch.value, explorer.size.value, explorer.accumulate.value = 32, 512, 1
    explorer.precision.value = "fp32"
    assert live(explorer) == first
    with Image.open(io.BytesIO(explorer.png())) as png:
        assert png.format == "PNG" and png.width == module.FINER * module.WIDTH


def test_the_bytes_are_those_counted_by_hand():
    explorer = budget_explorer(1000, {"only": 7.0})
    explorer.size.value, explorer.batch.value = 192, 8
    assert explorer.needed() == {"only": (16_000, 8 * 192 * 192 * 7)}
    explorer.accumulate.value = 4  # two pictures at a time
    assert explorer.needed() == {"only": (16_000, 2 * 192 * 192 * 7)}
    explorer.precision.value = "fp16 or bf16"
    assert explorer.needed() == {"only": (18_000, 192 * 192 * 7)}


def test_the_weights_take_what_a_training_keeps_of_them():
    network = build_network("creatures", ("a", "b"), decoder_channels=16, separable=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    average = MovingAverage(network, 0.9)
    network(torch.randn(2, 3, 32, 32)).seg_logits.sum().backward()
    for weight in network.parameters():  # a step without a gradient keeps no momentum
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    kept = [network.parameters(), (weight.grad for weight in network.parameters()), average.network.parameters()]
    kept.append(state["momentum_buffer"] for state in optimizer.state.values())
    counted = sum(tensor.nbytes for tensors in kept for tensor in tensors)
    explorer = budget_explorer(sum(weight.numel() for weight in network.parameters()), SAVED)
    assert explorer.needed()["rs"][0] == counted


def test_only_divisors_of_the_batch_are_offered():
    explorer = budget_explorer(1000, SAVED)
    assert explorer.accumulate.options == (1, 2, 4, 8, 16, 32)
    explorer.accumulate.value = 16
    explorer.batch.value = 8
    assert explorer.accumulate.options == (1, 2, 4, 8) and explorer.accumulate.value == 8


def test_the_numbers_are_told_in_words_too():
    assert repr(budget_explorer(40_000_000, {"cam": 2000.0, "rs": 2500.0})) == (
        "BudgetExplorer(size 512, batch_size 32, accumulate 1, fp32): cam 17.4 GB, rs 21.6 GB"
    )


def pixels(explorer, colour):
    with Image.open(io.BytesIO(explorer.png())) as png:
        return int((np.asarray(png.convert("RGB")) == colour).all(axis=2).sum())


def test_the_bar_is_as_long_as_the_bytes():
    explorer = budget_explorer(1, {"only": 1000.0}, room=8e9)
    wide = pixels(explorer, module.MISSED)  # 32 × 512² × 1000 bytes: 8.39 GB
    explorer.accumulate.value = 2
    assert pixels(explorer, module.MISSED) / wide == pytest.approx(0.5, abs=0.03)
    explorer.accumulate.value = 32
    assert pixels(explorer, module.MISSED) < 0.1 * wide


def test_bad_arguments_are_rejected():
    with pytest.raises(ValueError, match="saved: expected bytes of at least one phase, got none"):
        budget_explorer(1000, {})
    with pytest.raises(ValueError, match=r"rs: expected a number above 0, got nan"):
        budget_explorer(1000, {"rs": float("nan")})
    with pytest.raises(ValueError, match="room: expected a number above 0, got 0"):
        budget_explorer(1000, SAVED, room=0)
