"""What the tests of training share."""

import pytest

from rsepm_edu.training.config import TrainConfig


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
