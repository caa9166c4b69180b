"""Transforms of samples, made of torchvision.transforms.v2; pictures stay uint8 until they are on the device."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from rsepm_edu.data.voc import Sample
from rsepm_edu.device import sent
from rsepm_edu.labels import VOID

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


Crop = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From a picture, 3×H×W uint8, to a square crop and where the picture lies in it: top, left, bottom, right (int64)."""


def training_transform(size: int, *, scale: tuple[float, float] = (0.35, 1.0)) -> v2.Transform:
    """A random part of the picture at ``size``×``size``, mirrored half of the time; of a sample its mask too.

    Args:
        size: pixels.
        scale: smallest and greatest share of the picture's area.
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=scale, ratio=(3 / 4, 4 / 3), antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    )


def training_crop(kind: Literal["pad", "zoom"], size: int, *, scale: tuple[float, float]) -> Crop:
    """How a picture becomes a crop of ``size``×``size``; both kinds mirror half of the time.

    Args:
        kind: "pad", see ``pad_crop``; "zoom", see ``training_transform``.
        size: pixels.
        scale: for "pad" the smallest and greatest long side, in crops; for "zoom" the share of the picture's area.
    """
    if kind == "pad":
        return partial(pad_crop, size=size, scale=scale)
    return partial(_zoom_crop, training_transform(size, scale=scale))


def _zoom_crop(zoom: v2.Transform, image: Tensor) -> tuple[Tensor, Tensor]:
    crop = zoom(image)
    return crop, torch.tensor([0, 0, *crop.shape[-2:]])


def pad_crop(image: Tensor, *, size: int, scale: tuple[float, float] = (0.625, 1.25)) -> tuple[Tensor, Tensor]:
    """A picture at a random size, mirrored half of the time, cut or padded to a square (Jo & Yu 2021: 320…640 of 512).

    Each side that is longer than the crop is cut at a random place, each that is shorter lies at a random place in
    it. Padding has ImageNet's mean colour, close to 0 once normalised.

    Args:
        image: 3×H×W uint8.
        size: side of the crop, pixels.
        scale: smallest and greatest long side of the resized picture, in crops.

    Returns:
        The crop, 3×size×size uint8, and where the picture lies in it: top, left, bottom, right (int64).
    """
    height, width = image.shape[-2:]
    draw = torch.rand(4)
    low, high = scale
    long_side = (low + (high - low) * float(draw[0])) * size
    sides = [max(1, round(side * long_side / max(height, width))) for side in (height, width)]
    picture = V.resize(image, sides, antialias=True)
    if draw[1] < 0.5:
        picture = V.horizontal_flip(picture)
    kept = [min(side, size) for side in sides]
    top, left = (int((side - keep + 1) * float(share)) for side, keep, share in zip(sides, kept, draw[2:], strict=True))
    picture = picture[..., top : top + kept[0], left : left + kept[1]]
    top, left = (int((size - keep + 1) * float(share)) for keep, share in zip(kept, draw[2:], strict=True))
    bars = [left, top, size - kept[1] - left, size - kept[0] - top]
    crop = V.pad(picture, bars, fill=[round(255 * mean) for mean in IMAGENET_MEAN])
    return crop, torch.tensor([top, left, top + kept[0], left + kept[1]])


def inside_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """1 inside each box, 0 outside.

    Args:
        boxes: B×4 integers: top, left, bottom, right; the last two are the first pixels outside.
        size: H and W.

    Returns:
        B×1×H×W float32.
    """
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    y, x = (torch.arange(side, device=boxes.device) for side in size)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None].float()


def draw_colours(jitter: float) -> Tensor:
    """Random factors of brightness, contrast and saturation for one picture, from torch's own generator.

    Args:
        jitter: strength; 0 draws nothing.

    Returns:
        Three factors, uniform in [max(0, 1 − jitter), 1 + jitter].
    """
    if jitter == 0:
        return torch.ones(3)
    return torch.empty(3).uniform_(max(0.0, 1 - jitter), 1 + jitter)


def change_colours(images: Tensor, factors: Tensor) -> Tensor:
    """Change brightness, then contrast, then saturation of each picture by its own factors.

    Done for a whole batch on its device: on a processor that reads pictures it takes more time than reading them. Each
    change draws the picture away from black, from its mean grey, from its own greys, as in torchvision's ColorJitter,
    which takes the three in a random order.

    Args:
        images: B×3×H×W uint8.
        factors: B×3, not negative, see ``draw_colours``; 1 changes nothing.

    Returns:
        B×3×H×W uint8.
    """
    brightness, contrast, saturation = sent(factors, images.device)[:, :, None, None, None].unbind(1)
    changed = (images.float() * brightness).clamp_(0, 255)
    mean_grey = _greys(changed).mean(dim=(1, 2, 3), keepdim=True)
    changed = changed.mul_(contrast).add_(mean_grey * (1 - contrast)).clamp_(0, 255)
    greys = _greys(changed)
    changed = changed.mul_(saturation).add_(greys * (1 - saturation)).clamp_(0, 255)
    return changed.round_().to(torch.uint8)


def _greys(images: Tensor) -> Tensor:
    """B×3×H×W to B×1×H×W: luma as in ITU-R BT.601."""
    return (images * _by_colour((0.299, 0.587, 0.114), images.device)).sum(1, keepdim=True)


def fit_square(sample: Sample, side: int) -> Sample:
    """A picture, and its mask where there is one, scaled into the middle of ``side``×``side`` pixels.

    So it can be put into a batch with others. Nothing is cut off: its tags stay right. The bars are of ImageNet's mean
    colour, and void in the mask.
    """
    height, width = sample["image"].shape[-2:]
    small = [max(1, round(length * side / max(height, width))) for length in (height, width)]
    top, left = ((side - length) // 2 for length in small)
    bars = [left, top, side - small[1] - left, side - small[0] - top]
    fitted = sample.copy()
    colour = [round(255 * mean) for mean in IMAGENET_MEAN]
    fitted["image"] = V.pad(V.resize(sample["image"], small, antialias=True), bars, fill=colour)
    if "mask" in sample:
        fitted["mask"] = V.pad(V.resize(sample["mask"], small, v2.InterpolationMode.NEAREST), bars, fill=VOID)
    return fitted


def normalise(images: Tensor) -> Tensor:
    """uint8 …×3×H×W to float32 with ImageNet's mean and deviation, as torchvision's weights expect."""
    mean, std = (_by_colour(values, images.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images.float() / 255 - mean) / std


def denormalise(images: Tensor) -> Tensor:
    """The inverse of ``normalise``, rounded and cut to uint8."""
    mean, std = (_by_colour(values, images.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _by_colour(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """3×1×1 float32, filled in on the device: a copy to a GPU would make the host wait."""
    return torch.stack([torch.full((1, 1), value, dtype=torch.float32, device=device) for value in values])
