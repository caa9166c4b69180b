"""From pictures to maps and labels: several scales, each with its mirror image.

A network sees a picture at the scales 1.0, 0.5, 1.5 and 2.0, each together with its mirror image in
one batch; mirrored maps are turned back, all are resized to the picture and summed up:

    cam              normalize_cam( sum ReLU(M) ), divided by its maximum a class, 0 for absent tags
    probabilities    mean of softmax(seg_logits)
    tag probability  mean of sigmoid(tag_logits)

Deviation from the released code, which resizes to scale times size: here both sides are rounded to
a multiple of the network's stride, so that maps and picture cover the same ground whatever the size
of the photograph.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsepm_edu.data.transforms import normalise
from rsepm_edu.errors import UserError
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.methods.shapes import expect_maps, expect_tags
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter

SCALES: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
NEAR_SCALES: tuple[float, ...] = (1.0, 0.75, 1.25)
"""For the small network of Creatures, which knows heads of one size: at half and twice of it, it sees no animals.

ORACLE: compared on masks of `train` (40 images, no tags, the lessons' RS network): 63.5 with these, 57.9 with those.
"""

LEAST_SCALE, GREATEST_SCALE = 0.1, 4.0
"""What settings and options may ask for: at 4.0 a photograph of 500 pixels has as many as one of 2000."""

TAG_THRESHOLD = 0.34
"""Probability from which a class counts as present when no tags are given (released setting)."""


def usual_scales(backbone: str) -> tuple[float, ...]:
    """The scales at which a network with that backbone is asked, unless one says others."""
    return NEAR_SCALES if backbone == "creatures" else SCALES


class Maps(NamedTuple):
    """What a batch of B pictures H×W looks like to a network.

    cam: B×K×H×W in [0, 1], normalised by its maximum a class; 0 for absent classes if tags were given. Without tags
    every class reaches nearly 1, present or not.
    probabilities: B×(K+1)×H×W, the decoder's, summing to 1 over labels; None if it was left out.
    tag_probabilities: B×K in [0, 1].
    """

    cam: Tensor
    probabilities: Tensor | None
    tag_probabilities: Tensor


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode for a block and give every module its own mode back after it.

    Each module is remembered by itself, since parts of a network in training may be held in eval
    mode (fixed batch norm, say). Holds after an exception too.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def multi_scale_maps(
    network: SingleStageNetwork,
    images: Tensor,
    tags: Tensor | None = None,
    *,
    scales: Sequence[float] = SCALES,
    mirror: bool = True,
    decode: bool = True,
    classes: Tensor | None = None,
) -> Maps:
    """Maps of a batch of pictures over scales and mirror images (formulas above).

    Memory is that of one forward pass over 2B pictures at the largest scale.

    Args:
        network: anything with `stride` and the call `network(images, decode=...) -> Outputs`; runs
            in eval mode without gradients and has its modes back afterwards.
        images: B×3×H×W on the network's device, uint8 or already ImageNet-normalised floats.
        tags: B×K in {0, 1}; without them no class is taken as absent.
        scales: sizes relative to the picture; each side is rounded to a multiple of the stride.
        mirror: see each scale's mirror image too.
        decode: run the decoder; without it `probabilities` is None.
        classes: which of the K classes to make maps of, P int64 numbers from 0, since most of the time goes into maps
            at the size of the picture; None: all.

    Returns:
        `Maps` at the size of the pictures, in float32 (float64 for float64 pictures). With `classes` cam is B×P×H×W and
        probabilities B×(P+1)×H×W, those of the other classes left out of the sum; tag_probabilities are of all.

    Raises:
        TypeError: pictures of another dtype.
        ValueError: pictures that are not B×3×H×W, tags that are not B×K, or scales that are empty
            or not positive.
        UserError: `decode` with a network whose decoder was never trained.
    """
    if decode and "decoder" not in getattr(network, "learnt", ("decoder",)):
        raise UserError(
            "decode: expected a network whose decoder was trained, got one whose training had not come to it "
            "(decode=False leaves the decoder out)"
        )
    pictures = _checked_pictures(images, scales)
    with evaluation_mode(network), torch.inference_mode():
        cam, probabilities, tag_probabilities = _summed_maps(
            network, pictures, scales=scales, mirror=mirror, decode=decode, classes=classes
        )
    # Outside inference mode, so that the results are ordinary tensors that can enter a loss.
    views = len(scales) * (2 if mirror else 1)
    return Maps(
        normalize_cam(cam, tags if tags is None or classes is None else tags[:, classes]),
        None if probabilities is None else probabilities / views,
        tag_probabilities / views,
    )


def segmenter_probabilities(
    network: Segmenter, images: Tensor, *, scales: Sequence[float] = SCALES, mirror: bool = True
) -> Tensor:
    """What a segmenter of the last stage says of a batch: mean of softmax(seg_logits) over scales and mirror images.

    Args:
        network: runs in eval mode without gradients and has its modes back afterwards.
        images, scales, mirror: see `multi_scale_maps`.

    Returns:
        B×(K+1)×H×W, summing to 1 over labels, in float32 (float64 for float64 pictures).

    Raises:
        TypeError, ValueError: see `multi_scale_maps`.
    """
    pictures = _checked_pictures(images, scales)
    size = pictures.shape[2], pictures.shape[3]
    total = None
    with evaluation_mode(network), torch.inference_mode():
        for scale in scales:
            view = _rescale(pictures, scale, network.stride)
            logits = network(torch.cat([view, view.flip(-1)]) if mirror else view)
            logits = _resize(logits.to(torch.promote_types(pictures.dtype, torch.float32)), size)
            total = _add(total, _fold(logits.softmax(dim=1), mirror))
    assert total is not None  # there is at least one scale
    return total / (len(scales) * (2 if mirror else 1))  # outside inference mode: an ordinary tensor


def _checked_pictures(images: Tensor, scales: Sequence[float]) -> Tensor:
    """Pictures as a network takes them, after the checks that `multi_scale_maps` promises."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images: expected Bx3xHxW, got {tuple(images.shape)}")
    if not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise TypeError(f"images: expected uint8 or normalised floats, got {images.dtype}")
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales: expected positive numbers, got {tuple(scales)}")
    pictures = images.as_subclass(Tensor)
    return normalise(pictures) if pictures.dtype == torch.uint8 else pictures


