"""Seeds on the disk: compressed float16, only the classes that a picture has, never more than 2 MB a picture."""

import math
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.errors import UserError, one_line
from rsepm_edu.files import atomic_path
from rsepm_edu.labels import VOID
from rsepm_edu.saved import expect_sums

MAX_BYTES = 2_000_000
"""The most that the file of one picture takes, whatever is in it."""

_MOST_PIXELS = 2**27  # of a picture; more is a damaged size
_OVERHEAD = 8_192  # names, sizes and what compression adds to values that cannot be compressed
_TOLERANCE = 1e-3  # interpolation and sums of rounded numbers overshoot 1 a little


def write_seed(path: str | os.PathLike[str], seed: Tensor, *, stride: int = 1) -> None:
    """Write the seed of one picture, atomically.

    A value stands for stride×stride pixels. Where even values that do not compress could take more than ``MAX_BYTES``
    (many classes, a large picture), the stride becomes as large as it must.

    Args:
        path: a name ending in .npz.
        seed: K×H×W in [0, 1], at the size of the picture; classes that are 0 everywhere take no space.
        stride: pixels per value and side; 4 loses little of maps that a network made at stride 8 or 16.

    Raises:
        ValueError: the seed is not K×H×W, not in [0, 1] or not a number, or the stride is below 1.
        UserError: ``path`` does not end in ".npz".
    """
    if Path(path).suffix != ".npz":
        raise UserError(f"{path}: expected a name ending in .npz for a seed")
    if seed.ndim != 3 or not seed.is_floating_point() or stride < 1:
        raise ValueError(f"expected a floating KxHxW and stride >= 1, got {tuple(seed.shape)}, {seed.dtype}, {stride}")
    low, high = (float(end) for end in torch.aminmax(seed))
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # "not a number" fails both
        raise ValueError(f"expected seed scores in [0, 1], got {low:g} ... {high:g}")
    classes = (seed != 0).flatten(1).any(1).nonzero()[:, 0]
    maps = seed[classes].float()
    height, width = seed.shape[1:]
    while 2 * len(classes) * math.ceil(height / stride) * math.ceil(width / stride) > MAX_BYTES - _OVERHEAD:
        stride += 1
    if stride > 1 and len(classes):
        size = (math.ceil(height / stride), math.ceil(width / stride))
        maps = F.interpolate(maps[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            maps=maps.half().cpu().numpy(),
            classes=classes.cpu().numpy().astype(np.uint8),
            shape=np.array(seed.shape, dtype=np.int32),
        )


def read_seed(path: str | os.PathLike[str], expected: tuple[int, ...] | None = None) -> Tensor:
    """Read a seed back at the size of its picture.

    Args:
        path: of the file.
        expected: K×H×W of the picture it must be for; None: of any.

    Returns:
        K×H×W float32 in [0, 1], resized bilinearly where it was stored at a stride.

    Raises:
        UserError: missing, damaged, no seed, or made for another picture or other classes.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: expected a seed, got no such file")
    expect_sums(path, "a whole seed file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            maps, classes, shape = stored["maps"], stored["classes"], tuple(stored["shape"].tolist())
    except Exception as error:  # NumPy raises many kinds on what is no archive, holds pickles or lacks an array
        raise UserError(f"{path}: expected a whole seed file, got: {one_line(error)}") from error
    whole = len(shape) == 3 and all(type(number) is int and number >= 1 for number in shape)
    if not whole or shape[0] >= VOID or math.prod(shape[1:]) > _MOST_PIXELS:
        raise UserError(f"{path}: expected a seed with a shape KxHxW, got {shape!r:.80}")
    if expected is not None and shape != expected:
        raise UserError(f"{path}: expected a seed KxHxW = {expected} of this picture, got {shape}")
    if classes.ndim != 1 or classes.dtype != np.uint8 or maps.ndim != 3 or maps.dtype != np.float16:
        raise UserError(f"{path}: expected a seed with maps and their classes, got arrays of other kinds")
    if len(maps) != len(classes) or len(set(classes.tolist())) < len(classes) or any(classes >= shape[0]):
        raise UserError(f"{path}: expected a seed with a map for each of its classes, got {classes.tolist()!r:.80}")
    if maps.size and not (maps.min() >= -_TOLERANCE and maps.max() <= 1 + _TOLERANCE):  # NaN fails both
        raise UserError(f"{path}: expected a seed with scores in [0, 1], got {maps.min()} ... {maps.max()}")
    if len(classes) and not (1 <= maps.shape[1] <= shape[1] and 1 <= maps.shape[2] <= shape[2]):
        raise UserError(f"{path}: expected a seed with maps of {shape[1:]} at most, got {maps.shape[1:]}")
    return _enlarged(torch.from_numpy(maps).float(), torch.from_numpy(classes).long(), shape)


def _enlarged(maps: Tensor, classes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The seed K×H×W of the maps of some of its classes."""
    count, height, width = shape
    seed = torch.zeros(count, height, width)
    if len(classes):
        if maps.shape[1:] != (height, width):
            maps = F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[0]
        seed[classes] = maps.clamp(0, 1)
    return seed
