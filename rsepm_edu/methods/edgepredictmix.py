"""EdgePredictMix (EPM): cut objects out along the edges of the prediction and paste them on other pictures.

Jo, Yu & Kim, "RecurSeed and EdgePredictMix", arXiv 2204.06754, 2022. The paper names two kinds of evidence: absolute
(the conditional filter on the probability, 0.55 and 0.10) and relative (Canny edges of the probability map).

Our reading, where the sources are silent:
    * edges are found per class on its probability map, as an 8-bit picture, with Canny levels 20 and 60: these
      are of the Sobel gradient, in which a straight step of g grey levels (of 255) measures 4·g;
    * from the certain object and the certain background two fronts walk through the uncertain zone, one pixel a
      step, and stop at edges: a pixel belongs to the front that comes first; edges and ties stay void;
    * a picture's partner is drawn at random within the batch; half of the classes that its mask shows, rounded up,
      are pasted;
    * a class of the picture below is still visible when a tenth of its labelled pixels is.
"""

import torch
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods.mixing import Mixed, choose_half, expect_mixing, label_counts, partners, paste_classes
from rsepm_edu.methods.shapes import expect_maps, expect_tags


@torch.no_grad()
def edge_predict(
    probabilities: Tensor,
    tags: Tensor,
    *,
    certain: float = 0.55,
    uncertain: float = 0.10,
    low: int = 20,
    high: int = 60,
    steps: int = 32,
) -> Tensor:
    """Refine a predicted mask by its own certainty and its own edges (Jo et al. 2022, EP).

    For each present class: object where its probability is ≥ ``certain``, not the object where it is ≤
    ``uncertain``; between the two, the side of the Canny edge decides (see the module's text). A pixel takes the most
    probable class that claims it; it is background where every present class rejects it (everywhere in a picture
    without tags), void otherwise.

    Args:
        probabilities: B×(K+1)×H×W in [0, 1], background first.
        tags: B×K in {0, 1}.
        certain, uncertain: thresholds of the conditional filter.
        low, high: Canny's hysteresis thresholds, see ``canny_edges``.
        steps: how far the fronts walk at most, in pixels.

    Returns:
        Pseudo masks, B×H×W int64.

    Raises:
        ValueError: shapes or thresholds out of range.
    """
    expect_maps(probabilities=probabilities)
    scores = probabilities[:, 1:]
    expect_tags(tags, scores)
    if not 0 <= uncertain < certain <= 1:
        raise ValueError(f"expected 0 <= uncertain < certain <= 1, got uncertain={uncertain}, certain={certain}")
    batch, classes = tags.nonzero(as_tuple=True)
    maps = scores[batch, classes]  # only the present classes: N×H×W
    inside = maps >= certain
    outside = maps <= uncertain
    free = ~inside & ~outside & ~canny_edges(maps, low=low, high=high)
    inside, outside = meet(inside, outside, free, steps=steps)

    claims = torch.zeros_like(scores)
    claims[batch, classes] = torch.where(inside, maps, 0)
    rejected = torch.ones_like(scores, dtype=torch.bool)
    rejected[batch, classes] = outside
    best, label = claims.max(dim=1)
    mask = torch.where(rejected.all(dim=1), 0, VOID)
    return torch.where(best > 0, label + 1, mask)


def meet(inside: Tensor, outside: Tensor, free: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
    """Let two fronts walk through ``free`` pixels, one step at a time, each pixel to the first to arrive.

    Fronts walk up, down, left and right only: a diagonal step would slip through a diagonal edge. A pixel that both
    reach in the same step belongs to neither.

    Args:
        inside, outside, free: N×H×W bool, disjoint.
        steps: how many steps at most.

    Returns:
        The two regions after the walk, N×H×W bool.
    """
    for _ in range(steps):
        next_inside = _grow(inside) & free
        next_outside = _grow(outside) & free
        free = free & ~next_inside & ~next_outside
        both = next_inside & next_outside
        inside = inside | (next_inside & ~both)
        outside = outside | (next_outside & ~both)
    return inside, outside


def _grow(region: Tensor) -> Tensor:
    grown = region.clone()
    grown[:, 1:] |= region[:, :-1]
    grown[:, :-1] |= region[:, 1:]
    grown[:, :, 1:] |= region[:, :, :-1]
    grown[:, :, :-1] |= region[:, :, 1:]
    return grown


def canny_edges(maps: Tensor, *, low: int = 20, high: int = 60) -> Tensor:
    """Canny edges of probability maps, on the CPU by OpenCV.

    Args:
        maps: N×H×W in [0, 1].
        low, high: hysteresis thresholds on the Sobel gradient of the 8-bit map; a straight step of g grey levels
            measures 4·g.

    Returns:
        N×H×W bool on the device of ``maps``.

    Raises:
        RuntimeError: OpenCV cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        raise RuntimeError(
            "EdgePredict needs OpenCV for Canny, and it cannot be imported "
            f"({error}); try: pip install opencv-python-headless"
        ) from error
    bytes_ = (maps.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    edges = [torch.from_numpy(cv2.Canny(plane, low, high)) for plane in bytes_]
    if not edges:
        return torch.zeros_like(maps, dtype=torch.bool)
    return torch.stack(edges).to(maps.device) > 0


def edge_predict_mix(
    images: Tensor,
    tags: Tensor,
    pseudo_masks: Tensor,
    *,
    generator: torch.Generator,
    min_visible: float = 0.1,
) -> Mixed:
    """Paste half of each picture's classes, cut along its refined mask, on a partner picture (Jo et al. 2022, EPM).

    See ``paste_classes`` for void and for the tags of the result.

    Args:
        images: B×3×H×W.
        tags: B×K in {0, 1}.
        pseudo_masks: B×H×W int64 at the size of the images, usually from ``edge_predict``.
        generator: on the CPU; draws partners and classes.
        min_visible: see ``paste_classes``.

    Returns:
        ``Mixed``, row b: parts of picture b on its partner.

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
    below = partners(images.shape[0], generator=generator).to(images.device)
    shown = label_counts(pseudo_masks)[:, 1 : tags.shape[1] + 1] > 0
    chosen = choose_half(shown, generator=generator)
    batch = Mixed(images, tags, pseudo_masks)
    return paste_classes(batch, batch.rows(below), chosen, min_visible=min_visible)


def epm(
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
        images, tags, maps, generator: see ``methods.mixing``.
        certain, uncertain: see ``edge_predict``.

    Returns:
        ``Mixed`` with tags in {0, 1}.

    Raises:
        ValueError, TypeError: shapes, thresholds or dtypes do not go together.
    """
    expect_mixing(images, tags, maps)
    masks = edge_predict(maps, tags, certain=certain, uncertain=uncertain)
    return edge_predict_mix(images, tags, masks, generator=generator)
