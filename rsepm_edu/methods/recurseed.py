"""RecurSeed (RS): the network's own map, refined, is what it learns from next.

Jo, Yu & Kim, "RecurSeed and EdgePredictMix", arXiv 2204.06754, 2022. The training code was never released. Fixed by the
paper and its release notes: SCG of the current CAM is the target of the CAM; PAMR on that seed, through the
conditional filter (certain 0.55, uncertain 0.10), is the pseudo mask of the decoder; both losses weigh 1.0.

Our reading, where the sources are silent:
    * the targets come from the moving average of the network, a calm teacher, and not from the network that learns;
    * the CAM is compared with its seed as normalised maps, by the mean absolute difference over present classes, and
      only where the conditional filter decides: there the seed counts as far as the pseudo mask agrees. With SCG's
      seed as the only target, nothing pulls back: a map that is everywhere above SCG's background threshold grows on
      until it covers the picture (results/creatures_free_seed);
    * PAMR's result is stretched so that each map's maximum is 1 again before the filter (averaging lowers it);
    * PAMR sees the picture at the resolution of the pseudo mask;
    * the decoder's loss is the plain mean over labelled pixels: with equal weights for foreground and background it
      paints more of the void around small objects as object.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.methods.pamr import pamr
from rsepm_edu.methods.scg import scg
from rsepm_edu.methods.shapes import expect_maps, expect_tags


class Refined(NamedTuple):
    """One step of the recursion: seed B×K×h×w at the CAM's size, the rest at the pseudo mask's size."""

    seed: Tensor
    refined_seed: Tensor
    pseudo_mask: Tensor


def conditional_filter(seed: Tensor, *, certain: float = 0.55, uncertain: float = 0.10) -> Tensor:
    """Turn a seed into a pseudo mask that is void where it is not sure (Jo et al. 2022, CF).

    Label k + 1 where the largest class score is ≥ ``certain`` (k its class), 0 (background) where it is
    ≤ ``uncertain``, 255 (void) between. Of equal scores the first class wins.

    Args:
        seed: B×K×H×W in [0, 1].
        certain: foreground from here on, in (``uncertain``, 1].
        uncertain: background up to here, in [0, ``certain``).

    Returns:
        B×H×W int64.

    Raises:
        ValueError: shape or thresholds out of range.
    """
    expect_maps(seed=seed)
    if not 0 <= uncertain < certain <= 1:
        raise ValueError(f"expected 0 <= uncertain < certain <= 1, got uncertain={uncertain}, certain={certain}")
    best, label = seed.max(dim=1)
    mask = torch.full_like(label, VOID)
    mask = torch.where(best >= certain, label + 1, mask)
    return torch.where(best <= uncertain, 0, mask)


@torch.no_grad()
def recur_seed(
    images: Tensor,
    features: Tensor | tuple[Tensor, ...],
    cam: Tensor,
    tags: Tensor,
    *,
    size: tuple[int, int] | None = None,
    certain: float = 0.55,
    uncertain: float = 0.10,
    first_threshold: float = 0.50,
) -> Refined:
    """Refine the current CAM into the targets of the next step: SCG, then PAMR, then the conditional filter.

    Args:
        images: B×3×H×W, any scale.
        features: stages for SCG, see ``scg``.
        cam: B×K×h×w raw scores of the current network.
        tags: B×K in {0, 1}.
        size: height and width at which PAMR works and the pseudo mask is given; None: those of the images.
        certain, uncertain: see ``conditional_filter``.
        first_threshold: see ``scg``.

    Returns:
        ``Refined``; without gradient, the maps in float32 or, for a cam in float64, in float64.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(images=images)
    exact = torch.promote_types(cam.dtype, torch.float32)
    seed = scg(features, normalize_cam(cam.to(exact), tags), tags, first_threshold=first_threshold)
    size = size or (images.shape[2], images.shape[3])
    picture = F.interpolate(images.to(exact), size=size, mode="bilinear", antialias=True)
    enlarged = F.interpolate(seed, size=size, mode="bilinear", align_corners=False)
    refined = normalize_cam(pamr(picture, enlarged))
    return Refined(seed, refined, conditional_filter(refined, certain=certain, uncertain=uncertain))


