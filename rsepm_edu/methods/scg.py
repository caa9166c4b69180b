"""Self-correlation map generating (SCG): features that agree spread a map over the whole object.

Pan et al., "Unveiling the Potential of Structure Preserving for Weakly Supervised Object Localization", CVPR 2021;
the thresholds are the defaults that RecurSeed's authors released (Jo, Yu & Kim 2022).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.methods.shapes import expect_maps, expect_tags

MATRIX = 2**24
"""Entries of the matrices of all pictures that are worked on together, or one picture's: 67 MB in float32."""

MATRIX_ON_GPU = 2**26
"""The same on a GPU, whose cores few blocks of one picture do not fill: 268 MB."""

BLOCK = 1024
"""Rows of a symmetric product that are computed together."""


def min_max(values: Tensor, dim: int) -> Tensor:
    """Stretch ``values`` to [0, 1] along ``dim``: (v − min) / (max − min + 1e-10); what is constant becomes zero."""
    low = values.amin(dim, keepdim=True)
    return (values - low) / (values.amax(dim, keepdim=True) - low + 1e-10)


def self_correlation(
    features: Tensor, *, first_threshold: float = 0.50, second_threshold: float = 0.10
) -> tuple[Tensor, Tensor]:
    """First- and second-order self-correlation of a feature map (Pan et al. 2021).

    With F̂ the features divided by their length at each position, S = ReLU(F̂ᵀF̂), entries below ``first_threshold``
    set to 0. First order: S / column sum. Second order: S without its diagonal, columns normalised, times itself,
    columns normalised again, entries below ``second_threshold`` / (h·w) set to 0: two positions agree when they
    agree with the same others.

    Args:
        features: B×C×h×w.
        first_threshold: cosine similarity, in [0, 1].
        second_threshold: in units of the uniform value 1 / (h·w).

    Returns:
        Two tensors B×hw×hw, non-negative; column j holds how much every position goes with position j.
    """
    expect_maps(features=features)
    directions = F.normalize(features.flatten(2), dim=1)
    similarity = torch.bmm(directions.transpose(1, 2), directions).relu()
    similarity = similarity * (similarity >= first_threshold)
    first = similarity / (similarity.sum(1, keepdim=True) + 1e-5)

    off_diagonal = similarity - torch.diag_embed(similarity.diagonal(dim1=1, dim2=2))
    step = off_diagonal / (off_diagonal.sum(1, keepdim=True) + 1e-10)
    second = torch.bmm(step, step)
    second = second / (second.sum(1, keepdim=True) + 1e-10)
    second = second * (second >= second_threshold / similarity.shape[1])
    return first, second


