"""Saliency Grafting: patches drawn by how salient they are, and tags weighted by the saliency that survives.

Park et al., "Saliency Grafting: Innocuous Attribution-Guided Mixup with Calibrated Label Mixing", AAAI 2022; its
interface and what it shares with other methods are in ``methods.mixing``.

Our reading:
    * salient is what the current map takes for no background: the sum of its classes' probabilities;
    * a patch is drawn with its saliency as a share of the greatest in the picture, without a temperature;
    * a picture is cut into 8 × 8 patches;
    * the pseudo mask is what the conditional filter makes of the maps; its void is pasted along with the patches.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.device import sent
from rsepm_edu.methods.mixing import Mixed, expect_mixing, partners, paste_region
from rsepm_edu.methods.recurseed import conditional_filter


@torch.no_grad()
def saliency_grafting(
    images: Tensor,
    tags: Tensor,
    maps: Tensor,
    *,
    generator: torch.Generator,
    certain: float = 0.55,
    uncertain: float = 0.10,
    cells: int = 8,
) -> Mixed:
    """Graft patches, drawn by how salient they are, on the partner; tags by saliency mass (Park et al. 2022).

    With s the probability that a pixel is no background, averaged over each patch: patch i is grafted with
    probability s_i / max_j s_j. Tags are λ·(those of the picture) + (1 − λ)·(those of the partner) with
    λ = I / (I + I'), I = Σ_grafted s / Σ s what the graft carries of the picture's saliency, I' what is left of the
    partner's in the other patches. Where there is nothing salient in either part, λ is the share of the area.

    Args:
        images, tags, maps, generator: see ``methods.mixing``; tags of a floating dtype.
        certain, uncertain: see ``conditional_filter``.
        cells: patches a side; they measure ⌈H / cells⌉ × ⌈W / cells⌉ pixels, the last ones what is left.

    Returns:
        ``Mixed`` with tags in [0, 1].

    Raises:
        ValueError, TypeError: shapes, thresholds or dtypes do not go together.
    """
    expect_mixing(images, tags, maps)
    if cells < 1:
        raise ValueError(f"cells: expected at least 1, got {cells}")
    masks = conditional_filter(maps[:, 1:], certain=certain, uncertain=uncertain)
    below = sent(partners(len(images), generator=generator), images.device)
    height, width = images.shape[2:]
    patch = (-(-height // cells), -(-width // cells))
    exact = torch.promote_types(maps.dtype, torch.float32)
    saliency = maps[:, 1:].to(exact).sum(1)
    by_patch = F.avg_pool2d(saliency[:, None], patch, ceil_mode=True)[:, 0]
    draw = sent(torch.rand(by_patch.shape, generator=generator), images.device)
    grafted = draw * by_patch.amax(dim=(1, 2), keepdim=True) < by_patch
    paste = grafted.repeat_interleave(patch[0], dim=1).repeat_interleave(patch[1], dim=2)[:, :height, :width]

    own = _share(saliency, paste)
    others = _share(saliency[below], ~paste)
    share = torch.where(own + others > 0, own / (own + others), paste.to(exact).mean(dim=(1, 2)))
    batch = Mixed.unmixed(images, tags, masks)
    return paste_region(batch, batch.rows(below), paste, share)


def _share(saliency: Tensor, region: Tensor) -> Tensor:
    """How much of each map's sum lies in its region, 0 for a map of zeros."""
    total = saliency.sum(dim=(1, 2))
    return (saliency * region).sum(dim=(1, 2)) / torch.where(total > 0, total, 1)