def _summed_maps(
    network: SingleStageNetwork,
    pictures: Tensor,
    *,
    scales: Sequence[float],
    mirror: bool,
    decode: bool,
    classes: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Sums over all views of ReLU'd cams, decoder probabilities and tag probabilities."""
    size = pictures.shape[2], pictures.shape[3]
    dtype = torch.promote_types(pictures.dtype, torch.float32)
    cam = probabilities = tag_probabilities = None
    for scale in scales:
        view = _rescale(pictures, scale, network.stride)
        outputs = network(torch.cat([view, view.flip(-1)]) if mirror else view, decode=decode)
        # Turned back and summed while small: resizing is linear, so once per scale will do.
        chosen = outputs.cam if classes is None else outputs.cam[:, classes]
        maps = _fold(chosen.to(dtype).relu(), mirror)
        cam = _add(cam, _resize(maps, size))
        if outputs.seg_logits is not None:
            # Logits are resized, not probabilities: the loss sees the decoder that way.
            # One plane after the other: else softmax copies them at the picture's size.
            logits = _resize(outputs.seg_logits.to(dtype).contiguous(), size)
            shares = logits.softmax(dim=1)
            if classes is not None:
                shares = shares[:, F.pad(classes + 1, (1, 0))]
            probabilities = _add(probabilities, _fold(shares, mirror))
        tags = outputs.tag_logits.to(dtype).sigmoid().unflatten(0, (-1, len(pictures)))
        tag_probabilities = _add(tag_probabilities, tags.sum(dim=0))
    assert cam is not None and tag_probabilities is not None  # there is at least one scale
    return cam, probabilities, tag_probabilities


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total + part


def _rescale(pictures: Tensor, scale: float, stride: int) -> Tensor:
    """Pictures at `scale`, each side rounded to a multiple of `stride`, one at least."""
    height, width = (max(1, round(side * scale / stride)) * stride for side in pictures.shape[2:])
    if (height, width) == tuple(pictures.shape[2:]):
        return pictures
    # Smaller pictures are smoothed first, as photographs resized in training are.
    return F.interpolate(pictures, (height, width), mode="bilinear", align_corners=False, antialias=True)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _fold(maps: Tensor, mirror: bool) -> Tensor:
    """Maps of a batch plus those of its mirror images, turned back."""
    if not mirror:
        return maps
    plain, mirrored = maps.chunk(2)
    return plain + mirrored.flip(-1)


def restrict_to_tags(probabilities: Tensor, tags: Tensor) -> Tensor:
    """Take absent classes out of label probabilities and let the others sum to 1 again.

    Args:
        probabilities: B×(K+1)×H×W, label 0 background.
        tags: B×K in {0, 1}; background is always present.

    Returns:
        B×(K+1)×H×W; where all present labels had probability 0, background gets 1.

    Raises:
        TypeError, ValueError: wrong dtype or shapes.
    """
    expect_maps(probabilities=probabilities)
    expect_tags(tags, probabilities[:, 1:])
    kept = probabilities.clone()
    kept[:, 1:] *= tags[:, :, None, None].to(kept)
    total = kept.sum(dim=1, keepdim=True)
    kept[:, :1] = torch.where(total > 0, kept[:, :1], 1)
    return kept / torch.where(total > 0, total, 1)


def predict_labels(maps: Maps, tags: Tensor | None = None, *, tag_threshold: float = TAG_THRESHOLD) -> Tensor:
    """The decoder's segmentation: arg-max over background and the classes that are present.

    Without tags a class is present from a tag probability of `tag_threshold` on, so nothing but the
    picture is used; a picture in which no class gets that far is background all over. With tags
    (scoring seeds) those decide.

    Returns:
        int64 B×H×W, 0 background, 1 ... K.

    Raises:
        ValueError: maps without probabilities, or tags that are not B×K.
    """
    if maps.probabilities is None:
        raise ValueError("maps: expected decoder probabilities, got none (made with decode=False)")
    if tags is None:
        tags = maps.tag_probabilities >= tag_threshold
    return restrict_to_tags(maps.probabilities, tags).argmax(dim=1)


def segment(
    network: SingleStageNetwork | Segmenter,
    images: Tensor,
    *,
    scales: Sequence[float] = SCALES,
    mirror: bool = True,
) -> Tensor:
    """The final segmentation of a batch, nothing but the pictures given.

    The classes come from a single-stage network's classifier (see `predict_labels`), or from a segmenter's arg-max.

    Args:
        network, images, scales, mirror: see `multi_scale_maps` and `segmenter_probabilities`.

    Returns:
        int64 B×H×W, 0 background, 1 ... K.

    Raises:
        TypeError, ValueError, UserError: see `multi_scale_maps`.
    """
    if isinstance(network, Segmenter):
        return segmenter_probabilities(network, images, scales=scales, mirror=mirror).argmax(dim=1)
    return predict_labels(multi_scale_maps(network, images, scales=scales, mirror=mirror))
