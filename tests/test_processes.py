"""Alone and by hand; several processes in earnest are in tests/training/test_distributed.py."""

import pytest
import torch

from rsepm_edu import processes
from rsepm_edu.errors import UserError
from rsepm_edu.processes import World, joined


def test_alone_nothing_is_changed() -> None:
    with joined("cpu") as world:
        assert (world.rank, world.size, world.is_main, world.own) == (0, 1, True, ())
        assert list(world.share(3)) == [0, 1, 2]
        assert world.gather(3) == [3] and world.from_main(lambda: 4) == 4
        assert world.any(True) and not world.any(False)
        with pytest.raises(UserError, match="^here$"), world.report_once():
            raise UserError("here")


@pytest.mark.parametrize(("length", "size"), [(10, 3), (2, 3), (0, 2)])
def test_shares_hold_everything_once(length: int, size: int) -> None:
    shares = [World(torch.device("cpu"), rank, size).share(length) for rank in range(size)]
    assert sorted(index for share in shares for index in share) == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_each_process_has_its_own_gpu_and_none_may_ask_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(processes, "resolve_device", torch.device)
    assert processes._own_device("cuda") == torch.device("cuda:3")
    assert processes._own_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="expected cpu or cuda, of which each process takes its own GPU, got 'cuda:1'"):
        processes._own_device("cuda:1")
