"""Pixel-adaptive mask refinement (PAMR): maps move to the edges of the photograph.

Araslanov & Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020.
"""

import math
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.methods.pamr_kernels import fused_affinity, fused_sum, works
from rsepm_edu.methods.shapes import expect_maps

NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def pamr(
    image: Tensor,
    masks: Tensor,
    *,
    dilations: Sequence[int] = (1, 2, 4, 8, 12, 24),
    iterations: int = 10,
    sigma: float = 0.1,
    channels: Tensor | None = None,
) -> Tensor:
    """Average each map over neighbours of the same colour, again and again (Araslanov & Roth 2020).

    The neighbours of a pixel are the 8 around it at every dilation (48 by default; beyond the border the border
    repeats). Affinity of pixel i to neighbour j: softmax_j(mean_c −|x_ic − x_jc| / (1e-8 + sigma·σ_ic)), σ_ic the
    unbiased standard deviation over the 9 positions of all dilations. One iteration: m_i ← Σ_j a_ij m_j.

    Neighbours are added up shift by shift on views of one padded map, and only channels that are not zero
    everywhere are worked on: the memory is twice that of the affinities (48 planes an image) and a few copies of
    the maps. Gradients flow to the masks alone. On a GPU, without gradients, two kernels do the same in a launch each
    (``pamr_kernels``).

    Args:
        image: B×C×H×W, any scale (the affinity is free of it), finite.
        masks: B×K×H×W, any range, finite.
        dilations: distances of the neighbours in pixels, positive.
        iterations: how often, ≥ 0.
        sigma: softness of the affinity, > 0; greater looks further over colour differences.
        channels: B×n int64, which channels of each image to work on, none twice; all others are zero everywhere. So
            nothing is asked of the maps: a GPU is not waited for, and NaN and infinity spread instead of being found.
            None: looked for.

    Returns:
        B×K×H×W, within the range of each map but for rounding, in the dtype of ``masks``.

    Raises:
        ValueError: shapes do not go together, a setting is out of range, or a number is found not to be finite.
    """
    expect_maps(image=image, masks=masks)
    if image.shape[0] != masks.shape[0] or image.shape[2:] != masks.shape[2:]:
        raise ValueError(f"masks: expected B and HxW of the image {tuple(image.shape)}, got {tuple(masks.shape)}")
    if not dilations or min(dilations) < 1 or iterations < 0 or sigma <= 0:
        raise ValueError(
            f"expected dilations >= 1, iterations >= 0 and sigma > 0, got {tuple(dilations)}, {iterations} and {sigma}"
        )
    exact = torch.promote_types(masks.dtype, torch.float32)  # half precision drifts over the iterations
    colours = image.detach().to(exact)
    learns = masks.requires_grad and torch.is_grad_enabled()
    if not masks.shape[:2].numel():
        return masks.clone()
    kernels = exact == torch.float32 and not learns and kernels_agree(masks.device)
    if kernels:  # a GPU computes them while the host waits for it, if it has to
        affinity = fused_affinity(colours, dilations, sigma=sigma)
    if channels is None:
        channels = _active_channels(colours, masks.detach(), all_of_them=learns)  # a map of zeros has a gradient too
    if channels.shape[1] == 0 or iterations == 0:
        return masks.clone()
    where = channels[:, :, None, None].expand(-1, -1, *masks.shape[2:])
    maps = masks.gather(1, where).to(exact)
    if kernels:
        maps = fused_sum(maps, affinity, dilations, times=iterations)
    else:
        offsets = [(dy * d, dx * d) for d in dilations for dy, dx in NEIGHBOURS]
        affinity = colour_affinity(colours, offsets, sigma=sigma)
        for _ in range(iterations):
            maps = weighted_sum(maps, affinity, offsets)
    return torch.zeros_like(masks).scatter_(1, where, maps.to(masks.dtype))


def _active_channels(colours: Tensor, masks: Tensor, *, all_of_them: bool) -> Tensor:
    """The channels of each image that are not zero everywhere, then others: B×n, n as many as one image has of them.

    Raises:
        ValueError: a number is not finite.
    """
    values = masks.flatten(2)
    low, high = values.amin(2), values.amax(2)  # NaN if one is
    active = torch.ones_like(low, dtype=torch.bool) if all_of_them else (low != 0) | (high != 0)
    order = active.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    ends = low.amin(), high.amax(), colours.amin(), colours.amax()
    asked = torch.stack([active.sum(1).amax().to(colours.dtype), *(end.to(colours.dtype) for end in ends)])
    count, *extremes = asked.tolist()
    if not all(map(math.isfinite, extremes)):
        raise ValueError("image, masks: expected finite numbers, got NaN or infinity")
    return order[:, : int(count)]


@cache
def kernels_agree(device: torch.device) -> bool:
    """Whether the kernels of a GPU run there and give the plain form's numbers: tried once, on noise."""
    if not works(device):
        return False
    generator, dilations = torch.Generator().manual_seed(0), (1, 2, 24)
    colours, maps = (torch.rand(2, count, 40, 56, generator=generator).to(device) for count in (3, 5))
    offsets = [(dy * d, dx * d) for d in dilations for dy, dx in NEIGHBOURS]
    wanted = weighted_sum(maps, colour_affinity(colours, offsets, sigma=0.1), offsets)
    found = fused_sum(maps, fused_affinity(colours, dilations, sigma=0.1), dilations, times=1)
    return bool((found - wanted).abs().max() < 1e-5)


def weighted_sum(maps: Tensor, weights: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """One iteration: Σ_j weight_j · (the map at pixel + offset_j).

    Args:
        maps: B×K×H×W.
        weights: B×len(offsets)×H×W.
        offsets: (dy, dx) of the neighbours in pixels.

    Returns:
        B×K×H×W.
    """
    total = torch.zeros_like(maps)
    for weight, neighbour in zip(weights.unbind(1), _shifted(maps, offsets), strict=True):
        total = total.addcmul_(weight[:, None], neighbour)
    return total


def colour_affinity(image: Tensor, offsets: Sequence[tuple[int, int]], *, sigma: float) -> Tensor:
    """Affinity of every pixel to its neighbour at each offset, adding up to 1 over the offsets.

    Args:
        image: B×C×H×W.
        offsets: (dy, dx) of the neighbours in pixels.
        sigma: share of the local standard deviation that counts as one unit of difference.

    Returns:
        B×len(offsets)×H×W in [0, 1].
    """
    positions = len(offsets) + len(offsets) // 8  # the pixel itself counts once for every ring of 8
    total = torch.zeros_like(image)
    squares = torch.zeros_like(image)
    for neighbour in _shifted(image, offsets):
        # Differences to the pixel itself: the same variance, without the cancellation of large means.
        difference = neighbour - image
        total = total.add_(difference)
        squares = squares.addcmul_(difference, difference)
    variance = (squares - total.square() / positions) / (positions - 1)
    unit = -1.0 / (1e-8 + sigma * variance.clamp(min=0).sqrt()) / image.shape[1]
    # No name for the list: it is freed before the soft-max makes its own 48 planes.
    return torch.stack(
        [((neighbour - image).abs_() * unit).sum(1) for neighbour in _shifted(image, offsets)], dim=1
    ).softmax(dim=1)


def _shifted(maps: Tensor, offsets: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Views of one padded copy of ``maps``: entry j at a pixel is the value at pixel + offsets[j]."""
    height, width = maps.shape[2:]
    reach = max(max(abs(dy), abs(dx)) for dy, dx in offsets)
    padded = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    return [padded[:, :, reach + dy : reach + dy + height, reach + dx : reach + dx + width] for dy, dx in offsets]
