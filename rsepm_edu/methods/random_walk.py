"""Random walks between neighbouring positions: a seed spreads until it meets the boundary of its object.

Ahn & Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision", CVPR 2018 (AffinityNet);
Ahn, Cho & Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019 (IRNet;
here its class-boundary branch alone, without the displacement field).

Pairs of positions are held as *planes*, B×N×h×w: plane n at position u belongs to the pair (u, u + offset_n), with
offset_n of ``pair_offsets`` (the lower half of a disc: each pair stands once). Affinities of pairs that leave the map
are 0, and no label speaks of them.

The originals build the transition matrix T, (h·w)×(h·w), square it 8 times and multiply the seed by it. Here the seed
takes T's 256 steps itself: the same result without the matrix.

Our reading, and where the originals' papers and released codes differ:
    * AffinityNet's affinity: exp(−mean_c |f_ic − f_jc|), as in the released code; the paper has the sum over channels,
      which the published beta and learning rate do not go with;
    * both losses weigh ¼, ¼ and ½, as in the released codes; IRNet's paper has twice that, ½, ½ and 1;
    * every pair within the map counts; the originals leave out, in training, positions whose disc leaves the map;
    * IRNet's result is divided by the maximum over all maps of a picture, as in the released code (so a class that has
      almost nothing left stays weak), at the size of the edge map rather than after enlarging.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.labels import BACKGROUND, VOID
from rsepm_edu.methods.shapes import ROUNDING, expect_maps

Offset = tuple[int, int]


class Pairs(NamedTuple):
    """What labels say of pairs: three B×N×h×w boolean tensors (see the module), none true where a label is void."""

    background: Tensor  # both are background
    foreground: Tensor  # both are of the same class
    different: Tensor  # one is of another label than the other


@cache
def pair_offsets(radius: int) -> tuple[Offset, ...]:
    """Offsets (dy, dx) of the pairs, dy² + dx² < radius², each with only one of ±(dy, dx): 34 for a radius of 5.

    Raises:
        ValueError: radius < 2, which leaves no pair.
    """
    if radius < 2:
        raise ValueError(f"radius: expected at least 2, got {radius}")
    reach = range(1 - radius, radius)
    return tuple(
        (dy, dx) for dy in range(radius) for dx in reach if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius * radius
    )


@cache
def straight_path(offset: Offset) -> tuple[Offset, ...]:
    """Positions on the way from (0, 0) to ``offset``, both ends included (Ahn et al. 2019).

    All those in the rectangle between the two whose distance from the straight line is less than 1.
    """
    dy, dx = offset
    return tuple(
        (y, x)
        for y in range(min(0, dy), max(0, dy) + 1)
        for x in range(min(0, dx), max(0, dx) + 1)
        if (dy * x - dx * y) ** 2 < dy * dy + dx * dx
    )


def edge_affinity(edge: Tensor, *, radius: int = 5) -> Tensor:
    """Affinity of pairs by the strongest edge between them (Ahn et al. 2019): a_ij = 1 − max_{k on the path} edge_k.

    Args:
        edge: B×1×h×w in [0, 1].
        radius: of the pairs, in positions; 10 in IRNet's training, 5 in its walk.

    Returns:
        B×N×h×w planes in [0, 1]. A gradient flows to the strongest edge of each path alone.

    Raises:
        ValueError: an edge map of another shape, or radius < 2.
    """
    expect_maps(edge=edge)
    if edge.shape[1] != 1:
        raise ValueError(f"edge: expected Bx1xhxw, got shape {tuple(edge.shape)}")
    offsets = pair_offsets(radius)
    places = sorted({place for offset in offsets for place in straight_path(offset)})
    # Beyond the border stands an edge of 1: pairs that leave the map get an affinity of 0, the others never see it.
    views = dict(zip(places, _shifted(edge[:, 0], places, fill=1.0), strict=True))
    planes = [
        # max(dim) keeps, for the gradient, which one it was; amax would keep the whole stack.
        1 - torch.stack([views[place] for place in straight_path(offset)], dim=1).max(dim=1).values
        for offset in offsets
    ]
    return torch.stack(planes, dim=1)


def feature_affinity(features: Tensor, *, radius: int = 5) -> Tensor:
    """Affinity of pairs by their features (Ahn & Kwak 2018): a_ij = exp(−mean_c |f_ic − f_jc|).

    Args:
        features: B×C×h×w.
        radius: of the pairs, in positions.

    Returns:
        B×N×h×w planes in [0, 1].

    Raises:
        ValueError: features that are not maps, or radius < 2.
    """
    expect_maps(features=features)
    offsets = pair_offsets(radius)
    inside = _shifted(torch.ones_like(features[:1, 0]), offsets, fill=0.0)
    planes = [
        (features - neighbour).abs().mean(1).neg().exp() * there
        for neighbour, there in zip(_shifted(features, offsets, fill=0.0), inside, strict=True)
    ]
    return torch.stack(planes, dim=1)


def affinity_labels(labels: Tensor, *, radius: int = 5) -> Pairs:
    """Sort pairs by what confident labels say of them (both papers).

    Args:
        labels: B×h×w integers, 0 background, 1 … K, 255 void, at the size of the affinities.
        radius: of the pairs, in positions.

    Returns:
        ``Pairs``; a pair with a void end, or an end off the map, is in none of the three.

    Raises:
        ValueError: labels that are not B×h×w integers, or radius < 2.
    """
    if labels.ndim != 3 or labels.is_floating_point():
        raise ValueError(f"labels: expected BxHxW integers, got shape {tuple(labels.shape)} of {labels.dtype}")
    first = labels[:, None]
    second = torch.stack(_shifted(labels, pair_offsets(radius), fill=VOID), dim=1)
    known = (first != VOID) & (second != VOID)
    same = first == second
    return Pairs(
        background=known & same & (first == BACKGROUND),
        foreground=known & same & (first != BACKGROUND),
        different=known & ~same,
    )


def affinity_loss(affinity: Tensor, pairs: Pairs) -> Tensor:
    """Cross entropy of affinities, the three kinds of pairs balanced (both released codes).

    ¼·mean_bg(−log a) + ¼·mean_fg(−log a) + ½·mean_different(−log(1 − a)), each mean over the pairs of that kind in the
    whole batch, 0 where there is none; 1e-5 is added within the logarithms.

    Args:
        affinity: B×N×h×w planes in [0, 1].
        pairs: see ``affinity_labels``.

    Returns:
        A scalar, float32 or better.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(affinity=affinity)
    if pairs.different.shape != affinity.shape:
        raise ValueError(f"pairs: expected the affinity's {tuple(affinity.shape)}, got {tuple(pairs.different.shape)}")
    affinity = affinity.to(
        torch.promote_types(affinity.dtype, torch.float32)
    )  # 1e-5 is lost beside 1 in half precision
    alike, apart = -(affinity + 1e-5).log(), -(1 + 1e-5 - affinity).log()

    def mean(cost: Tensor, chosen: Tensor) -> Tensor:
        return (cost * chosen).sum() / chosen.sum().clamp(min=1)

    return (mean(alike, pairs.background) + mean(alike, pairs.foreground)) / 4 + mean(apart, pairs.different) / 2


