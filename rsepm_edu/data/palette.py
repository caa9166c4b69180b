"""Masks as VOC stores them: one byte per pixel, a label, shown through a fixed palette."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from rsepm_edu.data.pictures import PNG_START, open_picture
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path, read_bytes
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
    """Read a label mask: a PNG with a palette or of 8-bit grey.

    In grey the byte of a pixel is its label, and so it is with VOC's palette or with one of greys 0, 1, 2, … Image
    editors store the same picture with its colours in another order: where all of them are VOC's, a pixel's colour
    tells its label. Any other palette is refused, for nothing says what its numbers mean; so is grey of fewer bits, in
    which label 15 and void (255) are the same.

    Returns:
        uint8 tensor HxW.

    Raises:
        UserError: the file is missing, is no PNG, is truncated or damaged, or holds colours, not labels.
    """
    path = Path(path)
    content = read_bytes(path, "a mask here")
    if not content.startswith(PNG_START):
        raise UserError(f"{path}: expected a readable mask, got a file that is no PNG")
    picture = open_picture(path, content, "mask")
    bits, colour = content[24], content[25]  # of the header, the first chunk of every PNG
    if colour == 0 and bits != 8:
        raise UserError(f"{path}: expected a palette or 8-bit grey mask, got {bits}-bit grey")
    if picture.mode not in ("P", "L"):
        raise UserError(f"{path}: expected a palette or 8-bit grey mask, got mode {picture.mode}")
    labels = np.array(picture, dtype=np.uint8)
    if picture.mode == "P":
        labels = _labels_by_palette(path, labels, bytes(picture.getpalette() or ()))
    return torch.from_numpy(labels)


def _labels_by_palette(path: Path, indices: npt.NDArray[np.uint8], palette: bytes) -> npt.NDArray[np.uint8]:
    """What the indices into a palette of bytes r, g, b, r, … mean, see ``read_mask``."""
    if not indices.size or (_VOC_BYTES.startswith(palette) and int(indices.max()) < len(palette) // 3):
        return indices
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256)).tolist()
    colours = {index: tuple(palette[3 * index : 3 * index + 3]) for index in used}
    if all(colour == (index, index, index) for index, colour in colours.items()):
        return indices
    strange = next((index for index in used if colours[index] not in _LABEL_OF), None)
    if strange is not None:
        colour = ", ".join(map(str, colours[strange])) or "no colour"
        raise UserError(
            f"{path}: expected VOC's palette or one of greys, got ({colour}) for label {strange}; "
            "rsepm_edu.data.palette.write_mask writes masks that can be read"
        )
    labels = np.arange(256, dtype=np.uint8)
    labels[used] = [_LABEL_OF[colours[index]] for index in used]
    return labels[indices]


_VOC_BYTES = bytes(voc_palette())
_LABEL_OF = {tuple(_VOC_BYTES[3 * label : 3 * label + 3]): label for label in range(256)}


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
