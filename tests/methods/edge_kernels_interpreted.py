"""The kernels of Canny's regions, run by Triton's interpreter on the CPU (see test_edge_kernels.py)."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.methods import edge_kernels as kernels
from rsepm_edu.methods.edgepredictmix import regions_by_opencv

SIZES = [(1, 1), (1, 9), (5, 1), (2, 3), (24, 31)]
LEVELS = [(10, 100), (5, 30), (100, 10), (5000, 5000)]


def planes(size: tuple[int, int], coarse: int, seed: int) -> Tensor:
    """Two maps of 8 bits: noise of a grain of some pixels, which winds and branches, and a harder one."""
    generator = torch.Generator().manual_seed(seed)
    maps = F.interpolate(torch.rand(2, 1, coarse, coarse, generator=generator), size, mode="bilinear")[:, 0]
    maps[1] = (3 * maps[1] - 1).clamp(0, 1)
    return (maps * 255).round().to(torch.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("low", "high"), LEVELS)
@pytest.mark.parametrize("coarse", [3, 9])
def test_regions_are_those_of_opencv_number_for_number(size: tuple[int, int], low: int, high: int, coarse: int) -> None:
    given = planes(size, coarse, seed=coarse)
    found = kernels.regions_between_edges(given, low=low, high=high)
    assert found.dtype == torch.int64
    assert torch.equal(found, regions_by_opencv(given, low=low, high=high))


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("share", [0.4, 0.6])
def test_trees_of_noise_are_what_a_flood_fill_finds(corners: bool, share: float) -> None:
    member = (torch.rand(2, 12, 23, generator=torch.Generator().manual_seed(0)) < share).to(torch.uint8)
    parents = kernels._trees(member, corners=corners).flatten()
    roots = parents[parents.long()].view(member.shape)
    wanted = torch.arange(member.numel()).view(member.shape).masked_fill(member == 0, member.numel())
    for _ in range(member.numel()):  # the smallest number spreads step by step
        if corners:
            spread = -F.max_pool2d(-wanted.double(), 3, stride=1, padding=1).long()
        else:
            spread = torch.stack(
                [-F.max_pool2d(-wanted.double(), k, stride=1, padding=(k[0] // 2, k[1] // 2)) for k in ((1, 3), (3, 1))]
            ).amin(0).long()  # fmt: skip
        spread = spread.masked_fill(member == 0, member.numel())
        if torch.equal(spread, wanted):
            break
        wanted = spread
    assert torch.equal(roots[member > 0].long(), wanted[member > 0])
    own = torch.arange(member.numel()).view(member.shape)
    assert torch.equal(roots[member == 0].long(), own[member == 0])


def test_the_order_of_the_levels_does_not_matter_and_no_map_is_no_region() -> None:
    given = planes((9, 12), 4, seed=1)
    one, other = (kernels.regions_between_edges(given, low=a, high=b) for a, b in ((10, 100), (100, 10)))
    assert torch.equal(one, other)
    assert kernels.regions_between_edges(given[:0], low=10, high=100).shape == (0, 9, 12)
