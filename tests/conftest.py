"""What tests share: a small Creatures set, settings for it, and real photographs and weights where there are any."""

import os
from pathlib import Path

import pytest
import torch

from rsepm_edu.data.creatures import make_creatures
from rsepm_edu.training.config import TrainConfig


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs real data as `sample`, so that `-m sample` picks exactly these tests; skip `gpu` without one."""
    without = pytest.mark.skip(reason="needs a GPU")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(without)
        if {"voc_sample", "imagenet_weights"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("sample")


def _path_from(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    path = Path(value)
    if not path.exists():
        pytest.fail(f"{variable}: {path} does not exist")
    return path


@pytest.fixture(scope="session")
def voc_sample() -> Path:
    """A VOC2012 folder of real photographs; skips the test where none is named."""
    return _path_from("RSEPM_EDU_VOC_SAMPLE")


@pytest.fixture(scope="session")
def imagenet_weights() -> Path:
    """A state dict for torchvision's mobilenet_v2; skips the test where none is named."""
    return _path_from("RSEPM_EDU_WEIGHTS")


@pytest.fixture(scope="session")
def creatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Creatures set, 8 pictures to train on and 3 to validate, 64 pixels. Copy it before changing it."""
    return make_creatures(tmp_path_factory.mktemp("creatures") / "set", train=8, val=3, size=64, workers=0)


@pytest.fixture(scope="session")
def tiny() -> TrainConfig:
    """Four epochs of two steps, one of classification, one of RS, two of RS+EPM: a tenth of a second each."""
    return TrainConfig(
        split="train",
        backbone="creatures",
        weights="none",
        separable=True,
        epochs=4,
        rs_start=1,
        mix_start=2,
        optimizer="sgd",
        learning_rate=0.05,
        head_factor=1.0,
        ema_decay=0.99,
        pamr_stride=2,
        size=32,
        crop="zoom",
        scale=(0.5, 1.0),
        jitter=0.0,
        workers=0,
        batch_size=4,
        decoder_channels=16,
        decoder_rates=(1, 2),
        panel_every=0,
    )
