import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rsepm_edu.methods import pamr as plain
from rsepm_edu.methods import pamr_kernels as kernels


def test_the_kernels_by_the_interpreter() -> None:
    """In a process of its own: Triton decides when it is imported whether to compile or to interpret."""
    pytest.importorskip("triton")
    script = Path(__file__).with_name("pamr_kernels_interpreted.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    done = subprocess.run(command, env=environment, cwd=script.parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_gpu_the_plain_form_is_taken() -> None:
    assert not kernels.works(torch.device("cpu"))


def test_without_triton_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "triton", None)
    assert not kernels.works.__wrapped__(torch.device("cuda", 0))


def test_a_device_on_which_they_fail_gets_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a card says: no compiler for the launcher, too old, another version."""

    def fail(*arguments: object, **settings: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(kernels, "fused_affinity", fail)
    monkeypatch.setattr(kernels, "triton", object())
    monkeypatch.setattr(torch, "zeros", lambda *size, device: torch.ones(size))
    assert not kernels.works.__wrapped__(torch.device("cuda", 0))


@pytest.mark.gpu
def test_on_the_gpu_the_kernels_run_and_give_the_same() -> None:
    device = torch.device("cuda")
    assert kernels.works(device)
    generator = torch.Generator().manual_seed(0)
    image, masks = (torch.rand(2, count, 33, 47, generator=generator) for count in (3, 21))
    masks[0, 5:] = 0
    refined = plain.pamr(image.to(device), masks.to(device)).cpu()
    torch.testing.assert_close(refined.double(), plain.pamr(image.double(), masks.double()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("wrong", "taken"), [(0.0, True), (1e-3, False)])
def test_kernels_are_taken_only_where_they_give_the_plain_forms_numbers(
    monkeypatch: pytest.MonkeyPatch, wrong: float, taken: bool
) -> None:
    def offsets(dilations: tuple[int, ...]) -> list[tuple[int, int]]:
        return [(dy * d, dx * d) for d in dilations for dy, dx in plain.NEIGHBOURS]

    def affinity(image: torch.Tensor, dilations: tuple[int, ...], *, sigma: float) -> torch.Tensor:
        return plain.colour_affinity(image, offsets(dilations), sigma=sigma)

    def summed(maps: torch.Tensor, weights: torch.Tensor, dilations: tuple[int, ...], *, times: int) -> torch.Tensor:
        return plain.weighted_sum(maps, weights, offsets(dilations)) + wrong

    monkeypatch.setattr(plain, "works", lambda device: True)
    monkeypatch.setattr(plain, "fused_affinity", affinity)
    monkeypatch.setattr(plain, "fused_sum", summed)
    assert plain.kernels_agree.__wrapped__(torch.device("cpu")) is taken