def boundary_loss(edge: Tensor, labels: Tensor, *, radius: int = 10) -> Tensor:
    """IRNet's loss of the class-boundary branch: ``affinity_loss`` of ``edge_affinity`` (Ahn et al. 2019).

    No label says where a boundary is; pairs of different labels say that there is one somewhere between them.

    Args:
        edge: B×1×h×w in [0, 1].
        labels: B×h×w integers, 255 void.
        radius: of the pairs, in positions.

    Returns:
        A scalar, float32 or better.

    Raises:
        ValueError: the shapes do not go together.
    """
    return affinity_loss(edge_affinity(edge, radius=radius), affinity_labels(labels, radius=radius))


@torch.no_grad()
def random_walk(seed: Tensor, affinity: Tensor, *, radius: int = 5, beta: float = 10.0, steps: int = 256) -> Tensor:
    """Let a seed take steps of the random walk that affinities give (Ahn & Kwak 2018).

    T_ij = a_ij^beta / Σ_k a_kj^beta, a_jj = 1; seed (1×hw) ← seed · T, ``steps`` times. As a is symmetric, each step
    replaces a value by a weighted mean over its disc: no map leaves its range, a constant stays.

    One step adds up 2N shifts of the maps with weights that are normalised once; only channels that are not zero
    everywhere are worked on. Memory: four times the affinities and a few copies of the maps; on a GPU, where a step is
    three operations, a few hundred planes a picture.

    Args:
        seed: B×K×h×w, finite.
        affinity: B×N×h×w planes in [0, 1].
        radius: with which they were made.
        beta: > 0; greater makes weak affinities count less.
        steps: ≥ 0; the originals' "exp_times 8" are 2^8 = 256.

    Returns:
        B×K×h×w, without gradient, in the dtype of ``seed``; in float32 256 steps leave errors of about 1e-4.

    Raises:
        ValueError: shapes do not go together, or a setting or a number is out of range or NaN.
    """
    expect_maps(seed=seed, affinity=affinity)
    if not beta > 0 or steps < 0:
        raise ValueError(f"expected beta > 0 and steps >= 0, got {beta} and {steps}")
    offsets = pair_offsets(radius)
    expected = (seed.shape[0], len(offsets), *seed.shape[2:])
    if affinity.shape != expected:
        raise ValueError(f"affinity: expected BxNxhxw = {expected}, got shape {tuple(affinity.shape)}")
    active = (seed != 0).flatten(2).any(2)
    count = 0
    if active.numel():
        # NaN is in no range. Together, so that a GPU is waited for once.
        finite, share = seed.isfinite().all(), ((affinity >= -ROUNDING) & (affinity <= 1 + ROUNDING)).all()
        count, finite_seed, shares = torch.stack([active.sum(1).max(), finite, share]).tolist()
        if not finite_seed:
            raise ValueError("seed: expected finite numbers, got NaN or infinity")
        if not shares:
            raise ValueError("affinity: expected numbers in 0 ... 1, got others or NaN")
    if count == 0 or steps == 0:
        return seed.clone()
    exact = torch.promote_types(seed.dtype, torch.float32)  # half precision drifts over the steps
    opposite = [(-dy, -dx) for dy, dx in offsets]
    weights = affinity.to(exact) ** beta
    back = [_shifted(weights[:, n], [offset], fill=0.0)[0] for n, offset in enumerate(opposite)]
    weights = torch.cat([weights, torch.stack(back, dim=1)], dim=1)
    total = 1 + weights.sum(1, keepdim=True)
    weights /= total
    stay = 1 / total
    # Active channels first: image b keeps its own `count` first channels, the rest is zero and stays zero.
    order = active.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
    where = order[:, :, None, None].expand(-1, -1, *seed.shape[2:])
    maps = seed.gather(1, where).to(exact)
    walk = _steps_of_few_launches if maps.is_cuda else _steps_shift_by_shift
    walked = walk(maps, stay, weights, [*offsets, *opposite], steps)
    return torch.zeros_like(seed).scatter_(1, where, walked.to(seed.dtype))


