"""PAMR on a GPU: the affinities in one launch and each iteration in one, where torch needs one for every shift.

Written in Triton, which comes with torch on CUDA and compiles on the spot. ``pamr.py`` holds the plain form of both,
which gives the same numbers and is taken wherever these cannot run: see ``works``. What lies on one pixel, its colours
or the values of its maps, lies together in memory here, so that one read brings four of them.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # torch without CUDA
    triton = None

TILE = (8, 16)
"""Rows and columns of the pixels that one program works on: powers of 2."""

AT_ONCE = 4
"""Maps that lie together and that one program works on: a power of 2. Of 4 a thread has all: one read of 16 bytes."""

WARPS = 4
"""Groups of 32 threads of a program."""


@cache
def works(device: torch.device) -> bool:
    """Whether these kernels run on a device: they are tried on it once, on a tiny picture."""
    if triton is None or device.type != "cuda":
        return False
    image = torch.zeros(1, 1, 2, 2, device=device)
    try:
        affinity = fused_affinity(image, (1,), sigma=0.1)
        return bool((fused_sum(image + 1, affinity, (1,), times=2) - 1).abs().max() < 1e-5)
    except Exception:  # no compiler for its launcher, an old card, another version: each has an error of its own
        return False


def fused_affinity(image: Tensor, dilations: Sequence[int], *, sigma: float) -> Tensor:
    """``pamr.colour_affinity`` in one launch, for the 8 neighbours at every dilation.

    Args:
        image: B×C×H×W float32.
        dilations: distances of the neighbours in pixels.
        sigma: see there.

    Returns:
        B×8·len(dilations)×H×W float32.
    """
    batch, channels, height, width = image.shape
    affinity = image.new_empty(batch, 8 * len(dilations), height, width)
    colours = _together(image, triton.next_power_of_2(channels))
    with torch.cuda.device_of(image):
        _affinity_kernel[(_tiles(height, width), batch)](
            colours, affinity, _on_device(tuple(dilations), image.device), len(dilations), height, width, sigma,
            1 / channels, colours.shape[4], *TILE, num_warps=WARPS,
        )  # fmt: skip
    return affinity


def fused_sum(maps: Tensor, weights: Tensor, dilations: Sequence[int], *, times: int) -> Tensor:
    """Iterations of PAMR in one launch each: Σ_j weight_j · (the map at pixel + offset_j, the border repeated).

    Args:
        maps: B×K×H×W float32.
        weights: B×8·len(dilations)×H×W float32, contiguous.
        dilations: distances of the neighbours in pixels.
        times: iterations.

    Returns:
        B×K×H×W float32.
    """
    count = maps.shape[1]
    state = _together(maps, min(AT_ONCE, triton.next_power_of_2(count)))
    other = torch.empty_like(state)
    batch, groups, height, width, together = state.shape
    rings = _on_device(tuple(dilations), maps.device)
    with torch.cuda.device_of(maps):
        launch = _sum_kernel[(_tiles(height, width) * groups, batch)]
        for _ in range(times):
            launch(
                state, weights, other, rings, len(dilations), height, width, groups, together, *TILE, num_warps=WARPS
            )
            state, other = other, state
    return state.permute(0, 1, 4, 2, 3).flatten(1, 2)[:, :count]


def _together(planes: Tensor, count: int) -> Tensor:
    """Planes in groups in which what lies on a pixel lies together, the last filled up with zeros.

    Args:
        planes: B×K×H×W.
        count: planes of a group.

    Returns:
        B×⌈K/count⌉×H×W×count.
    """
    groups = -(-planes.shape[1] // count)
    filled = F.pad(planes, (0, 0, 0, 0, 0, groups * count - planes.shape[1]))
    return filled.unflatten(1, (groups, count)).permute(0, 1, 3, 4, 2).contiguous()


def _tiles(height: int, width: int) -> int:
    return int(triton.cdiv(height, TILE[0]) * triton.cdiv(width, TILE[1]))


@cache
def _on_device(dilations: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept, since a copy to a GPU makes the host wait."""
    with torch.inference_mode(False):
        return torch.tensor(dilations, dtype=torch.int32).to(device)


