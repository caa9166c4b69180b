"""Mixing two pictures into one that the network has not seen: what all mixing methods share.

CutMix, Saliency Grafting, CDA, ClassMix and EdgePredictMix, each in a file of its own, go by one interface::

    mix(images, tags, maps, *, generator) -> Mixed(images, tags, pseudo_masks, source)

with images B×3×H×W; tags B×K in {0, 1}; maps B×(K+1)×H×W the decoder's probabilities, background first, absent classes
zero; generator on the CPU, the only source of chance. Row b of the result: parts of picture b on its partner, another
picture of the batch; ``source`` says from where each pixel came, so that other maps of the batch, such as RecurSeed's
M_rs, can be mixed by the same mask (``mix_maps``).

Our reading, where methods made for one label a picture or for some true masks meet ours:
    * the mixed picture gets a pseudo mask too, cut and pasted like the picture. It comes from both pictures' maps:
      through the conditional filter, or as each method says;
    * methods that paste what is under a mask (CDA, ClassMix, EPM) leave tags in {0, 1}: what is visible afterwards.
      Those that paste regions (CutMix, Saliency Grafting) weight them: λ·tags of one picture + (1 − λ)·tags of the
      other, 1 where both have the class. Classification takes such a fraction as its target, the CAM's loss as the
      weight of the class.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods.shapes import expect_maps, expect_tags


class Mixed(NamedTuple):
    """A mixed batch: images B×3×H×W, tags B×K in [0, 1], pseudo_masks B×H×W int64 (255 void), source B×H×W int64.

    Tags of CutMix and Saliency Grafting may be fractions, those of the other methods are 0 or 1. The source of a pixel
    is its number among the pixels of the batch it was mixed from, picture by picture and row by row.
    """

    images: Tensor
    tags: Tensor
    pseudo_masks: Tensor
    source: Tensor

    @classmethod
    def unmixed(cls, images: Tensor, tags: Tensor, pseudo_masks: Tensor) -> "Mixed":
        """A batch as it is: every pixel is its own source."""
        source = torch.arange(pseudo_masks.numel(), device=pseudo_masks.device)
        return cls(images, tags, pseudo_masks, source.view_as(pseudo_masks))

    def rows(self, index: Tensor) -> "Mixed":
        """Pictures chosen, or put in another order, by their int64 indices."""
        return Mixed(*(field[index] for field in self))


def mix_maps(maps: Tensor, source: Tensor) -> Tensor:
    """Mix other maps of a batch as its pictures were mixed.

    Where the maps are coarser than the pictures, each of their positions takes what the pixel in its middle took.

    Args:
        maps: B×C×h×w of the batch that was mixed.
        source: B×H×W int64, see ``Mixed``; h ≤ H, w ≤ W.

    Returns:
        B×C×h×w.

    Raises:
        ValueError: another number of pictures.
    """
    expect_maps(maps=maps)
    count, height, width = source.shape
    if count != maps.shape[0]:
        raise ValueError(f"maps: expected BxCxhxw, B = {count} as in the source, got {tuple(maps.shape)}")
    rows, columns = maps.shape[2:]
    middle_y = (2 * torch.arange(rows, device=source.device) + 1) * height // (2 * rows)
    middle_x = (2 * torch.arange(columns, device=source.device) + 1) * width // (2 * columns)
    middle = source[:, middle_y[:, None], middle_x]
    picture, y, x = middle // (height * width), middle // width % height, middle % width
    place = (picture * rows + y * rows // height) * columns + x * columns // width
    flat = maps.transpose(0, 1).flatten(1)  # C×(B·h·w)
    mixed = flat[:, place.flatten()].view(maps.shape[1], count, rows, columns).transpose(0, 1)
    # Laid out anew: of a B×1×h×w view like this one torch's adaptive_avg_pool2d on a GPU (2.11)
    # reads beyond the memory.
    return mixed.clone(memory_format=torch.contiguous_format)


def choose_half(present: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw half of the present classes of each row, rounded up: 1 of 1, 1 of 2, 2 of 3.

    Args:
        present: B×K bool.
        generator: on the CPU, so that every device draws the same.

    Returns:
        B×K bool, a subset of ``present``.
    """
    return _choose(present, (present.sum(1, keepdim=True) + 1) // 2, generator=generator)


def choose_one(present: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw one of the present classes of each row, none where there is none; else as ``choose_half``."""
    return _choose(present, 1, generator=generator)


def _choose(present: Tensor, count: Tensor | int, *, generator: torch.Generator) -> Tensor:
    draw = torch.rand(present.shape, generator=generator).to(present.device, non_blocking=True)
    draw = torch.where(present, draw, -1.0)
    rank = draw.argsort(dim=1, descending=True).argsort(dim=1)
    return present & (rank < count)


def partners(count: int, *, generator: torch.Generator) -> Tensor:
    """A random partner for each of ``count`` pictures, never itself where there are two or more.

    Returns:
        int64 of length ``count``, a permutation made of one cycle.
    """
    order = torch.randperm(count, generator=generator)
    return torch.empty_like(order).scatter(0, order, order.roll(-1))


def paste_classes(above: Mixed, below: Mixed, chosen: Tensor, *, min_visible: float = 0.1) -> Mixed:
    """Paste the pixels of the chosen classes of each picture on the picture of the same row below.

    Void stays void: it is not pasted, and that of the picture below stays. Tags are what is visible afterwards: the
    pasted classes, and those below of which at least ``min_visible`` of the labelled pixels are left (a class below
    without a labelled pixel keeps its tag: nothing says that it was hidden).

    Args:
        above: pictures and masks to paste from.
        below: pictures to paste on, their tags in {0, 1} and masks.
        chosen: B×K bool, classes to paste.
        min_visible: share in (0, 1].

    Returns:
        ``Mixed`` with tags in {0, 1}.
    """
    paste = shown_classes(above.pseudo_masks, chosen)
    classes = chosen.shape[1]
    labelled = label_counts(below.pseudo_masks)[:, 1 : classes + 1]
    left = label_counts(torch.where(paste, VOID, below.pseudo_masks))[:, 1 : classes + 1]
    visible = (labelled == 0) | (left >= min_visible * labelled)
    dtype = below.tags.dtype
    return Mixed(
        torch.where(paste[:, None], above.images, below.images),
        torch.maximum(chosen.to(dtype), below.tags * visible.to(dtype)),
        torch.where(paste, above.pseudo_masks, below.pseudo_masks),
        torch.where(paste, above.source, below.source),
    )


def paste_region(above: Mixed, below: Mixed, region: Tensor, share: Tensor) -> Mixed:
    """Paste all that lies in a region, void too, on the picture of the same row below.

    Args:
        above: what to paste from; tags of a floating dtype.
        below: what to paste on.
        region: B×H×W bool.
        share: length B, in [0, 1]; tags become share·(those above) + (1 − share)·(those below).

    Returns:
        ``Mixed`` with tags in [0, 1].

    Raises:
        TypeError: tags that cannot hold a fraction.
    """
    if not above.tags.is_floating_point():
        raise TypeError(f"tags: expected a floating dtype, for fractions, got {above.tags.dtype}")
    own, others = above.tags.to(share.dtype), below.tags.to(share.dtype)
    return Mixed(
        torch.where(region[:, None], above.images, below.images),
        (others + share[:, None] * (own - others)).to(above.tags.dtype),  # so written, equal tags stay as they are
        torch.where(region, above.pseudo_masks, below.pseudo_masks),
        torch.where(region, above.source, below.source),
    )


def shown_classes(masks: Tensor, chosen: Tensor) -> Tensor:
    """Where a mask shows one of the chosen classes.

    Args:
        masks: B×H×W int64 in 0 … 255.
        chosen: B×K bool.

    Returns:
        B×H×W bool.
    """
    table = torch.zeros(len(masks), 256, dtype=torch.bool, device=masks.device)  # label -> is it chosen?
    table[:, 1 : chosen.shape[1] + 1] = chosen
    return table.gather(1, masks.flatten(1)).view_as(masks)


def label_counts(masks: Tensor) -> Tensor:
    """How many pixels of each mask have each label.

    Args:
        masks: B×H×W int64 in 0 … 255.

    Returns:
        B×256 int64.
    """
    flat = masks.flatten(1)
    counts = torch.zeros(len(masks), 256, dtype=torch.int64, device=masks.device)
    return counts.scatter_add_(1, flat, torch.ones_like(flat))


def expect_mixing(images: Tensor, tags: Tensor, maps: Tensor) -> None:
    """Check what every mixing method takes.

    Raises:
        ValueError: the shapes do not go together.
        TypeError: images or maps are not of a floating dtype.
    """
    expect_maps(images=images, maps=maps)
    expect_tags(tags, maps[:, 1:])
    if maps.shape[0] != images.shape[0] or maps.shape[2:] != images.shape[2:]:
        raise ValueError(f"maps: expected B and HxW of the images {tuple(images.shape)}, got {tuple(maps.shape)}")
