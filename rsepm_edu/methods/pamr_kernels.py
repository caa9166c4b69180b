"""PAMR on a GPU: the affinities in one launch and each iteration in one, where torch needs one for every shift.

Written in Triton, which comes with torch on CUDA and compiles on the spot. ``pamr.py`` holds the plain form of both,
which gives the same numbers and is taken wherever these cannot run: see ``works``.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # torch without CUDA
    triton = None

BLOCK = 128
"""Pixels that one program works on."""

AT_ONCE = 8
"""Maps that one program works on, so that a weight is read once for all of them."""


@cache
def works(device: torch.device) -> bool:
    """Whether these kernels run on a device: they are tried on it once, on a tiny picture."""
    if triton is None or device.type != "cuda":
        return False
    image = torch.zeros(1, 1, 2, 2, device=device)
    try:
        affinity = fused_affinity(image, [(0, 1), (1, 0)] * 4, sigma=0.1)
        return bool((fused_sum(image + 1, affinity, [(0, 1), (1, 0)] * 4) - 1).abs().max() < 1e-5)
    except Exception:  # no compiler for its launcher, an old card, another version: each has an error of its own
        return False


def fused_affinity(image: Tensor, offsets: Sequence[tuple[int, int]], *, sigma: float) -> Tensor:
    """``pamr.colour_affinity`` in one launch.

    Args:
        image: B×C×H×W float32.
        offsets, sigma: see there.

    Returns:
        B×len(offsets)×H×W float32.
    """
    batch, channels, height, width = image.shape
    affinity = image.new_empty(batch, len(offsets), height, width)
    down, right = _on_device(tuple(offsets), image.device)
    with torch.cuda.device_of(image):
        _affinity_kernel[(triton.cdiv(height * width, BLOCK), batch)](
            image.contiguous(), affinity, down, right, channels, height, width, sigma, len(offsets), BLOCK
        )
    return affinity


def fused_sum(maps: Tensor, weights: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """One iteration of PAMR in one launch: Σ_j weight_j · (the map at pixel + offset_j, the border repeated).

    Args:
        maps: B×K×H×W float32.
        weights: B×len(offsets)×H×W float32, contiguous.
        offsets: (dy, dx) in pixels.

    Returns:
        B×K×H×W float32.
    """
    batch, count, height, width = maps.shape
    result = torch.empty_like(maps, memory_format=torch.contiguous_format)
    down, right = _on_device(tuple(offsets), maps.device)
    together = min(AT_ONCE, triton.next_power_of_2(count))
    with torch.cuda.device_of(maps):
        _sum_kernel[(triton.cdiv(height * width, BLOCK), triton.cdiv(count, together), batch)](
            maps.contiguous(), weights, result, down, right, count, height, width, len(offsets), together, BLOCK
        )
    return result


@cache
def _on_device(offsets: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept, since a copy to a GPU makes the host wait."""
    with torch.inference_mode(False):
        down, right = torch.tensor(offsets, dtype=torch.int32).T.contiguous().to(device)
    return down, right


if triton is not None:

    @triton.jit
    def _neighbour(y, x, down, right, j, height, width):  # type: ignore[no-untyped-def]
        """Number, in its plane, of the pixel at an offset; beyond the border the border repeats."""
        v = tl.minimum(tl.maximum(y + tl.load(down + j), 0), height - 1)
        u = tl.minimum(tl.maximum(x + tl.load(right + j), 0), width - 1)
        return v * width + u

    @triton.jit
    def _affinity_kernel(  # type: ignore[no-untyped-def]
        image, affinity, down, right, channels, height, width, sigma, N: tl.constexpr, PIXELS: tl.constexpr
    ):
        size = height * width
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        picture = tl.program_id(1).to(tl.int64)
        inside = pixel < size
        y, x = pixel // width, pixel % width
        out = affinity + picture * N * size + pixel
        positions = N + N // 8
        # A program reads back only what it wrote itself; the barriers keep its threads in step.
        for channel in range(channels):
            plane = image + (picture * channels + channel) * size
            own = tl.load(plane + pixel, mask=inside, other=0.0)
            total = tl.zeros([PIXELS], tl.float32)
            squares = tl.zeros([PIXELS], tl.float32)
            for j in range(N):
                place = _neighbour(y, x, down, right, j, height, width)
                difference = tl.load(plane + place, mask=inside, other=0.0) - own
                total += difference
                squares += difference * difference
            variance = (squares - total * total / positions) / (positions - 1)
            unit = -1.0 / (1e-8 + sigma * tl.sqrt(tl.maximum(variance, 0.0))) / channels
            for j in range(N):
                place = _neighbour(y, x, down, right, j, height, width)
                logit = tl.abs(tl.load(plane + place, mask=inside, other=0.0) - own) * unit
                before = tl.load(out + j * size, mask=inside & (channel > 0), other=0.0)
                tl.store(out + j * size, before + logit, mask=inside)
            tl.debug_barrier()
        highest = tl.full([PIXELS], -float("inf"), tl.float32)
        for j in range(N):
            highest = tl.maximum(highest, tl.load(out + j * size, mask=inside, other=0.0))
        whole = tl.zeros([PIXELS], tl.float32)
        for j in range(N):
            whole += tl.exp(tl.load(out + j * size, mask=inside, other=0.0) - highest)
        for j in range(N):
            power = tl.exp(tl.load(out + j * size, mask=inside, other=0.0) - highest)
            tl.store(out + j * size, power / whole, mask=inside)

    @triton.jit
    def _sum_kernel(  # type: ignore[no-untyped-def]
        maps, weights, result, down, right, count, height, width, N: tl.constexpr, MAPS: tl.constexpr,
        PIXELS: tl.constexpr
    ):  # fmt: skip
        size = height * width
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        number = tl.program_id(1) * MAPS + tl.arange(0, MAPS)
        picture = tl.program_id(2).to(tl.int64)
        inside = pixel < size
        y, x = pixel // width, pixel % width
        plane = ((picture * count + number) * size)[:, None]
        there = (number < count)[:, None] & inside[None, :]
        total = tl.zeros([MAPS, PIXELS], tl.float32)
        for j in range(N):
            place = _neighbour(y, x, down, right, j, height, width)
            weight = tl.load(weights + (picture * N + j) * size + pixel, mask=inside, other=0.0)
            total += weight[None, :] * tl.load(maps + plane + place[None, :], mask=there, other=0.0)
        tl.store(result + plane + pixel[None, :], total, mask=there)