def _steps_shift_by_shift(maps: Tensor, stay: Tensor, weights: Tensor, offsets: Sequence[Offset], steps: int) -> Tensor:
    """Steps of a walk: map ← stay · map + Σ_n weight_n · (the map at position + offset_n), 0 off the map.

    Args:
        maps: B×K×h×w.
        stay: B×1×h×w.
        weights: B×N×h×w.
        offsets: N of them.
        steps: how many.

    Returns:
        B×K×h×w.
    """
    size, shifts = maps.shape[2:], [(0, 0), *offsets]
    here = _padded(maps, max(max(offset) for offset in offsets), fill=0.0)
    there = torch.zeros_like(here)  # the margins of both stay 0
    here_views, there_views = (_windows(padded, shifts, size) for padded in (here, there))
    planes = [plane[:, None] for plane in weights.unbind(1)]
    for _ in range(steps):
        following = torch.mul(here_views[0], stay, out=there_views[0])
        for plane, neighbour in zip(planes, here_views[1:], strict=True):
            following.addcmul_(plane, neighbour)
        here_views, there_views = there_views, here_views
    return here_views[0]


def _steps_of_few_launches(
    maps: Tensor, stay: Tensor, weights: Tensor, offsets: Sequence[Offset], steps: int
) -> Tensor:
    """The same by three operations a step, for a GPU, where starting 70 takes longer than what they compute.

    All neighbours in the square around a position are one view of the padded map; those beyond the disc weigh 0.
    Memory: the square's weights and the products of a step, (2·reach + 1)²·(K + 1) planes a picture.
    """
    batch, count, height, width = maps.shape
    reach = max(max(offset) for offset in offsets)
    side = 2 * reach + 1
    square = weights.new_zeros(batch, 1, side * side, height, width)
    order = torch.tensor([(dy + reach) * side + dx + reach for dy, dx in [(0, 0), *offsets]])
    square[:, 0].index_copy_(1, order.to(maps.device), torch.cat([stay, weights], dim=1))
    padded = _padded(maps, reach, fill=0.0)
    rows, columns = padded.stride()[2:]
    around = padded.as_strided(
        (batch, count, side, side, height, width), (*padded.stride()[:2], rows, columns, rows, columns)
    )
    [middle] = _windows(padded, [(0, 0)], (height, width))
    square = square.view(batch, 1, side, side, height, width)
    products = torch.empty_like(around, memory_format=torch.contiguous_format)
    for _ in range(steps):
        torch.mul(around, square, out=products)
        middle.copy_(products.sum(dim=(2, 3)))
    return middle


