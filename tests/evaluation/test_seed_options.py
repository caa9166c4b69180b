from typing import Any

import pytest

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.seed_options import SeedOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "scales: expected positive numbers, got ()"),
        ({"scales": (1.0, 0.0)}, "scales: expected positive numbers, got (1.0, 0.0)"),
        ({"scg_threshold": 1.1}, "scg_threshold: expected 0 to 1, got 1.1"),
        ({"scg_threshold": float("nan")}, "scg_threshold: expected 0 to 1, got nan"),
        ({"pamr_stride": 0}, "pamr_stride: expected at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as info:
        SeedOptions(**options)
    assert str(info.value) == message
