import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rsepm_edu.methods import edge_kernels as kernels
from rsepm_edu.methods import edgepredictmix
from rsepm_edu.methods.edgepredictmix import edge_regions


def test_the_kernels_by_the_interpreter() -> None:
    """In a process of its own: Triton decides when it is imported whether to compile or to interpret."""
    pytest.importorskip("triton")
    script = Path(__file__).with_name("edge_kernels_interpreted.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    done = subprocess.run(command, env=environment, cwd=script.parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_gpu_or_triton_opencv_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kernels.works(torch.device("cpu"))
    monkeypatch.setattr(kernels, "triton", None)
    assert not kernels.works.__wrapped__(torch.device("cuda", 0))


@pytest.mark.parametrize("answer", [None, torch.ones(1, 3, 8, dtype=torch.int64)])
def test_so_it_is_where_they_fail_or_find_something_else(
    monkeypatch: pytest.MonkeyPatch, answer: torch.Tensor | None
) -> None:
    def found(*arguments: object, **settings: object) -> torch.Tensor:
        if answer is None:
            raise RuntimeError("no compiler")
        return answer

    zeros = torch.zeros
    monkeypatch.setattr(kernels, "regions_between_edges", found)
    monkeypatch.setattr(kernels, "triton", object())
    monkeypatch.setattr(torch, "zeros", lambda *size, dtype, device: zeros(size, dtype=dtype))
    assert not kernels.works.__wrapped__(torch.device("cuda", 0))


def test_what_they_are_tried_on_has_the_regions_that_opencv_finds() -> None:
    maps = torch.zeros(1, 3, 8)
    maps[..., 4:] = 1
    assert edge_regions(maps).tolist() == [[[1, 1, 1, 0, 2, 2, 2, 2]] * 3]


@pytest.mark.gpu
@pytest.mark.parametrize("coarse", [8, 40, 200])
def test_on_the_gpu_the_regions_are_those_of_opencv(coarse: int) -> None:
    assert kernels.works(torch.device("cuda"))
    generator = torch.Generator().manual_seed(coarse)
    maps = F.interpolate(torch.rand(4, 1, coarse, coarse, generator=generator), (200, 301), mode="bilinear")[:, 0]
    assert torch.equal(edge_regions(maps.cuda()).cpu(), edge_regions(maps))


@pytest.mark.parametrize("wrong", [0, 1])
def test_kernels_are_taken_only_where_they_find_what_opencv_finds(monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    calls = []

    def found(planes: torch.Tensor, *, low: int, high: int) -> torch.Tensor:
        calls.append(planes)
        regions = edgepredictmix.regions_by_opencv(planes, low=low, high=high)
        regions[0, 0, 0] += wrong * (len(calls) == 3)  # a race shows now and then
        return regions

    monkeypatch.setattr(edgepredictmix, "works", lambda device: True)
    monkeypatch.setattr(edgepredictmix, "regions_between_edges", found)
    assert edgepredictmix.kernels_agree.__wrapped__(torch.device("cpu")) is not bool(wrong)
    edges = (edgepredictmix.regions_by_opencv(calls[0], low=10, high=100) == 0).sum(), calls[0].unique()
    assert edges[0] > 100 and len(edges[1]) > 50  # they are tried on something
