import re

import pytest
import torch

from rsepm_edu.device import resolve_device
from rsepm_edu.errors import UserError


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_the_default_is_the_gpu_if_there_is_one() -> None:
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    "name", ["abacus", "cuda:99", "meta", "xla", "vulkan", "fpga", "privateuseone", "cuda:-1", "cpu:x", "cud a"]
)
def test_a_device_that_is_not_there(name: str) -> None:
    """In one line, without torch's words for its own developers."""
    with pytest.raises(UserError) as caught:
        resolve_device(name)
    assert re.fullmatch(
        rf"device: expected one that is there \(cpu.*\), got '{name}'( \(the driver is missing or too old\))?",
        str(caught.value),
    )
