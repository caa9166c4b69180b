"""Pictures, tags and masks in the layout of the PASCAL VOC devkit.

Training uses pictures and tags alone. Tags come from VOC's XML annotations or from ``ImageSets/Main``; masks are read
only when asked for.
"""

import copy
import os
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NotRequired, Self, TypedDict
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from rsepm_edu.data.palette import read_mask
from rsepm_edu.errors import UserError
from rsepm_edu.labels import VOID

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
SHIPPED_SPLITS = ("trainaug",)
SBD_MASKS = "SegmentationClassAug"
"""Folder of masks for the pictures that VOC itself has none of."""

TagSource = Literal["auto", "xml", "lists"]


class Sample(TypedDict):
    """One picture: uint8 3×H×W, its tags (K float in {0, 1}) and, if asked for, its mask (uint8 H×W)."""

    name: str
    image: Tensor
    tags: Tensor
    mask: NotRequired[Tensor]


def find_devkit(root: str | os.PathLike[str]) -> Path:
    """The folder that holds ``JPEGImages``: ``root`` itself, or VOC2012 or VOCdevkit/VOC2012 below it.

    Raises:
        UserError: none of them does.
    """
    root = Path(root)
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    came = "a folder without it" if root.is_dir() else "no such folder"
    raise UserError(f"{root}: expected a VOC devkit with a folder JPEGImages, got {came}")


