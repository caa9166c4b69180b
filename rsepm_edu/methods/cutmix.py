"""CutMix: a rectangle of one picture on another.

Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019; its
interface and what it shares with other methods are in ``methods.mixing``.

Our reading:
    * every picture has a rectangle of its own (the released code draws one for the batch);
    * the pseudo mask is what the conditional filter makes of the maps; its void is pasted along with the rectangle.
"""

import torch
from torch import Tensor

from rsepm_edu.device import sent
from rsepm_edu.methods.mixing import Mixed, expect_mixing, partners, paste_region
from rsepm_edu.methods.recurseed import conditional_filter


def cut_mix(
    images: Tensor,
    tags: Tensor,
    maps: Tensor,
    *,
    generator: torch.Generator,
    certain: float = 0.55,
    uncertain: float = 0.10,
) -> Mixed:
    """Paste a rectangle of each picture on its partner; tags joined by area (Yun et al. 2019).

    The rectangle is that of ``random_rectangles``; with a its share of the picture's pixels, border cut off, tags are
    a·(those of the picture) + (1 − a)·(those of the partner).

    Args:
        images, tags, maps, generator: see ``methods.mixing``; tags of a floating dtype.
        certain, uncertain: see ``conditional_filter``.

    Returns:
        ``Mixed`` with tags in [0, 1].

    Raises:
        ValueError, TypeError: shapes, thresholds or dtypes do not go together.
    """
    expect_mixing(images, tags, maps)
    masks = conditional_filter(maps[:, 1:], certain=certain, uncertain=uncertain)
    below = sent(partners(len(images), generator=generator), images.device)
    size = images.shape[2], images.shape[3]
    paste = sent(random_rectangles(len(images), size, generator=generator), images.device)
    share = paste.float().mean(dim=(1, 2))
    batch = Mixed.unmixed(images, tags, masks)
    return paste_region(batch, batch.rows(below), paste, share)


def random_rectangles(count: int, size: tuple[int, int], *, generator: torch.Generator) -> Tensor:
    """CutMix's rectangles (Yun et al. 2019, eq. 2): λ ~ Beta(1, 1), that is uniform, sides H·√(1 − λ) and W·√(1 − λ).

    Sides are rounded to whole pixels, the centre is any pixel, and what sticks out over the border is cut off. Of the
    three numbers drawn for each picture, λ is the first, then come the centre's row and column as shares of the side.

    Args:
        count: B.
        size: (H, W).
        generator: on the CPU.

    Returns:
        B×H×W bool on the CPU, true inside.
    """
    draw = torch.rand(count, 3, generator=generator).double()
    inside = torch.ones(count, *size, dtype=torch.bool)
    for axis, side in enumerate(size):
        length = (side * (1 - draw[:, 0]).sqrt()).round()
        start = (side * draw[:, 1 + axis]).floor() - (length / 2).floor()
        place = torch.arange(side)
        along = (place >= start[:, None]) & (place < (start + length)[:, None])
        inside &= along[:, :, None] if axis == 0 else along[:, None]
    return inside
