"""Gaussian filtering of many points in a space of a few dimensions, by the permutohedral lattice.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010. Every point
gives its value to the d + 1 corners of the simplex it lies in (splat), the corners exchange values with their
neighbours along the d + 1 axes of the lattice (blur), and the point takes back a weighted mean (slice).

Our reading: only corners of a simplex with a point in it exist; a neighbour that does not exist counts as zero.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class SparseRows(NamedTuple):
    """A sparse matrix by rows: the ``weights`` at the columns ``indices``.

    Rows of one length are a matrix of indices; rows of any length are a vector of them with ``offsets``, where each
    row starts and the last one ends.
    """

    indices: Tensor
    weights: Tensor
    offsets: Tensor | None = None

    def times(self, values: Tensor) -> Tensor:
        """The product with a dense matrix: columns×C to rows×C."""
        # This sums row by row without a list of all products, and torch has it for every device.
        return F.embedding_bag(
            self.indices,
            values,
            self.offsets,
            mode="sum",
            per_sample_weights=self.weights,
            include_last_offset=self.offsets is not None,
        )


class Lattice(NamedTuple):
    """The lattice of some points, built once by ``permutohedral_lattice`` and good for any number of filterings."""

    splat: SparseRows
    blurs: Sequence[SparseRows]
    slice: SparseRows

    def filter(self, values: Tensor) -> Tensor:
        """Σ_j exp(−|f_i − f_j|² / 2) v_j for every point i, nearly, and up to one constant factor.

        Args:
            values: B×N×C at the points, in the dtype of the features.

        Returns:
            B×N×C.
        """
        corners = self.splat.times(values.flatten(0, 1))
        for blur in self.blurs:
            corners = blur.times(corners)
        return self.slice.times(corners).view(values.shape)


def permutohedral_lattice(features: Tensor) -> Lattice:
    """The lattice around points whose Gaussian has a standard deviation of one in every dimension (Adams et al. 2010).

    Points are scaled by √(2/3)·(d + 1), so that splat, blur and slice together have a variance of one, and turned into
    the plane of R^(d+1) whose coordinates add up to zero. Near each lies a lattice point whose coordinates are
    multiples of d + 1; sorting what is left over tells the simplex, and its differences are the barycentric weights.
    From this corner the others are reached by one step along each axis, the axis with the least left over first.

    Args:
        features: B×N×d, float32 or float64; pictures of a batch do not touch each other.

    Returns:
        The lattice. It holds 4·(d + 1) numbers a point and 6·(d + 1) a corner, half of them integers.

    Raises:
        ValueError: points lie so many standard deviations apart that a corner's place does not fit in 63 bits.
    """
    batch, _, d = features.shape
    nearest, order, weights = _simplices(features.flatten(0, 1))
    first, steps = _packed(nearest, batch)
    places = torch.cat([first[None], first + steps[order[:d]].cumsum(0)])
    ordered, source = places.flatten().sort(stable=True)
    corners, corner, counts = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
    splat = SparseRows((source % len(first)).int(), weights.flatten()[source], F.pad(counts.cumsum(0), (1, 0)).int())
    at_point = torch.empty_like(corner).scatter_(0, source, corner).view_as(weights).int()
    slices = SparseRows(at_point.t().contiguous(), weights.t().contiguous())
    return Lattice(splat, [_blur(corners, step, weights.dtype) for step in steps], slices)


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For N×d points: a corner near each, the axes in the order of the walk from it, the weights on that walk.

    All three are (d+1)×N: with the points side by side in memory, each line below is one quick sweep.
    """
    # In place and in 32 bits where it can be: fetching fresh memory takes longer than the sums.
    left = _elevated(features.t())
    axes, count = left.shape
    # Rounding may leave the plane by a surplus; the coordinates that were rounded the farthest are moved back.
    nearest = left.round()
    left -= nearest
    rank = _rank(left).add_(nearest.sum(0).int())
    moved = (rank < 0).int().sub_((rank >= axes).int())
    left -= moved
    nearest = nearest.long().add_(moved)
    walk = moved.mul_(-axes).sub_(rank).add_(axes - 1)  # which step of the walk is along this axis
    # One flat index for both scatters: along the first dimension of two, torch takes several times as long.
    place = (walk.long() * count).add_(torch.arange(count, device=left.device)).flatten()
    axis = torch.arange(axes, device=left.device).repeat_interleave(count)
    order = torch.empty_like(place).scatter_(0, place, axis).view_as(left)
    differences = torch.empty_like(left).flatten().scatter_(0, place, left.flatten()).view_as(left).diff(dim=0)
    return nearest, order, torch.cat([1 - differences.sum(0, keepdim=True), differences])


