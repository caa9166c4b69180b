"""RecurSeed (RS): the network's own map, refined, is what it learns from next.

Jo, Yu & Kim, "RecurSeed and EdgePredictMix", arXiv 2204.06754, 2022. The training code was never released. The overview
figure of the authors' repository (August 2022) and their slides fix the flow::

    M_cam -> SCG -> M_scg -> PAMR -> M_rs          L_rec: the CAM against M_rs, all over the image
                                     M_rs -> CF -> M_seg      L_seg: the decoder against M_seg

with the conditional filter CF at 0.55 and 0.10 and both losses weighing 1.0 (release notes).

Our reading, where the sources are silent:
    * the targets come from the moving average of the network, a calm teacher, and not from the network that learns
      (measured: without it RS ends below the CAM it started from, see results/readings);
    * L_rec is the mean absolute difference of the normalised CAM and M_rs over present classes, at the CAM's size, to
      which M_rs is averaged;
    * PAMR works at the resolution of M_seg, and its result is stretched so that each map's maximum is 1 again
      (averaging lowers it);
    * L_seg is the plain mean over labelled pixels: with equal weights for foreground and background the decoder
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
    """One step of the recursion.

    scg_map: M_scg, B×K×h×w at the CAM's size. rs_map: M_rs, B×K×H×W at PAMR's size. pseudo_mask: M_seg = CF(M_rs),
    B×H×W int64. Maps are in [0, 1].
    """

    scg_map: Tensor
    rs_map: Tensor
    pseudo_mask: Tensor


def conditional_filter(maps: Tensor, *, certain: float = 0.55, uncertain: float = 0.10) -> Tensor:
    """Turn maps into a pseudo mask that leaves void what is not sure (Jo et al. 2022, CF).

    Label k + 1 where the largest class score is ≥ ``certain`` (k its class), 0 (background) where it is
    ≤ ``uncertain``, 255 (void) between. Of equal scores the first class wins.

    Args:
        maps: B×K×H×W in [0, 1].
        certain: foreground from here on, in (``uncertain``, 1].
        uncertain: background up to here, in [0, ``certain``).

    Returns:
        B×H×W int64.

    Raises:
        ValueError: shape or thresholds out of range.
    """
    expect_maps(maps=maps)
    if not 0 <= uncertain < certain <= 1:
        raise ValueError(f"expected 0 <= uncertain < certain <= 1, got uncertain={uncertain}, certain={certain}")
    best, label = maps.max(dim=1)
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
    present: Tensor | None = None,
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
        present: B×n int64, numbers of the classes among which are all present ones, see ``channels`` of ``pamr``; None:
            looked for.

    Returns:
        ``Refined``; without gradient, the maps in float32 or, for a cam in float64, in float64.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(images=images)
    exact = torch.promote_types(cam.dtype, torch.float32)
    scg_map = scg(features, normalize_cam(cam.to(exact), tags), tags, first_threshold=first_threshold)
    size = size or (images.shape[2], images.shape[3])
    rs_map = normalize_cam(pamr_at(images.to(exact), scg_map, size, channels=present))
    return Refined(scg_map, rs_map, conditional_filter(rs_map, certain=certain, uncertain=uncertain))


def pamr_at(images: Tensor, maps: Tensor, size: tuple[int, int], *, channels: Tensor | None = None) -> Tensor:
    """PAMR of maps at a given size: images are averaged down to it, maps resized bilinearly.

    Args:
        images: B×3×H×W, any scale.
        maps: B×C×h×w.
        size: height and width of the result.
        channels: see ``pamr``.

    Returns:
        B×C×(size), see ``pamr``.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(images=images, maps=maps)
    small = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    resized = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return pamr(small, resized, channels=channels)


def cam_loss(cam: Tensor, target: Tensor, tags: Tensor, weight: Tensor | None = None) -> Tensor:
    """L_rec: mean absolute difference of the normalised CAM and its target over present classes and positions.

    Σ n·|normalize_cam(M) − target| / max(1, Σ n) with n = tag · weight, over images, classes and positions.

    Args:
        cam: B×K×h×w raw scores.
        target: B×K×h'×w' in [0, 1], averaged to the CAM's size where it is finer; no gradient flows into it.
        tags: B×K in [0, 1]; a fraction, as some mixing methods leave it, makes its class count as much less.
        weight: B×1×h×w in [0, 1], how much a position counts (0 in padding); None: all alike.

    Returns:
        A scalar in [0, 1], float32 or better; 0 when no class is present.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(cam=cam, target=target)
    expect_tags(tags, cam)
    if target.shape[:2] != cam.shape[:2]:
        raise ValueError(f"target: expected B and K of the cam {tuple(cam.shape)}, got shape {tuple(target.shape)}")
    exact = torch.promote_types(cam.dtype, torch.float32)  # sums over a batch do not fit in half precision
    target = F.adaptive_avg_pool2d(target.detach().to(exact), (cam.shape[2], cam.shape[3]))
    counts = rec_counts(tags.to(exact), cam, weight)
    difference = (normalize_cam(cam.to(exact)) - target).abs() * counts
    return difference.sum() / counts.sum().clamp(min=1)


def rec_counts(tags: Tensor, cam: Tensor, weight: Tensor | None = None) -> Tensor:
    """How much each entry of the CAM counts in ``cam_loss``: tag · weight.

    Args:
        tags: B×K in [0, 1].
        cam: B×K×h×w, for its shape.
        weight: see ``cam_loss``.

    Returns:
        B×K×h×w in [0, 1].

    Raises:
        ValueError: the weight has another shape.
    """
    counts = tags[:, :, None, None].expand_as(cam)
    if weight is None:
        return counts
    expected = (cam.shape[0], 1, *cam.shape[2:])
    if weight.shape != expected:
        raise ValueError(f"weight: expected Bx1xhxw = {expected}, got shape {tuple(weight.shape)}")
    return counts * weight


def decoder_loss(seg_logits: Tensor, pseudo_mask: Tensor) -> Tensor:
    """L_seg: mean cross entropy over the pixels of the pseudo mask that are not void.

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