def class_shares(masks: Tensor, classes: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What a mask says at a coarser size: the share of each class among labelled pixels, and the labelled share.

    Args:
        masks: B×H×W int64.
        classes: K.
        size: (h, w).

    Returns:
        B×K×h×w and B×1×h×w, in [0, 1].
    """
    # Four samples a side within each position are enough, and far cheaper than every pixel of every class.
    step_y, step_x = (max(1, n // (4 * m)) for n, m in zip(masks.shape[1:], size, strict=True))
    masks = masks[:, step_y // 2 :: step_y, step_x // 2 :: step_x]
    labelled = (masks != VOID).float()[:, None]
    planes = torch.stack([(masks == k).float() for k in range(1, classes + 1)], dim=1)
    known = F.adaptive_avg_pool2d(labelled, size)
    return F.adaptive_avg_pool2d(planes, size) / known.clamp(min=1e-6), known


def hold_seed(seed: Tensor, pseudo_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Keep a seed within its pseudo mask: the target of the CAM, and where it counts (our reading, see the module).

    The target is the seed times the share of its class among the labelled pixels of a position, so 0 on background;
    the weight is the labelled share, so 0 where everything is void.

    Args:
        seed: B×K×h×w in [0, 1].
        pseudo_mask: B×H×W int64.

    Returns:
        Target B×K×h×w and weight B×1×h×w, in [0, 1], as ``cam_loss`` takes them.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(seed=seed)
    if pseudo_mask.ndim != 3 or pseudo_mask.shape[0] != seed.shape[0]:
        raise ValueError(f"pseudo_mask: expected BxHxW, B = {seed.shape[0]}, got shape {tuple(pseudo_mask.shape)}")
    shares, known = class_shares(pseudo_mask, seed.shape[1], (seed.shape[2], seed.shape[3]))
    return seed * shares, known


def cam_loss(cam: Tensor, target: Tensor, tags: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference of the normalised CAM and its target over present classes and positions.

    Σ n·|normalize_cam(M) − target| / max(1, Σ n) with n = tag · weight, over pictures, classes and positions.

    Args:
        cam: B×K×h×w raw scores.
        target: B×K×h×w in [0, 1]; no gradient flows into it.
        tags: B×K in [0, 1]; a fraction, as some mixing methods leave it, makes its class count as much less.
        weight: B×1×h×w in [0, 1], how much a position counts; None: all alike.

    Returns:
        A scalar in [0, 1], float32 or better; 0 when no class is present.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(cam=cam, target=target)
    expect_tags(tags, cam)
    if target.shape != cam.shape:
        raise ValueError(f"target: expected the cam's {tuple(cam.shape)}, got shape {tuple(target.shape)}")
    exact = torch.promote_types(cam.dtype, torch.float32)  # sums over a batch do not fit in half precision
    counts = tags[:, :, None, None].to(exact).expand_as(cam)
    if weight is not None:
        expected = (cam.shape[0], 1, *cam.shape[2:])
        if weight.shape != expected:
            raise ValueError(f"weight: expected Bx1xhxw = {expected}, got shape {tuple(weight.shape)}")
        counts = counts * weight
    difference = (normalize_cam(cam.to(exact)) - target.detach()).abs() * counts
    return difference.sum() / counts.sum().clamp(min=1)


def decoder_loss(seg_logits: Tensor, pseudo_mask: Tensor) -> Tensor:
    """Mean cross entropy over the pixels of the pseudo mask that are not void.

    Args:
        seg_logits: B×(K+1)×h×w; resized to the mask, bilinearly, when of another size.
        pseudo_mask: B×H×W int64.

    Returns:
        A scalar, float32 or better; 0 when everything is void.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(seg_logits=seg_logits)
    if pseudo_mask.ndim != 3 or pseudo_mask.shape[0] != seg_logits.shape[0]:
        raise ValueError(
            f"pseudo_mask: expected BxHxW, B = {seg_logits.shape[0]}, got shape {tuple(pseudo_mask.shape)}"
        )
    seg_logits = seg_logits.to(torch.promote_types(seg_logits.dtype, torch.float32))
    size = pseudo_mask.shape[1:]
    if seg_logits.shape[2:] != size:
        seg_logits = F.interpolate(seg_logits, size=size, mode="bilinear", align_corners=False)
    total = F.cross_entropy(seg_logits, pseudo_mask, ignore_index=VOID, reduction="sum")
    return total / (pseudo_mask != VOID).sum().clamp(min=1)