if triton is not None:

    @triton.jit
    def _pixels_of(tile, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
        """Row and column of the pixels of a tile; some are beyond the picture."""
        across = tl.cdiv(width, COLUMNS)
        place = tl.arange(0, ROWS * COLUMNS)
        y = tile // across * ROWS + place // COLUMNS
        x = tile % across * COLUMNS + place % COLUMNS
        return y, x

    @triton.jit
    def _neighbour(y, x, j: tl.constexpr, dilation, height, width):  # type: ignore[no-untyped-def]
        """Number of a pixel's neighbour j, of the 3×3 places row by row; beyond the border the border repeats."""
        v = tl.minimum(tl.maximum(y + (j // 3 - 1) * dilation, 0), height - 1)
        u = tl.minimum(tl.maximum(x + (j % 3 - 1) * dilation, 0), width - 1)
        return v * width + u

    @triton.jit
    def _logit(colours, own, unit, place, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
        channel = tl.arange(0, CHANNELS)
        there = tl.load(colours + place[:, None] * CHANNELS + channel[None, :])
        return tl.sum(tl.abs(there - own) * unit, axis=1)

    @triton.jit
    def _affinity_kernel(  # type: ignore[no-untyped-def]
        colours, affinity, dilations, rings, height, width, sigma, share, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
        COLUMNS: tl.constexpr
    ):  # fmt: skip
        y, x = _pixels_of(tl.program_id(0), width, ROWS, COLUMNS)
        inside = (y < height) & (x < width)
        size = height * width
        picture = tl.program_id(1).to(tl.int64)
        colours += picture * size * CHANNELS
        channel = tl.arange(0, CHANNELS)
        # Pixels beyond the picture read the border, as neighbours do, and are not written.
        here = _neighbour(y, x, 4, 0, height, width)
        own = tl.load(colours + here[:, None] * CHANNELS + channel[None, :])
        total = tl.zeros([ROWS * COLUMNS, CHANNELS], tl.float32)
        squares = tl.zeros([ROWS * COLUMNS, CHANNELS], tl.float32)
        for ring in range(rings):
            dilation = tl.load(dilations + ring)
            for j in tl.static_range(9):
                if j != 4:
                    place = _neighbour(y, x, j, dilation, height, width)
                    difference = tl.load(colours + place[:, None] * CHANNELS + channel[None, :]) - own
                    total += difference
                    squares += difference * difference
        positions = rings * 9.0
        variance = (squares - total * total / positions) / (positions - 1)
        unit = -1.0 / (1e-8 + sigma * tl.sqrt(tl.maximum(variance, 0.0))) * share
        highest = tl.full([ROWS * COLUMNS], -float("inf"), tl.float32)
        whole = tl.zeros([ROWS * COLUMNS], tl.float32)
        for ring in range(rings):
            dilation = tl.load(dilations + ring)
            for j in tl.static_range(9):
                if j != 4:
                    logit = _logit(colours, own, unit, _neighbour(y, x, j, dilation, height, width), CHANNELS)
                    higher = tl.maximum(highest, logit)
                    whole = whole * tl.exp(highest - higher) + tl.exp(logit - higher)
                    highest = higher
        out = affinity + picture * rings * 8 * size + here
        for ring in range(rings):
            dilation = tl.load(dilations + ring)
            for j in tl.static_range(9):
                if j != 4:
                    # Computed anew: cheaper than to write and to read it.
                    logit = _logit(colours, own, unit, _neighbour(y, x, j, dilation, height, width), CHANNELS)
                    tl.store(out, tl.exp(logit - highest) / whole, mask=inside)
                    out += size

    @triton.jit
    def _sum_kernel(  # type: ignore[no-untyped-def]
        maps, weights, result, dilations, rings, height, width, groups, MAPS: tl.constexpr, ROWS: tl.constexpr,
        COLUMNS: tl.constexpr
    ):  # fmt: skip
        # Programs that read the same weights are neighbours in time.
        y, x = _pixels_of(tl.program_id(0) // groups, width, ROWS, COLUMNS)
        inside = (y < height) & (x < width)
        size = height * width
        picture = tl.program_id(1).to(tl.int64)
        number = tl.arange(0, MAPS)
        here = _neighbour(y, x, 4, 0, height, width)
        plane = (picture * groups + tl.program_id(0) % groups) * size * MAPS
        maps += plane
        weight = weights + picture * rings * 8 * size + here
        total = tl.zeros([ROWS * COLUMNS, MAPS], tl.float32)
        for ring in range(rings):
            dilation = tl.load(dilations + ring)
            for j in tl.static_range(9):
                if j != 4:
                    place = _neighbour(y, x, j, dilation, height, width)
                    value = tl.load(maps + place[:, None] * MAPS + number[None, :])
                    total += tl.load(weight)[:, None] * value
                    weight += size
        tl.store(result + plane + here[:, None] * MAPS + number[None, :], total, mask=inside[:, None])