def _rank(values: Tensor) -> Tensor:
    """How many entries of its column come before each entry, the greatest first, equals from top to bottom."""
    # Pair by pair: sorting millions of columns of six takes several times as long.
    rank = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
    for i in range(len(values)):
        for j in range(i + 1, len(values)):
            before = values[i] >= values[j]
            rank[j] += before
            rank[i] += ~before
    return rank


def _elevated(features: Tensor) -> Tensor:
    """d×N points as (d+1)×N on the plane where coordinates add up to zero, in units of d + 1."""
    axis = torch.arange(1, len(features) + 1, device=features.device, dtype=features.dtype)[:, None]
    scaled = features * ((2 / 3) / (axis * (axis + 1))).sqrt()
    # No product with a matrix: autocast and TF32 would round the coordinates.
    tails = scaled.flip(0).cumsum(0).flip(0)
    return F.pad(tails, (0, 0, 0, 1)) - F.pad(axis * scaled, (0, 0, 1, 0))


def _packed(nearest: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """One integer for each of the lattice points (d+1)×N, and what a step along each of the d + 1 axes adds to it.

    A step adds 1 to all coordinates and takes d + 1 from that of its axis. So the coordinates of a corner leave the
    same remainder modulo d + 1, and the first one and the differences to it, divided by d + 1, say all; the last
    coordinate follows, since they add up to zero.
    """
    d, count = len(nearest) - 1, nearest.shape[1]
    digits = torch.cat([nearest[:1] * (d + 1), nearest[1:d] - nearest[:1]])
    step = torch.zeros(d + 1, d, dtype=torch.long, device=nearest.device)
    step[1:, 0] = 1
    step[0, 0] = -d
    step[0, 1:] = 1
    step[1:d, 1:].fill_diagonal_(-1)
    margin = 2 * step.abs().amax(0)  # a corner is a walk of different steps away, its neighbour one step more
    lowest = digits.amin(1) - margin
    spans = (digits.amax(1) + margin - lowest + 1).tolist()
    strides = [1]
    for span in spans:
        strides.append(strides[-1] * span)
    if strides[-1] * batch >= 2**63:
        raise ValueError(f"expected points within fewer standard deviations, got a lattice of {spans} a picture")
    stride = torch.tensor(strides[:-1], device=nearest.device)
    picture = torch.arange(batch, device=nearest.device).repeat_interleave(count // batch)
    first = ((digits - lowest[:, None]) * stride[:, None]).sum(0) + picture * strides[-1]
    return first, (step * stride).sum(1)


def _blur(corners: Tensor, step: Tensor, dtype: torch.dtype) -> SparseRows:
    """Every corner keeps its value and takes half of that of both its neighbours along one axis."""
    count = len(corners)
    own = torch.arange(count, device=corners.device)
    ahead = torch.searchsorted(corners, corners + step).clamp_(max=count - 1)
    found = corners[ahead] == corners + step
    # A corner without a neighbour stands in for it, with weight zero: rows of one length are quicker to build.
    behind = torch.arange(count + 1, device=corners.device).scatter_(0, torch.where(found, ahead, count), own)[:count]
    columns = torch.stack([own, torch.where(found, ahead, own), behind], dim=1)
    weights = (columns != own[:, None]).to(dtype).mul_(0.5)
    weights[:, 0] = 1
    return SparseRows(columns.int(), weights)
