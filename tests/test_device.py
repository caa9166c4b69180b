import pytest
import torch

from rsepm_edu.device import resolve_device
from rsepm_edu.errors import UserError


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_the_default_is_the_gpu_if_there_is_one() -> None:
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "meta"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match=rf"^device: expected cpu or a GPU that is there, got '{name}' \(.+\)$"):
        resolve_device(name)
