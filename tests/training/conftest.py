"""What the tests of training share."""

import pytest

from rsepm_edu.training.config import TrainConfig, preset


@pytest.fixture(scope="session")
def tiny() -> TrainConfig:
    """Four epochs of two steps, one of classification, one of RS, two of RS+EPM: a tenth of a second each."""
    return preset(
        "creatures-cpu",
        split="train",
        epochs=4,
        seed_start=1,
        mix_start=2,
        size=32,
        batch_size=4,
        decoder_channels=16,
        decoder_rates=(1, 2),
        panel_every=0,
    )
