"""Context Decoupling Augmentation (CDA): objects cut out by their masks and put into other scenes.

Su et al., "Context Decoupling Augmentation for Weakly Supervised Semantic Segmentation", ICCV 2021; its interface and
what it shares with other methods are in ``methods.mixing``.

Our reading:
    * objects are cut out of the pictures of the batch, along what the conditional filter is certain of in the current
      map (the original: once, by another method, from the whole data set);
    * they may come from a picture with several classes (the released code takes pictures of one class, of which a
      batch has too few);
    * they are moved to any place where they still fit and mirrored half of the time, but not scaled or turned.
"""

import torch
from torch import Tensor

from rsepm_edu.device import sent
from rsepm_edu.methods.mixing import (
    Mixed,
    choose_one,
    expect_mixing,
    label_counts,
    partners,
    paste_classes,
    shown_classes,
)
from rsepm_edu.methods.recurseed import conditional_filter


def context_decoupling(
    images: Tensor,
    tags: Tensor,
    maps: Tensor,
    *,
    generator: torch.Generator,
    certain: float = 0.55,
    uncertain: float = 0.10,
    smallest: float = 0.1,
    largest: float = 0.7,
    min_visible: float = 0.1,
) -> Mixed:
    """CDA: cut one class out of each picture and put it elsewhere on a partner that has no such class (Su et al. 2021).

    Only what covers a share of the picture in [``smallest``, ``largest``] is cut out (the released code's numbers). A
    partner to which nothing can be given stays as it is. Tags as in ``paste_classes``.

    Args:
        images, tags, maps, generator: see ``methods.mixing``.
        certain, uncertain: see ``conditional_filter``.
        smallest, largest: shares of the picture's pixels.
        min_visible: see ``paste_classes``.

    Returns:
        ``Mixed`` with tags in {0, 1}.

    Raises:
        ValueError, TypeError: shapes, thresholds or dtypes do not go together.
    """
    expect_mixing(images, tags, maps)
    masks = conditional_filter(maps[:, 1:], certain=certain, uncertain=uncertain)
    below = sent(partners(len(images), generator=generator), images.device)
    share = label_counts(masks)[:, 1 : tags.shape[1] + 1] / masks[0].numel()
    new_there = (share > 0) & (share >= smallest) & (share <= largest) & (tags[below] == 0)
    chosen = choose_one(new_there, generator=generator)
    place = random_places(shown_classes(masks, chosen), generator=generator)
    batch = Mixed.unmixed(images, tags, masks)
    moved = Mixed(
        images.flatten(2).gather(2, place[:, None].expand(-1, images.shape[1], -1)).view_as(images),
        tags,
        masks.flatten(1).gather(1, place).view_as(masks),
        batch.source.flatten(1).gather(1, place).view_as(masks),
    )
    return paste_classes(moved, batch.rows(below), chosen, min_visible=min_visible)


def random_places(regions: Tensor, *, generator: torch.Generator) -> Tensor:
    """Move each region to a random place where it fits as a whole, mirrored half of the time.

    Three numbers are drawn for each region: mirrored if the first is below one half, then how far down and how far to
    the right, as shares of the way that its bounding box has. What lies around the region moves with it, and what
    leaves on one side comes in on the other.

    Args:
        regions: B×H×W bool.
        generator: on the CPU.

    Returns:
        B×(H·W) int64: which pixel of the old picture comes to each pixel of the new one, both counted row by row.
    """
    height, width = regions.shape[1:]
    draw = sent(torch.rand(len(regions), 3, generator=generator), regions.device)
    mirrored = draw[:, 0] < 0.5
    top, bottom = _extent(regions.any(2))
    left, right = _extent(regions.any(1))
    left, right = torch.where(mirrored, width - right, left), torch.where(mirrored, width - left, right)
    down = (draw[:, 1] * (height - (bottom - top) + 1)).long() - top
    across = (draw[:, 2] * (width - (right - left) + 1)).long() - left
    rows = (torch.arange(height, device=regions.device) - down[:, None]) % height
    columns = (torch.arange(width, device=regions.device) - across[:, None]) % width
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    return (rows[:, :, None] * width + columns[:, None]).flatten(1)


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First true position of each row, and the one after the last; the whole row where none is true."""
    marks = line.to(torch.uint8)
    return marks.argmax(1), line.shape[1] - marks.flip(1).argmax(1)