def correlated_map(correlation: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """What goes with the positive positions and not with the negative ones (Pan et al. 2021).

    Columns of ``correlation`` are min-max normalised; those of the positives are averaged and stretched, those of
    the negatives likewise; the map is the stretched positive part of the difference.

    Args:
        correlation: B×n×n from ``self_correlation``, n = h·w.
        positive: B×K×n in {0, 1}.
        negative: B×K×n in {0, 1}.

    Returns:
        B×K×n in [0, 1].
    """
    rows = min_max(correlation, dim=1).transpose(1, 2)

    def average(chosen: Tensor) -> Tensor:
        return min_max(torch.bmm(chosen, rows) / chosen.sum(2, keepdim=True).clamp(min=1), dim=2)

    return min_max((average(positive) - average(negative)).relu(), dim=2)


def scg(
    features: Tensor | Sequence[Tensor],
    cam: Tensor,
    tags: Tensor,
    *,
    first_threshold: float = 0.50,
    second_threshold: float = 0.10,
    foreground: float = 0.30,
    background: float = 0.05,
) -> Tensor:
    """Spread a normalised CAM along the self-correlation of the features (Pan et al. 2021).

    Positives are the positions with cam ≥ ``foreground``, negatives those with cam ≤ ``background``. Over the given
    stages and both orders the element-wise maximum is taken. Our reading where stages differ in size: the cam is
    resized to the stage and the result back to the cam's size, bilinearly.

    Memory: without gradients three matrices (h·w)² of as many pictures as go together in ``MATRIX`` entries, on a GPU
    in ``MATRIX_ON_GPU``. Features in half precision (autocast) are multiplied in TF32 where a GPU has it: its 11 bits
    are no fewer than theirs, sums stay float32.

    Args:
        features: B×C×h×w of one stage, or one such tensor per stage (any size).
        cam: B×K×h×w normalised maps in [0, 1].
        tags: B×K in {0, 1}; absent classes stay zero.
        first_threshold, second_threshold: see ``self_correlation``.
        foreground, background: on the cam, in [0, 1].

    Returns:
        The seed, B×K×h×w in [0, 1], of the cam's size and dtype.

    Raises:
        ValueError: the shapes do not go together, or there is no stage.
    """
    expect_maps(cam=cam)
    expect_tags(tags, cam)
    stages = [features] if isinstance(features, Tensor) else list(features)
    if not stages:
        raise ValueError("features: expected at least one stage, got none")
    size = cam.shape[2:]
    exact = torch.promote_types(cam.dtype, torch.float32)  # half precision loses sums over h·w entries
    maps = cam.to(exact)
    seed = torch.zeros_like(maps)
    for stage in stages:
        expect_maps(features=stage)
        if stage.shape[0] != cam.shape[0]:
            raise ValueError(f"features: expected the cam's batch of {cam.shape[0]}, got shape {tuple(stage.shape)}")
        at_stage = maps if stage.shape[2:] == size else _resize(maps, stage.shape[2:])
        flat = at_stage.flatten(2)
        positive = (flat >= foreground).to(exact)
        negative = (flat <= background).to(exact)
        spreads = _spread_plainly if stage.requires_grad and torch.is_grad_enabled() else _spread_in_blocks
        with _products(like=stage):
            found = spreads(stage.to(exact), positive, negative, first_threshold, second_threshold)
        for spread in found:
            spread = spread.view_as(at_stage)
            seed = torch.maximum(seed, spread if stage.shape[2:] == size else _resize(spread, size))
    return (seed * tags[:, :, None, None].to(exact)).to(cam.dtype)


@contextmanager
def _products(*, like: Tensor) -> Iterator[None]:
    """Products of float32 matrices on a GPU as exact as the features that they are made from."""
    if not like.is_cuda or like.dtype not in (torch.float16, torch.bfloat16):
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _spread_plainly(
    features: Tensor, positive: Tensor, negative: Tensor, first_threshold: float, second_threshold: float
) -> list[Tensor]:
    """The maps of both orders as the formulas stand above; every matrix is kept for the gradient. B×K×n each."""
    orders = self_correlation(features, first_threshold=first_threshold, second_threshold=second_threshold)
    return [correlated_map(order, positive, negative) for order in orders]


@torch.no_grad()
def _spread_in_blocks(
    features: Tensor, positive: Tensor, negative: Tensor, first_threshold: float, second_threshold: float
) -> list[Tensor]:
    """The same by fewer passes over fewer matrices.

    S, and T·D·T with T = S without its diagonal and D = 1 / column sums, are symmetric, so half of each product is
    enough. What is left of normalising is a factor a column, which goes into the few vectors that are multiplied by the
    matrix (``_spread_of``), not into the matrix.
    """
    positions = features.shape[2] * features.shape[3]
    entries = MATRIX_ON_GPU if features.is_cuda else MATRIX
    together = max(1, entries // max(1, positions * positions))
    firsts, seconds = [], []
    for maps, plus, minus in zip(
        features.split(together), positive.split(together), negative.split(together), strict=True
    ):
        directions = F.normalize(maps.flatten(2), dim=1)
        similarity = _symmetric_product(directions.transpose(1, 2), directions)
        # At least 0: the ReLU too.
        torch.threshold_(similarity, _just_below(max(first_threshold, 0.0), similarity), 0.0)
        firsts.append(_spread_of(similarity, 1 / (similarity.sum(1) + 1e-5), plus, minus))
        similarity.diagonal(dim1=1, dim2=2).zero_()
        share = 1 / (similarity.sum(1) + 1e-10)
        second = _symmetric_product(similarity * share[:, None, :], similarity)
        second *= (share / (second.sum(1) * share + 1e-10))[:, :, None]  # row j is the column j of the formula
        torch.threshold_(second, _just_below(second_threshold / positions, second), 0.0)
        seconds.append(_spread_of(second, torch.ones_like(share), plus, minus))
    return [torch.cat(firsts), torch.cat(seconds)]


def _just_below(limit: float, values: Tensor) -> float:
    """The greatest number below a limit, as these values know it: what is greater is at the limit or above."""
    pair = torch.tensor([limit, -torch.inf], dtype=values.dtype, device="cpu")
    return float(torch.nextafter(*pair))


def _symmetric_product(left: Tensor, right: Tensor) -> Tensor:
    """left · right, known to be symmetric: the blocks on and above the diagonal are computed, the others mirrored.

    Args:
        left: B×n×m.
        right: B×m×n.

    Returns:
        B×n×n.
    """
    positions = left.shape[1]
    if positions < 2 * BLOCK:
        return torch.bmm(left, right)
    product = left.new_empty(len(left), positions, positions)
    for start in range(0, positions, BLOCK):
        rows = slice(start, min(start + BLOCK, positions))
        product[:, rows, start:] = torch.bmm(left[:, rows], right[:, :, start:])
        product[:, rows.stop :, rows] = product[:, rows, rows.stop :].transpose(1, 2)
    return product


def _spread_of(columns: Tensor, scale: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """``correlated_map`` of a correlation of which row j of ``columns``, times scale_j, is column j.

    Args:
        columns: B×n×n.
        scale: B×n, non-negative.
        positive, negative: B×K×n in {0, 1}.

    Returns:
        B×K×n in [0, 1].
    """
    low, high = columns.amin(2) * scale, columns.amax(2) * scale
    stretch = (1 / (high - low + 1e-10))[:, None]

    def average(chosen: Tensor) -> Tensor:
        weight = chosen * stretch
        sums = torch.bmm(weight * scale[:, None], columns) - (weight * low[:, None]).sum(2, keepdim=True)
        return min_max(sums / chosen.sum(2, keepdim=True).clamp(min=1), dim=2)

    return min_max((average(positive) - average(negative)).relu(), dim=2)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
