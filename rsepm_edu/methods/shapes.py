"""Checks shared by the methods: one clear line instead of a broadcasting surprise, or of numbers without a meaning."""

import torch
from torch import Tensor

ROUNDING = 1e-3
"""By so much numbers may leave their range: half precision and sums of rounded numbers do."""


def expect_maps(**tensors: Tensor) -> None:
    """Check that every named tensor is a floating batch of maps, B×C×h×w.

    Raises:
        ValueError: a tensor has not four dimensions.
        TypeError: a tensor is not of a floating dtype.
    """
    for name, tensor in tensors.items():
        if tensor.ndim != 4:
            raise ValueError(f"{name}: expected BxCxhxw, got shape {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise TypeError(f"{name}: expected a floating dtype, got {tensor.dtype}")


def expect_tags(tags: Tensor, maps: Tensor) -> None:
    """Check that ``tags`` is B×K for ``maps`` of B×K×h×w.

    Raises:
        ValueError: the shapes do not go together.
    """
    if tags.shape != maps.shape[:2]:
        raise ValueError(f"tags: expected BxK = {tuple(maps.shape[:2])}, got shape {tuple(tags.shape)}")


def expect_range(name: str, tensor: Tensor, low: float, high: float) -> None:
    """Check that every number is, but for ``ROUNDING``, in [low, high]. On a GPU this waits for the result.

    Raises:
        ValueError: NaN or out of range.
    """
    if not tensor.numel():
        return
    least, most = (float(end) for end in torch.aminmax(tensor))
    if not (low - ROUNDING <= least and most <= high + ROUNDING):  # "not a number" fails both
        raise ValueError(f"{name}: expected numbers in {low:g} ... {high:g}, got {least:g} ... {most:g}")
