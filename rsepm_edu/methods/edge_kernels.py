"""The regions between Canny's edges on a GPU, number for number those that OpenCV finds on the CPU.

Written in Triton, which comes with torch on CUDA and compiles on the spot. ``edgepredictmix.edge_regions`` takes
OpenCV wherever these kernels cannot run: see ``works``. What hangs together is found by union and find: every run of
pixels in a row begins as a tree of its own, runs that touch are united by one atomic operation each, and the root of a
tree is its first pixel.
"""

from functools import cache

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # torch without CUDA
    triton = None

BLOCK = 256
"""Pixels that one program works on."""


@cache
def works(device: torch.device) -> bool:
    """Whether these kernels run on a device: they are tried on it once, on a tiny picture."""
    if triton is None or device.type != "cuda":
        return False
    planes = torch.zeros(1, 3, 8, dtype=torch.uint8, device=device)
    planes[..., 4:] = 255
    try:
        found = regions_between_edges(planes, low=10, high=100).tolist()
    except Exception:  # no compiler for its launcher, an old card, another version: each has an error of its own
        return False
    return bool(found == [[[1, 1, 1, 0, 2, 2, 2, 2]] * 3])


def regions_between_edges(planes: Tensor, *, low: int, high: int) -> Tensor:
    """See ``edgepredictmix.edge_regions``: Gaussian of 5×5, Canny, connected components of what is no edge.

    Args:
        planes: N×H×W uint8, of fewer than 2³¹ pixels.
        low, high: hysteresis thresholds on the Sobel gradient.

    Returns:
        N×H×W int64: 0 on an edge, elsewhere the number of the region, from 1 in the order of first pixels.
    """
    count, height, width = planes.shape
    if planes.numel() == 0:
        return planes.long()
    grid = (triton.cdiv(height * width, BLOCK), count)
    size = height, width
    with torch.cuda.device_of(planes):
        smooth, kind = torch.empty_like(planes), torch.empty_like(planes)
        _blur_kernel[grid](planes.contiguous(), smooth, *size, BLOCK)
        _candidates_kernel[grid](smooth, kind, min(low, high), max(low, high), *size, BLOCK)
        parents = _trees(kind, corners=True)
        holds, free = torch.zeros_like(kind), torch.empty_like(kind)
        _mark_kernel[grid](parents, kind, holds, *size, BLOCK)
        _free_kernel[grid](parents, kind, holds, free, *size, BLOCK)
        parents = _trees(free, corners=False)
        roots = (parents == _indices(parents)) & (free > 0)
        numbers = roots.flatten().cumsum(0, dtype=torch.int32).view(count, -1)
        numbers = numbers - (numbers[:, :1] - roots.flatten(1)[:, :1].int())  # from 1 in every map
        regions = torch.empty(planes.shape, dtype=torch.int64, device=planes.device)
        _name_kernel[grid](parents, free, numbers, regions, *size, BLOCK)
    return regions


def _trees(member: Tensor, *, corners: bool) -> Tensor:
    """Of every pixel that is a member the first of its run; of that one the root of what hangs together with it.

    Args:
        member: N×H×W uint8, not 0 for a member.
        corners: whether pixels that touch by a corner hang together too.

    Returns:
        N×H×W int32, numbers of pixels in the whole batch; of no member its own.
    """
    count, height, width = member.shape
    grid = (triton.cdiv(height * width, BLOCK), count)
    begins = torch.ones_like(member)
    begins[..., 1:] = (member[..., 1:] == 0) | (member[..., :-1] == 0)
    parents = (_indices(member) * begins).cummax(dim=2).values
    _unite_kernel[grid](parents, member, height, width, corners, BLOCK)
    _climb_kernel[grid](parents, begins, height, width, BLOCK)
    return parents


def _indices(like: Tensor) -> Tensor:
    return torch.arange(like.numel(), dtype=torch.int32, device=like.device).view(like.shape)