def read_classes(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Class names of a data set: the lines of ``classes.txt`` where there is one, else VOC's twenty.

    Raises:
        UserError: the file is empty or names a class twice.
    """
    path = find_devkit(root) / "classes.txt"
    if not path.is_file():
        return VOC_CLASSES
    classes = tuple(line.strip() for line in _lines(path) if line.strip())
    if not classes or len(set(classes)) < len(classes):
        raise UserError(f"{path}: expected different class names, one a line, got {classes}")
    return classes


def read_split(root: str | os.PathLike[str], split: str) -> list[str]:
    """Names of the pictures in ``ImageSets/Segmentation/<split>.txt``, or in the list shipped with the package.

    Raises:
        UserError: no such split, or it is empty.
    """
    devkit = find_devkit(root)
    path = devkit / "ImageSets" / "Segmentation" / f"{split}.txt"
    if path.is_file():
        lines = _lines(path)
    elif split in SHIPPED_SPLITS:
        lines = (files("rsepm_edu.data") / "splits" / f"{split}.txt").read_text("utf-8").splitlines()
    else:
        there = sorted(p.stem for p in path.parent.glob("*.txt")) + list(SHIPPED_SPLITS)
        raise UserError(f"{path}: expected a split ({', '.join(there)}), got no such file")
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise UserError(f"{path}: expected a name on each line, got an empty file")
    return names


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:  # PowerShell's ">" writes UTF-16
        raise UserError(f"{path}: expected text in UTF-8, got: {error}") from error


def tags_from_xml(path: Path, classes: Sequence[str]) -> Tensor:
    """Tags of one picture from its VOC annotation; objects marked difficult count, as in the papers.

    Raises:
        UserError: missing or broken file, or a class that is not among ``classes``.
    """
    try:
        tree = ElementTree.parse(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected an annotation, got no such file") from error
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: expected a VOC annotation in XML, got: {error}") from error
    if tree.getroot().tag != "annotation":  # an error page, say: it would read as a picture without objects
        raise UserError(f"{path}: expected a VOC annotation, got <{tree.getroot().tag}>")
    tags = torch.zeros(len(classes))
    for item in tree.iterfind("object"):
        name = (item.findtext("name") or "").strip()
        if name not in classes:
            raise UserError(f"{path}: expected one of {', '.join(classes)}, got class {name!r}")
        tags[classes.index(name)] = 1
    return tags


def tags_from_lists(devkit: Path, split: str, names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Tags N×K of a split from ``ImageSets/Main/<class>_<split>.txt``: 1 present, 0 difficult, -1 absent.

    Difficult objects count as present, as they do in the XML annotations. Where a list for the split itself is
    missing, ``<class>_trainval.txt`` serves.

    Raises:
        UserError: a list is missing or malformed, or lacks a picture of the split.
    """
    tags = torch.zeros(len(names), len(classes))
    for k, class_name in enumerate(classes):
        path = devkit / "ImageSets" / "Main" / f"{class_name}_{split}.txt"
        if not path.is_file():
            path = path.with_name(f"{class_name}_trainval.txt")
        if not path.is_file():
            raise UserError(f"{path.with_name(f'{class_name}_{split}.txt')}: expected a list of tags, got no such file")
        values = {}
        for number, line in enumerate(_lines(path), start=1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 2 or fields[1] not in ("1", "0", "-1"):
                raise UserError(f"{path}, line {number}: expected a name and 1, 0 or -1, got {line!r}")
            values[fields[0]] = fields[1]
        missing = next((name for name in names if name not in values), None)
        if missing is not None:
            raise UserError(f"{path}: expected every picture of split {split}, got none of {missing}")
        tags[:, k] = torch.tensor([float(values[name] != "-1") for name in names])
    return tags


class VocDataset(Dataset[Sample]):
    """Pictures of one split with their tags and, if asked for, masks.

    Everything cheap is checked when it is made (split, tags, every picture's presence); a picture or mask that
    cannot be read raises when it is asked for. Nothing is ever skipped.

    Args:
        root: a VOC devkit, see ``find_devkit``.
        split: see ``read_split``.
        masks: read ``SegmentationClass/<name>.png`` too, or the one in ``SegmentationClassAug``. Training never does.
        tags_from: "xml" (Annotations), "lists" (ImageSets/Main), or "auto": XML where the folder is there.
        transform: applied to each ``Sample``, e.g. one of ``rsepm_edu.data.transforms``.

    Raises:
        UserError: names the file, what was expected and what came.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        masks: bool = False,
        tags_from: TagSource = "auto",
        transform: Callable[[Sample], Any] | None = None,
    ) -> None:
        self.devkit = find_devkit(root)
        self.split = split
        self.masks = masks
        self.transform = transform
        self.classes = read_classes(self.devkit)
        self.names = read_split(self.devkit, split)
        there = {entry.name for entry in os.scandir(self.devkit / "JPEGImages")}
        missing = next((name for name in self.names if f"{name}.jpg" not in there), None)
        if missing is not None:
            raise UserError(f"{self.image_path(missing)}: expected a picture of split {split}, got no such file")
        if tags_from not in ("auto", "xml", "lists"):
            raise UserError(f"tags_from: expected auto, xml or lists, got {tags_from!r}")
        annotations = self.devkit / "Annotations"
        if tags_from == "xml" or (tags_from == "auto" and annotations.is_dir()):
            rows = [tags_from_xml(annotations / f"{name}.xml", self.classes) for name in self.names]
            self.tags = torch.stack(rows)
        else:
            self.tags = tags_from_lists(self.devkit, split, self.names, self.classes)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        sample = self.sample(index, masks=self.masks)
        return sample if self.transform is None else self.transform(sample)

    def sample(self, index: int, *, masks: bool) -> Sample:
        """A picture as it lies on the disk, its transform left out, with its mask or without."""
        name = self.names[index]
        sample: Sample = {
            "name": name,
            "image": tv_tensors.Image(read_image(self.image_path(name))),
            "tags": self.tags[index].clone(),
        }
        if masks:
            sample["mask"] = self.read_mask(name, sample["image"].shape[-2:])
        return sample

    def take(self, indices: Sequence[int]) -> Self:
        """The same data set with these of its pictures alone, in that order."""
        part = copy.copy(self)
        part.names = [self.names[index] for index in indices]
        part.tags = self.tags[torch.tensor(indices, dtype=torch.int64)]
        return part

    def image_path(self, name: str) -> Path:
        """Where the picture of that name lies."""
        return self.devkit / "JPEGImages" / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        """Where its mask lies, if it has one: VOC's own, else one made from SBD."""
        own = self.devkit / "SegmentationClass" / f"{name}.png"
        added = self.devkit / SBD_MASKS / own.name
        return added if added.is_file() and not own.is_file() else own

    def read_mask(self, name: str, size: Sequence[int]) -> tv_tensors.Mask:
        """The mask of a picture of that size (height, width).

        Raises:
            UserError: missing, unreadable, of another size, or with a label out of range.
        """
        path = self.mask_path(name)
        mask = read_mask(path)
        if tuple(mask.shape) != tuple(size):
            raise UserError(
                f"{path}: expected the picture's size {tuple(size)} (height, width), got {tuple(mask.shape)}"
            )
        wrong = mask[(mask > len(self.classes)) & (mask != VOID)]
        if wrong.numel():
            raise UserError(f"{path}: expected labels 0 to {len(self.classes)} or {VOID}, got {int(wrong[0])}")
        return tv_tensors.Mask(mask)


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read a picture as uint8 3×H×W, whatever its colours; EXIF orientation applied.

    Raises:
        UserError: missing, unreadable or truncated.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            kind = picture.format
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected a picture, got no such file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: expected a readable picture, got: {error}") from error
    if kind == "JPEG" and not _has_end(path.read_bytes()):
        raise UserError(f"{path}: expected a whole JPEG, got one without an end-of-image marker")
    return torch.from_numpy(np.array(upright)).permute(2, 0, 1)


def _has_end(jpeg: bytes) -> bool:
    """Whether the end-of-image marker follows the start of the scan, whatever lies behind it.

    Pillow sees that bytes are missing, but takes the zeros that a broken download leaves in their place for picture.
    """
    return jpeg.find(b"\xff\xd9", jpeg.find(b"\xff\xda")) >= 0
