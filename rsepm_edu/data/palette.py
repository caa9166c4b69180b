"""Masks as VOC stores them: one byte per pixel, a label, shown through a fixed palette."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path
from rsepm_edu.labels import VOID as VOID


def voc_palette() -> list[int]:
    """The VOC devkit's colour map as 768 numbers, r, g, b of label 0, of label 1, and so on.

    The bits of a label are dealt out to red, green and blue in turn, each colour being filled from
    its highest bit down: bit 3j + c of the label becomes bit 7 - j of colour c (0 red, 1 green,
    2 blue). Label 0 is black, `VOID` is the pale (224, 224, 192).
    """
    label, channel = np.mgrid[:256, :3]
    palette = sum(((label >> (3 * j + channel)) & 1) << (7 - j) for j in range(3))
    return np.asarray(palette).flatten().tolist()


def read_mask(path: str | os.PathLike[str]) -> torch.Tensor:
    """Read a label mask: a palette or 8-bit grey picture, the byte of a pixel being its label.

    Returns:
        uint8 tensor HxW.

    Raises:
        UserError: the file is missing, is no picture, is truncated, or holds colours, not labels.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("P", "L"):
                raise UserError(f"{path}: expected a palette or 8-bit grey mask, got mode {picture.mode}")
            return torch.from_numpy(np.array(picture, dtype=np.uint8))
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected a mask here, got no such file") from error
    except (OSError, SyntaxError) as error:  # Pillow calls some broken PNG files a SyntaxError
        raise UserError(f"{path}: expected a readable mask, got: {error}") from error


def write_mask(path: str | os.PathLike[str], mask: torch.Tensor | npt.NDArray[np.integer]) -> None:
    """Write labels HxW (any integer dtype, values 0 to 255) as a VOC palette PNG, atomically.

    Raises:
        TypeError: not integers. ValueError: not HxW, or a value outside 0 to 255.
        UserError: `path` does not end in ".png".
    """
    if Path(path).suffix.lower() != ".png":  # a lossy format would change the labels
        raise UserError(f"{path}: expected a name ending in .png for a mask")
    picture = Image.fromarray(_labels(mask))
    picture.putpalette(voc_palette())
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def colourise(mask: torch.Tensor | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Show labels HxW (any integer dtype, values 0 to 255) in VOC's colours: uint8 HxWx3.

    Raises:
        TypeError: not integers. ValueError: not HxW, or a value outside 0 to 255.
    """
    palette = np.array(voc_palette(), dtype=np.uint8).reshape(256, 3)
    return palette[_labels(mask)]


def _labels(mask: torch.Tensor | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    labels = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"expected an integer mask, got {labels.dtype}")
    if labels.ndim != 2:
        raise ValueError(f"expected a mask HxW, got shape {tuple(labels.shape)}")
    if labels.size and (labels.min() < 0 or labels.max() > VOID):
        raise ValueError(f"expected labels 0 to {VOID}, got {labels.min()} to {labels.max()}")
    return labels.astype(np.uint8)
