"""The dense CRF on the pictures of a set: picture by picture, with only the labels that can occur in each."""

import torch
from torch import Tensor

from rsepm_edu.labels import BACKGROUND
from rsepm_edu.methods.dense_crf import dense_crf, dense_crf_labels

Sigmas = tuple[float, float, float]
"""Reach of the two kernels: smoothness in pixels, appearance in pixels, appearance in units of colour (0 to 255)."""

LABEL_SIGMAS: Sigmas = (3.0, 50.0, 5.0)
"""For labels and seeds of photographs (IRNet, Ahn et al. 2019)."""

FINAL_SIGMAS: Sigmas = (1.0, 67.0, 3.0)
"""For the segmentation of photographs (Krähenbühl & Koltun 2011)."""

LEAST = 0.05
"""A label whose probability stays below this all over a picture is left out of its CRF, for speed (our reading)."""


def refine_labels(images: Tensor, labels: Tensor, sigmas: Sigmas = LABEL_SIGMAS) -> Tensor:
    """``dense_crf_labels`` of each picture over its own labels and the background.

    Args:
        images: B×3×H×W uint8.
        labels: B×H×W integers, 0 background, 1 … K, no void.
        sigmas: see ``Sigmas``.

    Returns:
        B×H×W in the dtype of ``labels``; pictures of nothing but background stay as they are.
    """
    smooth, appearance, colour = sigmas
    refined = []
    for image, single in zip(images, labels, strict=True):
        there = torch.cat([single.new_tensor([BACKGROUND]), single.unique()]).unique()
        if len(there) > 1:
            numbers = torch.bucketize(single, there)
            numbers = dense_crf_labels(
                image[None],
                numbers[None],
                len(there),
                smooth_sigma=smooth,
                appearance_sigma=appearance,
                colour_sigma=colour,
            )[0]
            single = there[numbers]
        refined.append(single)
    return torch.stack(refined)


def refine_probabilities(images: Tensor, probabilities: Tensor, sigmas: Sigmas = FINAL_SIGMAS) -> Tensor:
    """``dense_crf`` of each picture over the background and the labels that reach ``LEAST`` anywhere in it.

    Args:
        images: B×3×H×W uint8.
        probabilities: B×(K+1)×H×W, summing to 1 over labels.
        sigmas: see ``Sigmas``.

    Returns:
        B×(K+1)×H×W, summing to 1 over labels; 0 for labels that were left out.
    """
    smooth, appearance, colour = sigmas
    refined = torch.zeros_like(probabilities)
    for image, single, target in zip(images, probabilities, refined, strict=True):
        active = single.flatten(1).amax(1) >= LEAST
        active[BACKGROUND] = True
        target[active] = dense_crf(
            image[None],
            single[active][None],
            smooth_sigma=smooth,
            appearance_sigma=appearance,
            colour_sigma=colour,
        )[0]
    return refined