@torch.no_grad()
def propagate(
    seed: Tensor,
    edge: Tensor,
    *,
    radius: int = 5,
    beta: float = 10.0,
    steps: int = 256,
    clear_edges: bool = True,
) -> Tensor:
    """IRNet's walk: a seed spreads within the class boundaries (Ahn et al. 2019).

    The seed times (1 − edge) walks by ``edge_affinity`` and is divided by its maximum over all classes and positions
    of the picture. The background is not among the maps; it is what stays below a threshold (0.25 in the released
    code).

    A seed that ends at the boundary already loses its rim by that product: ``clear_edges=False`` leaves it out (ours).

    Args:
        seed: B×K×h×w, non-negative.
        edge: B×1×h×w in [0, 1].
        radius, beta, steps: see ``random_walk``.
        clear_edges: whether the seed is multiplied by (1 − edge) first, as in IRNet.

    Returns:
        B×K×h×w, each picture's maximum 1 (or all 0), without gradient, in the dtype of ``seed``.

    Raises:
        ValueError: shapes do not go together or a setting is out of range.
    """
    expect_maps(seed=seed, edge=edge)
    expected = (seed.shape[0], 1, *seed.shape[2:])
    if edge.shape != expected:
        raise ValueError(f"edge: expected Bx1xhxw = {expected}, got shape {tuple(edge.shape)}")
    exact = torch.promote_types(seed.dtype, torch.float32)
    edge = edge.to(exact)
    affinity = edge_affinity(edge, radius=radius)
    start = seed.to(exact) * (1 - edge) if clear_edges else seed.to(exact)
    walked = random_walk(start, affinity, radius=radius, beta=beta, steps=steps)
    if walked.numel():
        walked = walked / walked.amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(exact).tiny)
    return walked.to(seed.dtype)


@torch.no_grad()
def propagate_affinity(
    seed: Tensor, features: Tensor, *, radius: int = 5, beta: float = 8.0, steps: int = 256
) -> Tensor:
    """AffinityNet's walk: a seed spreads to positions of alike features (Ahn & Kwak 2018).

    ``random_walk`` by ``feature_affinity``, and nothing else: in the original the background walks as a map of its
    own, so give it as a channel, and take the arg-max of the result.

    Args:
        seed: B×K×h×w.
        features: B×C×h×w of AffinityNet.
        radius, beta, steps: see ``random_walk``.

    Returns:
        B×K×h×w within the range of each map, without gradient, in the dtype of ``seed``.

    Raises:
        ValueError: shapes do not go together or a setting is out of range.
    """
    expect_maps(seed=seed, features=features)
    if features.shape[0] != seed.shape[0] or features.shape[2:] != seed.shape[2:]:
        raise ValueError(f"features: expected B and hxw of the seed {tuple(seed.shape)}, got {tuple(features.shape)}")
    exact = torch.promote_types(features.dtype, torch.float32)
    affinity = feature_affinity(features.to(exact), radius=radius)
    return random_walk(seed, affinity, radius=radius, beta=beta, steps=steps)


def confident_labels(foreground_labels: Tensor, background_labels: Tensor) -> Tensor:
    """Put two label maps of a picture together so that what they disagree on is void (both papers).

    The first was made with a high background threshold, so its classes can be trusted; the second with a low one, so
    its background can. Both are refined (by a dense CRF) before. A class where the first has one, background where
    both have it, else void.

    Args:
        foreground_labels: B×H×W integers, 0 background, 1 … K.
        background_labels: the same of the second.

    Returns:
        B×H×W in the dtype of the first, 255 void.

    Raises:
        ValueError: the shapes differ or the labels are not integers.
    """
    if foreground_labels.shape != background_labels.shape:
        raise ValueError(
            f"labels: expected the same shape twice, got {tuple(foreground_labels.shape)} "
            f"and {tuple(background_labels.shape)}"
        )
    if foreground_labels.is_floating_point() or background_labels.is_floating_point():
        raise ValueError(f"labels: expected integers, got {foreground_labels.dtype} and {background_labels.dtype}")
    unsure = (foreground_labels == BACKGROUND) & (background_labels != BACKGROUND)
    return foreground_labels.masked_fill(unsure, VOID)


def _padded(maps: Tensor, reach: int, *, fill: float) -> Tensor:
    return F.pad(maps, (reach, reach, reach, reach), value=fill)


def _windows(padded: Tensor, offsets: Sequence[Offset], size: Sequence[int]) -> list[Tensor]:
    """Views of padded maps: entry n at a position is the value at position + offsets[n]."""
    height, width = size
    reach = (padded.shape[-2] - height) // 2
    return [padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width] for dy, dx in offsets]


def _shifted(maps: Tensor, offsets: Sequence[Offset], *, fill: float) -> list[Tensor]:
    """Maps of any number of dimensions at position + offset, ``fill`` where that is off the map."""
    reach = max(max(abs(dy), abs(dx)) for dy, dx in offsets)
    return _windows(_padded(maps, reach, fill=fill), offsets, maps.shape[-2:])
