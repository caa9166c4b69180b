"""A split whose masks will be scored, looked through before anything is computed."""

from pathlib import Path

from PIL import Image

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError


def scored_split(root: str | Path, split: str) -> VocDataset:
    """A split opened with its masks, each of them there and a label mask by its header.

    Their pixels are read when they are scored; what would stop that after hours of training shows here.

    Raises:
        UserError: see ``VocDataset``; or a mask is missing, unreadable, or holds colours.
    """
    dataset = VocDataset(root, split, masks=True)
    for name in dataset.names:
        path = dataset.mask_path(name)
        try:
            with Image.open(path) as mask:
                mode = mask.mode
        except FileNotFoundError as error:
            raise UserError(f"{path}: expected a mask of {split}, got no such file") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path}: expected a readable mask of {split}, got: {error}") from error
        if mode not in ("P", "L"):
            raise UserError(f"{path}: expected a palette or 8-bit grey mask of {split}, got mode {mode}")
    return dataset
