"""Seeds on the disk: compressed float16, only the classes that a picture has, never more than 2 MB a picture."""

import math
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path

MAX_BYTES = 2_000_000
"""The most that the file of one picture takes, whatever is in it."""

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


def read_seed(path: str | os.PathLike[str]) -> Tensor:
    """Read a seed back at the size of its picture.

    Returns:
        K×H×W float32, resized bilinearly where it was stored at a stride.

    Raises:
        UserError: missing, unreadable, or no seed.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            maps, classes = torch.from_numpy(stored["maps"]).float(), torch.from_numpy(stored["classes"]).long()
            count, height, width = (int(number) for number in stored["shape"])
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected a seed, got no such file") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: expected a whole seed file, got: {error}") from error
    seed = torch.zeros(count, height, width)
    if len(classes):
        if maps.shape[1:] != (height, width):
            maps = F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False)[0]
        seed[classes] = maps
    return seed
