from typing import get_args

import pytest

from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.training.config import Method, TrainConfig
from rsepm_edu.training.seed_options import seed_options_of


@pytest.mark.parametrize("method", get_args(Method))
def test_seeds_are_made_as_in_their_training(method: Method) -> None:
    config = TrainConfig(method=method, mixing="none", scg_threshold=0.7, pamr_stride=2)
    decode = {"cam": False, "puzzle": False, "rs": True}[method]
    assert seed_options_of(config, scales=(1.0, 0.5), mirror=False) == SeedOptions((1.0, 0.5), False, decode, 0.7, 2)
    assert seed_options_of(config).scales == SeedOptions().scales
