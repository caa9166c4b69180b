"""Transforms of samples, made of torchvision.transforms.v2; pictures stay uint8 until they are on the device."""

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from rsepm_edu.data.voc import Sample
from rsepm_edu.labels import VOID

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def training_transform(size: int, *, scale: tuple[float, float] = (0.35, 1.0), jitter: float = 0.0) -> v2.Transform:
    """A random part of the picture at ``size``×``size``, mirrored half of the time.

    Args:
        size: pixels.
        scale: smallest and greatest share of the picture's area.
        jitter: strength of brightness, contrast and saturation changes, 0 to 1.
    """
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(size, scale=scale, ratio=(3 / 4, 4 / 3), antialias=True),
        v2.RandomHorizontalFlip(),
    ]
    if jitter:
        steps.append(v2.ColorJitter(jitter, jitter, jitter))
    return v2.Compose(steps)


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
    mean, std = _statistics(images)
    return (images.float() / 255 - mean) / std


def denormalise(images: Tensor) -> Tensor:
    """The inverse of ``normalise``, rounded and cut to uint8."""
    mean, std = _statistics(images)
    return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=images.device)[:, None, None]
    return mean, std
