"""EdgePredictMix (EPM): refine the decoder's map by its own edges, cut the objects out, paste them on another image.

Jo, Yu & Kim, "RecurSeed and EdgePredictMix", arXiv 2204.06754, 2022. As the overview figure of the authors' repository
and their slide on EdgePredict (EP) draw it::

    decoder -> PAMR -> M_dec -> CF            absolute evidence: certain labels, and void where it is uncertain
                       M_dec -> Canny -> connected components (4-connected) of what is no edge: relative evidence
    in each component the label that most of its pixels have, void among them, goes to its uncertain pixels alone

Their mixing does not paste what is void in the picture above, keeps what is void in the one below, and takes all
classes of the picture above along.

Our reading, where the sources are silent:
    * Canny sees the largest class score of each pixel, as an 8-bit image behind a Gaussian of 5×5, with the levels 10
      and 100 (both a habit of the authors) of the Sobel gradient, in which a straight step of g grey levels (of 255)
      measures 2.5·g, behind the Gaussian;
    * of labels that are equally frequent in a component the smallest wins, so background before a class, void last;
    * an image's partner is drawn at random within the batch;
    * a class of the image below is still visible when a tenth of its labelled pixels is.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rsepm_edu.device import sent
from rsepm_edu.labels import VOID
from rsepm_edu.methods.edge_kernels import regions_between_edges, works
from rsepm_edu.methods.mixing import Mixed, expect_mixing, label_counts, partners, paste_classes
from rsepm_edu.methods.recurseed import conditional_filter
from rsepm_edu.methods.shapes import expect_maps, expect_tags


@torch.no_grad()
def edge_predict(
    maps: Tensor,
    tags: Tensor,
    *,
    certain: float = 0.55,
    uncertain: float = 0.10,
    low: int = 10,
    high: int = 100,
) -> Tensor:
    """Refine a predicted mask by its own certainty and its own edges (Jo et al. 2022, EP).

    Certain labels of the conditional filter stay. An uncertain pixel takes the most frequent label of its region,
    void if most of the region is void. On an edge, what is uncertain stays void, and background becomes void.

    Args:
        maps: M_dec, B×(K+1)×H×W in [0, 1], background first; usually the decoder's probabilities after PAMR.
        tags: B×K in {0, 1}; absent classes are left out.
        certain, uncertain: thresholds of the conditional filter, on the class scores.
        low, high: Canny's hysteresis thresholds, see ``edge_regions``.

    Returns:
        M_ep, B×H×W int64.

    Raises:
        ValueError: shapes or thresholds out of range.
    """
    expect_maps(maps=maps)
    scores = maps[:, 1:]
    expect_tags(tags, scores)
    scores = scores * tags[:, :, None, None].to(scores.dtype)
    labels = conditional_filter(scores, certain=certain, uncertain=uncertain)
    regions = edge_regions(scores.amax(dim=1), low=low, high=high)
    majority = majority_labels(regions, labels, classes=tags.shape[1])
    refined = torch.where(labels == VOID, majority, labels)
    return torch.where((regions == 0) & (refined == 0), VOID, refined)


def edge_regions(maps: Tensor, *, low: int = 10, high: int = 100) -> Tensor:
    """The connected regions between the Canny edges of each map: on a GPU by ``edge_kernels``, else by OpenCV.

    Args:
        maps: N×H×W in [0, 1].
        low, high: hysteresis thresholds on the Sobel gradient of the smoothed 8-bit map.

    Returns:
        N×H×W int64 on the device of ``maps``: 0 on an edge, elsewhere the number of the pixel's region in its map,
        from 1; pixels above, below, left and right of each other hang together.

    Raises:
        RuntimeError: OpenCV is needed and cannot be imported.
    """
    exact = maps.to(torch.promote_types(maps.dtype, torch.float32))  # half precision would round twice
    planes = (exact.clamp(0, 1) * 255).round().to(torch.uint8)
    if planes.numel() < 2**31 and kernels_agree(maps.device):
        return regions_between_edges(planes, low=low, high=high)
    return regions_by_opencv(planes, low=low, high=high)


@cache
def kernels_agree(device: torch.device) -> bool:
    """Whether the kernels of a GPU run there and find what OpenCV finds: tried once, three times the same noise."""
    if not works(device):
        return False
    coarse = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    planes = (255 * F.interpolate(coarse, (96, 80), mode="bicubic")[:, 0].clamp(0, 1)).to(torch.uint8)
    wanted = regions_by_opencv(planes, low=10, high=100)
    found = (regions_between_edges(planes.to(device), low=10, high=100).cpu() for _ in range(3))
    return all(torch.equal(regions, wanted) for regions in found)


def regions_by_opencv(planes: Tensor, *, low: int, high: int) -> Tensor:
    """``edge_regions`` on the CPU.

    Args:
        planes: N×H×W uint8.
        low, high: see there.

    Returns, raises:
        See there.
    """
    try:
        import cv2
    except ImportError as error:
        raise RuntimeError(
            "EdgePredict needs OpenCV for Canny, and it cannot be imported "
            f"({error}); try: pip install opencv-python-headless"
        ) from error
    regions = torch.empty(planes.shape, dtype=torch.int32, pin_memory=planes.is_cuda)

    def divide(plane: NDArray[np.uint8], result: NDArray[np.int32]) -> None:
        free = (cv2.Canny(cv2.GaussianBlur(plane, (5, 5), 0), low, high) == 0).view("uint8")
        cv2.connectedComponents(free, result, connectivity=4, ltype=cv2.CV_32S)

    # Each map by itself, as many at a time as there are cores: OpenCV lets Python go on while it works.
    with ThreadPoolExecutor(max(1, min(len(planes), usable_cores()))) as pool:
        list(pool.map(divide, planes.cpu().numpy(), regions.numpy()))
    return regions.to(planes.device, non_blocking=True).long()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def majority_labels(regions: Tensor, labels: Tensor, *, classes: int = 254) -> Tensor:
    """The label that most pixels of each region have, at every pixel of it; of equally many the smallest.

    Args:
        regions: N×H×W int64, 0 for pixels that are in no region, else from 1; no two touch.
        labels: N×H×W int64 in 0 … K or void, which counts like any other.
        classes: K; fewer take less memory.

    Returns:
        N×H×W int64; void in no region.
    """
    # How many there are a GPU is not asked, for it would be waited for: at most every second pixel is one.
    count = regions[0].numel() // 2 + 2 if regions.is_cuda else int(regions.max()) + 1
    first = torch.arange(len(regions), device=regions.device)[:, None, None] * count
    numbers = (regions + first).flatten()
    void = classes + 1  # the last candidate
    place = numbers * (void + 1) + labels.clamp(max=void).flatten()
    votes = torch.zeros(len(regions) * count * (void + 1), dtype=torch.int32, device=regions.device)
    votes.scatter_add_(0, place, torch.ones_like(place, dtype=torch.int32))
    majority = votes.view(-1, void + 1).argmax(dim=1)
    majority = torch.where(majority == void, VOID, majority)
    return torch.where(regions > 0, majority[numbers].view_as(labels), VOID)


def edge_predict_mix(
    images: Tensor,
    tags: Tensor,
    pseudo_masks: Tensor,
    *,
    generator: torch.Generator,
    min_visible: float = 0.1,
) -> Mixed:
    """Paste all that each image's refined mask shows on a partner image (Jo et al. 2022, EPM).

    See ``paste_classes`` for void and for the tags of the result.

    Args:
        images: B×3×H×W.
        tags: B×K in {0, 1}.
        pseudo_masks: B×H×W int64 at the size of the images, usually from ``edge_predict``.
        generator: on the CPU; draws partners.
        min_visible: see ``paste_classes``.

    Returns:
        ``Mixed``, row b: parts of image b on its partner.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(images=images)
    if pseudo_masks.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(
            f"pseudo_masks: expected BxHxW of the images {tuple(images.shape)}, got {tuple(pseudo_masks.shape)}"
        )
    if tags.ndim != 2 or tags.shape[0] != images.shape[0]:
        raise ValueError(f"tags: expected BxK, B = {images.shape[0]}, got shape {tuple(tags.shape)}")
    below = sent(partners(images.shape[0], generator=generator), images.device)
    shown = label_counts(pseudo_masks)[:, 1 : tags.shape[1] + 1] > 0
    batch = Mixed.unmixed(images, tags, pseudo_masks)
    return paste_classes(batch, batch.rows(below), shown, min_visible=min_visible)


def edge_predict_and_mix(
    images: Tensor,
    tags: Tensor,
    maps: Tensor,
    *,
    generator: torch.Generator,
    certain: float = 0.55,
    uncertain: float = 0.10,
) -> Mixed:
    """EdgePredictMix by the interface of all mixing methods: ``edge_predict`` on the maps, then ``edge_predict_mix``.

    Args:
        images, tags, maps, generator: see ``methods.mixing``; the maps are M_dec, after PAMR.
        certain, uncertain: see ``edge_predict``.

    Returns:
        ``Mixed`` with tags in {0, 1}.

    Raises:
        ValueError, TypeError: shapes, thresholds or dtypes do not go together.
    """
    expect_mixing(images, tags, maps)
    masks = edge_predict(maps, tags, certain=certain, uncertain=uncertain)
    return edge_predict_mix(images, tags, masks, generator=generator)