if triton is not None:

    @triton.jit
    def _place(height, width, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
        """Of this program's pixels: number of their map's first, their number in it, and whether they are in it."""
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        return tl.program_id(1) * (height * width), pixel, pixel < height * width

    @triton.jit
    def _mirrored(place, length):  # type: ignore[no-untyped-def]
        """A place beyond the border as OpenCV mirrors it: the last pixel itself is not repeated."""
        period = 2 * (length - 1)
        place = tl.where(place < 0, -place, place) % tl.maximum(period, 1)
        return tl.minimum(place, period - place)

    @triton.jit
    def _blur_kernel(planes, smooth, height, width, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
        first, pixel, inside = _place(height, width, PIXELS)
        y, x = pixel // width, pixel % width
        total = tl.full([PIXELS], 128, tl.int32)  # halves are rounded up
        for i in tl.static_range(5):
            v = _mirrored(y + (i - 2), height)
            for j in tl.static_range(5):
                value = tl.load(planes + first + v * width + _mirrored(x + (j - 2), width), mask=inside, other=0)
                # 1 4 6 4 1 along both axes
                total += value.to(tl.int32) * (
                    (6 if i == 2 else 4 if i % 2 == 1 else 1) * (6 if j == 2 else 4 if j % 2 == 1 else 1)
                )
        tl.store(smooth + first + pixel, (total >> 8).to(tl.uint8), mask=inside)

    @triton.jit
    def _gradient(plane, y, x, height, width, mask):  # type: ignore[no-untyped-def]
        """Sobel's differences along x and y, the border repeated, and their length, 0 beyond the border."""
        up = tl.minimum(tl.maximum(y - 1, 0), height - 1) * width
        middle = tl.minimum(tl.maximum(y, 0), height - 1) * width
        down = tl.minimum(tl.maximum(y + 1, 0), height - 1) * width
        left = tl.minimum(tl.maximum(x - 1, 0), width - 1)
        centre = tl.minimum(tl.maximum(x, 0), width - 1)
        right = tl.minimum(tl.maximum(x + 1, 0), width - 1)
        a = tl.load(plane + up + left, mask=mask, other=0).to(tl.int32)
        b = tl.load(plane + up + centre, mask=mask, other=0).to(tl.int32)
        c = tl.load(plane + up + right, mask=mask, other=0).to(tl.int32)
        d = tl.load(plane + middle + left, mask=mask, other=0).to(tl.int32)
        e = tl.load(plane + middle + right, mask=mask, other=0).to(tl.int32)
        f = tl.load(plane + down + left, mask=mask, other=0).to(tl.int32)
        g = tl.load(plane + down + centre, mask=mask, other=0).to(tl.int32)
        h = tl.load(plane + down + right, mask=mask, other=0).to(tl.int32)
        across = c + 2 * e + h - a - 2 * d - f
        along = f + 2 * g + h - a - 2 * b - c
        within = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        return across, along, tl.where(within, tl.abs(across) + tl.abs(along), 0)

    @triton.jit
    def _candidates_kernel(smooth, kind, low, high, height, width, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
        """2: an edge; 1: an edge if it hangs together with one; 0: none, or not the highest across the edge."""
        first, pixel, inside = _place(height, width, PIXELS)
        y, x = pixel // width, pixel % width
        plane = smooth + first
        across, along, length = _gradient(plane, y, x, height, width, inside)
        wide, tall = tl.abs(across), tl.abs(along) << 15
        flat = wide * 13573  # tan 22.5° in units of 2⁻¹⁵; tan 67.5° is 2 more
        horizontal = tall < flat
        vertical = tall > flat + (wide << 16)
        side = tl.where((across ^ along) < 0, -1, 1)
        # The two neighbours along the gradient: left and right, above and below, or those of a diagonal.
        dy = tl.where(horizontal, 0, 1)
        dx = tl.where(horizontal, 1, tl.where(vertical, 0, side))
        _, _, before = _gradient(plane, y - dy, x - dx, height, width, inside)
        _, _, after = _gradient(plane, y + dy, x + dx, height, width, inside)
        highest = (length > before) & ((length > after) | ((length == after) & (horizontal | vertical)))
        found = tl.where(highest & (length > low), tl.where(length > high, 2, 1), 0)
        tl.store(kind + first + pixel, found.to(tl.uint8), mask=inside)

    @triton.jit
    def _unite(parents, a, b, todo):  # type: ignore[no-untyped-def]
        """Make one tree of those of a and b, by the smaller root. A parent that is read late is still an ancestor."""
        while tl.max(todo.to(tl.int32), axis=0) > 0:
            above_a = tl.load(parents + a, mask=todo, other=0)
            above_b = tl.load(parents + b, mask=todo, other=0)
            link = todo & (above_a == a) & (above_b == b)
            greater, smaller = tl.maximum(a, b), tl.minimum(a, b)
            old = tl.atomic_min(parents + greater, smaller, mask=link)
            # Where another was faster, what it put there has to be united with the smaller root.
            a = tl.where(link, tl.where(old == greater, smaller, old), above_a)
            b = tl.where(link, smaller, above_b)
            todo = todo & (a != b)

    @triton.jit
    def _unite_kernel(parents, member, height, width, CORNERS: tl.constexpr, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
        first, pixel, inside = _place(height, width, PIXELS)
        x = pixel % width
        above = inside & (pixel >= width)
        here = first + pixel
        own = tl.load(member + here, mask=above, other=0) > 0
        up = tl.load(member + here - width, mask=above, other=0)
        left = tl.load(member + here - 1, mask=above & (x > 0), other=0)
        up_left = tl.load(member + here - width - 1, mask=above & (x > 0), other=0)
        # What the pixel on the left does already is left out.
        _unite(parents, here, here - width, own & (up > 0) & ((left == 0) | (up_left == 0)))
        if CORNERS:
            right = tl.load(member + here + 1, mask=above & (x < width - 1), other=0)
            up_right = tl.load(member + here - width + 1, mask=above & (x < width - 1), other=0)
            _unite(parents, here, here - width - 1, own & (up_left > 0) & (up == 0) & (left == 0))
            _unite(parents, here, here - width + 1, own & (up_right > 0) & (up == 0) & (right == 0))

    @triton.jit
    def _climb_kernel(parents, begins, height, width, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
        """The root in place of the parent, for the first pixel of every run."""
        first, pixel, inside = _place(height, width, PIXELS)
        here = first + pixel
        todo = tl.load(begins + here, mask=inside, other=0) > 0
        begin = todo
        root = here
        while tl.max(todo.to(tl.int32), axis=0) > 0:
            parent = tl.load(parents + root, mask=todo, other=0)
            todo = todo & (parent != root)
            root = tl.where(todo, parent, root)
        tl.store(parents + here, root, mask=begin)

    @triton.jit
    def _root(parents, place, mask):  # type: ignore[no-untyped-def]
        return tl.load(parents + tl.load(parents + place, mask=mask, other=0), mask=mask, other=0)

    @triton.jit
    def _mark_kernel(parents, kind, holds, height, width, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
        """Roots of what holds an edge that is certain."""
        first, pixel, inside = _place(height, width, PIXELS)
        sure = tl.load(kind + first + pixel, mask=inside, other=0) == 2
        root = _root(parents, first + pixel, sure)
        tl.store(holds + root, tl.full([PIXELS], 1, tl.uint8), mask=sure)

    @triton.jit
    def _free_kernel(parents, kind, holds, free, height, width, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
        """1 for what is no edge."""
        first, pixel, inside = _place(height, width, PIXELS)
        maybe = tl.load(kind + first + pixel, mask=inside, other=0) > 0
        edge = tl.load(holds + _root(parents, first + pixel, maybe), mask=maybe, other=0) > 0
        tl.store(free + first + pixel, tl.where(edge, 0, 1).to(tl.uint8), mask=inside)

    @triton.jit
    def _name_kernel(parents, free, numbers, regions, height, width, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
        """The number of its root for every pixel that is no edge."""
        first, pixel, inside = _place(height, width, PIXELS)
        named = tl.load(free + first + pixel, mask=inside, other=0) > 0
        number = tl.load(numbers + _root(parents, first + pixel, named), mask=named, other=0)
        tl.store(regions + first + pixel, number.to(tl.int64), mask=inside)
