"""What a run has learnt follows from how far it came, not from what it was started for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsepm_edu.course.networks import load_lesson_network
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.inference import multi_scale_maps, segment
from rsepm_edu.training.checkpoint import load_network, save_checkpoint
from rsepm_edu.training.config import PRESETS, TrainConfig
from rsepm_edu.training.loop import Trainer, train
from rsepm_edu.training.progress import expect_method_reached, learnt_heads, reached_phase

BOTH = ("cam", "decoder")


@pytest.mark.parametrize(
    ("progress", "heads", "phase"),
    [
        ((0, 0), (), None),
        ((0, 1), ("cam",), "cam"),
        ((1, 0), ("cam",), "cam"),  # RS is next, but has not begun
        ((1, 1), BOTH, "rs"),
        ((2, 0), BOTH, "rs"),
        ((2, 1), BOTH, "rs+epm"),
        ((4, 0), BOTH, "rs+epm"),
    ],
)
def test_learnt_grows_with_progress(
    tiny: TrainConfig, progress: tuple[int, int], heads: tuple[str, ...], phase: str | None
) -> None:
    reached = reached_phase(tiny, progress)
    assert (reached and reached.name) == phase
    assert learnt_heads(tiny, progress) == heads


@pytest.mark.parametrize("method", ["cam", "puzzle"])
def test_methods_of_tags_alone_train_no_decoder(tiny: TrainConfig, method: str) -> None:
    assert learnt_heads(replace(tiny, method=method, mixing="none"), (4, 0)) == ("cam",)


def test_presets_reach_their_method() -> None:
    for config in PRESETS.values():
        expect_method_reached(config)


@pytest.mark.parametrize(
    ("method", "epochs", "ends_in"),
    [
        ("rs", 1, "cam"),
        ("rs+epm", 2, "rs"),
        ("rs", 2, None),
        ("cam", 1, None),
        ("puzzle", 1, "cam"),
        ("puzzle", 2, None),
    ],
)
def test_a_schedule_that_is_too_short_is_refused(
    tiny: TrainConfig, method: str, epochs: int, ends_in: str | None
) -> None:
    name, _, mixing = method.partition("+")
    config = replace(tiny, method=name, mixing=mixing or "none", epochs=epochs)
    config = replace(config, puzzle_start=1) if name == "puzzle" else config
    if ends_in is None:
        return expect_method_reached(config)
    with pytest.raises(UserError, match=f"epochs: expected enough to reach .* got {epochs}, which end in {ends_in};"):
        expect_method_reached(config)
    with pytest.raises(UserError, match="epochs: expected enough"):
        train(config, "nowhere", "nowhere", progress=False)


def test_a_network_that_is_read_says_what_it_has_learnt(tiny: TrainConfig, tmp_path: Path) -> None:
    trainer = Trainer(tiny, ("cat", "dog"), torch.device("cpu"))
    picture = torch.zeros(1, 3, 32, 32)
    for epoch in (0, 1, 2):
        trainer.epoch = epoch
        save_checkpoint(tmp_path / f"{epoch}.pt", trainer.checkpoint())
    with pytest.raises(UserError, match=r"expected a trained network, got one before its first step"):
        load_network(tmp_path / "0.pt")
    early, late = (load_network(tmp_path / f"{epoch}.pt") for epoch in (1, 2))
    assert late.learnt == BOTH and segment(late, picture, scales=(1.0,)).shape == (1, 32, 32)
    assert early.learnt == ("cam",) and multi_scale_maps(early, picture, decode=False).probabilities is None
    with pytest.raises(UserError, match="decode: expected a network whose decoder was trained"):
        segment(early, picture)


def test_lesson_networks_say_it_too() -> None:
    assert load_lesson_network("creatures_cam").learnt == ("cam",)
    assert load_lesson_network("creatures_rs").learnt == BOTH
