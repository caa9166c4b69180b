"""The segmentation of one picture of any size: which map, what refines it, and where it is cut.

Memory is bounded: a picture whose longer side is beyond ``LONGEST`` is seen smaller, and its labels are decided at its
own size, a band of rows at a time. Tiles would need less memory still, but a CAM is normalised by its maximum over the
whole picture, and a tile shows the classifier a part of an object where it has learnt from whole ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.data.transforms import normalise
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.crf import refine_labels, refine_probabilities
from rsepm_edu.evaluation.inference import (
    SCALES,
    TAG_THRESHOLD,
    multi_scale_maps,
    restrict_to_tags,
    segmenter_probabilities,
)
from rsepm_edu.evaluation.maskfree import ColourInformation
from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.methods.pamr import pamr
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter

LONGEST = 1000
"""Pixels of a picture's longer side, seen at scale 1: twice that of VOC's photographs."""

BAND = 256
"""Rows of a picture whose labels are decided at a time."""

CHOOSE = 25
"""Pictures that a choice of map and threshold looks at."""

MAPS = ("cam", "decoder", "argmax")


@dataclass(frozen=True)
class Recipe:
    """From a network's maps to labels.

    map: cam, or decoder (its class probabilities), cut at a background score; argmax: the decoder against its own
    background, or a segmenter's arg-max. pamr: refine cam or decoder by the picture's colours. crf: a dense CRF at the
    end. threshold: the background score of cam and decoder, in [0, 1); None for argmax.
    """

    map: str
    pamr: bool = False
    crf: bool = False
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.map not in MAPS:
            raise UserError(f"map: expected one of {', '.join(MAPS)}, got {self.map!r}")
        if self.map == "argmax" and (self.pamr or self.threshold is not None):
            raise UserError("map: expected cam or decoder where PAMR or a threshold is given, got argmax")
        if self.map != "argmax" and not (self.threshold is not None and 0 <= self.threshold < 1):
            raise UserError(f"threshold: expected 0 or more and less than 1, got {self.threshold}")

    def __str__(self) -> str:
        name = "decoder (arg-max)" if self.map == "argmax" else self.map
        name += " + PAMR" if self.pamr else ""
        name += "" if self.threshold is None else f" at θ {self.threshold:.2f}"
        return name + (" + CRF" if self.crf else "")


class Seen(NamedTuple):
    """A picture as a network saw it.

    image: uint8 1×3×h×w, no side longer than asked for. labels: of the N classes that are present, from 1 on.
    cam: 1×N×h×w in [0, 1], None of a segmenter. probabilities: 1×(1+N)×h×w, background first; None where they were left
    out.
    """

    image: Tensor
    labels: Tensor
    cam: Tensor | None
    probabilities: Tensor | None


def look(
    network: SingleStageNetwork | Segmenter,
    image: Tensor,
    tags: Tensor | None = None,
    *,
    decode: bool = True,
    scales: Sequence[float] = SCALES,
    longest: int = LONGEST,
) -> Seen:
    """Maps of a picture, of the classes that are present alone.

    Args:
        network: on the device to use.
        image: uint8 3×H×W.
        tags: K in {0, 1}; without them a single-stage network's classifier decides (``TAG_THRESHOLD``), and a segmenter
            may see any class.
        decode: whether a single-stage network's decoder is looked at.
        scales: see ``multi_scale_maps``.
        longest: a longer side is made that long first.

    Raises:
        UserError: ``decode`` with a network whose decoder was never trained.
    """
    device = next(network.parameters()).device
    small = _shrink(image[None].to(device), longest)
    given = None if tags is None else tags[None].to(device)
    if isinstance(network, Segmenter):
        probabilities = segmenter_probabilities(network, small, scales=scales)
        if given is not None:
            probabilities = restrict_to_tags(probabilities, given)
        return Seen(small, torch.arange(1, probabilities.shape[1], device=device), None, probabilities)
    maps = multi_scale_maps(network, normalise(small), given, scales=scales, decode=decode)
    present: Tensor | None = None
    if given is None:
        given = (maps.tag_probabilities >= TAG_THRESHOLD).float()
    labels = given[0].nonzero()[:, 0] + 1
    if maps.probabilities is not None:
        background_first = torch.cat([labels.new_zeros(1), labels])
        present = restrict_to_tags(maps.probabilities, given)[:, background_first]
    return Seen(small, labels, maps.cam[:, labels - 1], present)


def segment_picture(
    network: SingleStageNetwork | Segmenter,
    image: Tensor,
    recipe: Recipe,
    tags: Tensor | None = None,
    *,
    scales: Sequence[float] = SCALES,
    longest: int = LONGEST,
    pamr_stride: int = 4,
) -> Tensor:
    """The labels of a picture.

    Args:
        network, image, tags, scales, longest: see ``look``.
        recipe: what is done with the maps; of a segmenter argmax.
        pamr_stride: pixels per position of PAMR.

    Returns:
        uint8 H×W on the CPU: 0 background, 1 … K.

    Raises:
        UserError: see ``look``.
    """
    seen = look(network, image, tags, decode=recipe.map != "cam", scales=scales, longest=longest)
    size = (image.shape[1], image.shape[2])
    if len(seen.labels) == 0:
        return torch.zeros(size, dtype=torch.uint8)
    names = torch.cat([seen.labels.new_zeros(1), seen.labels]).to(torch.uint8)
    decide: Callable[[Tensor], Tensor]
    if recipe.map == "argmax":
        assert seen.probabilities is not None
        scores = refine_probabilities(seen.image, seen.probabilities) if recipe.crf else seen.probabilities

        def decide(part: Tensor) -> Tensor:
            return part.argmax(dim=1)

    else:
        assert recipe.threshold is not None
        scores, threshold = _seed(seen, recipe.map, pamr=recipe.pamr, stride=pamr_stride), recipe.threshold
        if recipe.crf:
            labels = refine_labels(seen.image, labels_at(scores, threshold))
            scores, threshold = F.one_hot(labels, len(names)).permute(0, 3, 1, 2)[:, 1:].to(scores), 0.5

        def decide(part: Tensor) -> Tensor:
            return labels_at(part.clamp(0, 1), threshold)

    return names[decide_in_bands(scores, size, decide)[0]].cpu()


def decide_in_bands(scores: Tensor, size: tuple[int, int], decide: Callable[[Tensor], Tensor]) -> Tensor:
    """Labels at a size of one's own from scores of another, enlarged a band of rows at a time.

    Args:
        scores: 1×C×h×w.
        size: (H, W) of the labels.
        decide: from scores 1×C×r×W to labels 1×r×W, each pixel by itself.

    Returns:
        What ``decide`` gives for the scores resized to H×W (bilinear, as ``F.interpolate`` does): 1×H×W.
    """
    if tuple(scores.shape[2:]) == size:
        return decide(scores)
    (height, width), rows = size, scores.shape[2]
    where = ((torch.arange(height, device=scores.device) + 0.5) * (rows / height) - 0.5).clamp(0, rows - 1)
    above = where.floor().long()
    below, share = (above + 1).clamp(max=rows - 1), (where - above).to(scores)[:, None]
    bands = []
    for start in range(0, height, BAND):
        band = slice(start, min(start + BAND, height))
        mixed = scores[:, :, above[band]].lerp(scores[:, :, below[band]], share[band])
        resized = F.interpolate(mixed, (mixed.shape[2], width), mode="bilinear", align_corners=False)
        bands.append(decide(resized))
    return torch.cat(bands, dim=1)


ScoredRecipe = tuple[Recipe, float]
"""A recipe at its best threshold, and the criterion there."""


def score_recipes(
    network: SingleStageNetwork,
    pictures: Iterable[tuple[Tensor, Tensor | None]],
    *,
    maps: Sequence[str],
    pamrs: Sequence[bool],
    scales: Sequence[float] = SCALES,
    longest: int = LONGEST,
    pamr_stride: int = 4,
) -> list[ScoredRecipe]:
    """Each map at the θ that the pictures alone say is best: the greatest mutual information with their colours.

    What ``choosing.choose_thresholds`` does for the threshold of each map, here to compare maps too (our reading; a
    hint, not a proof: see ``maskfree.ColourInformation``).

    Args:
        network, scales, longest, pamr_stride: as they will be used, see ``segment_picture``.
        pictures: uint8 3×H×W, each with its tags (K) or None.
        maps: to score, of ``MAPS``; those of the decoder only where it was trained.
        pamrs: with PAMR (True), without it (False), or both; argmax is always without.

    Raises:
        ValueError: no map to score.
    """
    candidates = [(name, refine) for name in maps for refine in pamrs if not (refine and name == "argmax")]
    if not candidates:
        raise ValueError(f"maps: expected some to choose from, got {list(maps)} with PAMR {list(pamrs)}")
    told = {candidate: ColourInformation() for candidate in candidates}
    for image, tags in pictures:
        seen = look(network, image, tags, decode=set(maps) != {"cam"}, scales=scales, longest=longest)
        if len(seen.labels) == 0:
            continue
        for (name, refine), criterion in told.items():
            criterion.update(_seed(seen, name, pamr=refine, stride=pamr_stride), seen.image)
    scored = []
    for (name, refine), criterion in told.items():
        threshold, value = criterion.best()
        scored.append((Recipe(name, refine, threshold=None if name == "argmax" else threshold), value))
    return scored


def best_recipe(scored: Sequence[ScoredRecipe], *, crf: bool = False) -> Recipe:
    """The recipe of the highest score, equals go to the first; with a CRF or without, which plays no part in it."""
    return replace(max(scored, key=lambda pair: pair[1])[0], crf=crf)


def _seed(seen: Seen, name: str, *, pamr: bool, stride: int) -> Tensor:
    """The map of that name as a seed, 1×N×h×w in [0, 1]; of argmax 1 where a class wins."""
    if name == "cam":
        assert seen.cam is not None
        seed = seen.cam
    else:
        assert seen.probabilities is not None
        seed = seen.probabilities[:, 1:]
    if name == "argmax":
        winners = seen.probabilities.argmax(dim=1)  # type: ignore[union-attr]
        return F.one_hot(winners, 1 + len(seen.labels)).permute(0, 3, 1, 2)[:, 1:].to(seed)
    return _sharpened(seen.image, seed, stride) if pamr else seed


def _sharpened(image: Tensor, seed: Tensor, stride: int) -> Tensor:
    """PAMR at 1 / stride of the picture's size, each map stretched to a maximum of 1 again, as ``seed_maps`` has it."""
    size = (seed.shape[2], seed.shape[3])
    small = (max(1, size[0] // stride), max(1, size[1] // stride))
    colours = F.interpolate(normalise(image), small, mode="bilinear", align_corners=False, antialias=True)
    refined = pamr(colours, F.interpolate(seed, small, mode="bilinear", align_corners=False))
    return F.interpolate(normalize_cam(refined), size, mode="bilinear", align_corners=False)


def _shrink(image: Tensor, longest: int) -> Tensor:
    height, width = image.shape[2:]
    if max(height, width) <= longest:
        return image
    size = [max(1, round(side * longest / max(height, width))) for side in (height, width)]
    smaller = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
    return smaller.round().clamp(0, 255).to(torch.uint8)
