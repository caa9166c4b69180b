"""Pictures, tags and masks in the layout of the PASCAL VOC devkit.

Training uses pictures and tags alone. Tags come from VOC's XML annotations or from ``ImageSets/Main``; masks are read
only when asked for.
"""

import copy
import os
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NotRequired, Self, TypedDict
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from rsepm_edu.data.palette import read_mask
from rsepm_edu.data.pictures import read_image as read_image
from rsepm_edu.data.pictures import read_turned_image
from rsepm_edu.errors import UserError, one_line
from rsepm_edu.files import read_bytes, read_lines
from rsepm_edu.labels import VOID

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
SHIPPED_SPLITS = ("trainaug",)
TAG_VALUES = ("1", "0", "-1")
"""What ImageSets/Main says of a class: present, difficult, absent."""
NO_CLASSES = ("background", "ignore", "void")
"""What lists of classes of other programs begin or end with; background and void are no classes here."""
QUARTER_TURNS = (
    *(Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
    *(Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE),
)
SBD_MASKS = "SegmentationClassAug"
"""Folder of masks for the pictures that VOC itself has none of."""

_XML_ENCODING = re.compile(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"'][^>]*\?>")

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
        UserError: the file is empty, names a class twice, the background or void, or has a name that no file can have.
    """
    path = find_devkit(root) / "classes.txt"
    if not path.is_file():
        return VOC_CLASSES
    classes = tuple(line.strip() for line in read_lines(path, "the names of the classes") if line.strip())
    if not classes or len(set(classes)) < len(classes):
        raise UserError(f"{path}: expected different class names, one a line, got {classes!r:.200}")
    if len(classes) >= VOID:
        raise UserError(f"{path}: expected at most {VOID - 1} classes, got {len(classes)}")
    for name in classes:
        if name.strip("_ ").lower() in NO_CLASSES:  # labelme's lists begin with __ignore__ and _background_
            raise UserError(f"{path}: expected the classes without background (label 0) and void, got {name!r}")
        if "/" in name or "\\" in name:
            raise UserError(f"{path}: expected names that files can have (CLASS_SPLIT.txt), got {name!r}")
    return classes


def read_split(root: str | os.PathLike[str], split: str) -> list[str]:
    """Names of the pictures in ``ImageSets/Segmentation/<split>.txt``, or in the list shipped with the package.

    Raises:
        UserError: no such split, it is empty, names a picture twice, or a line is something else than a name.
    """
    devkit = find_devkit(root)
    path = split_path(devkit, split)
    if path.is_file():
        lines = read_lines(path, "a split")
    elif split in SHIPPED_SPLITS:
        return (files("rsepm_edu.data") / "splits" / f"{split}.txt").read_text("utf-8").split()
    else:
        there = dict.fromkeys([*splits_there(devkit), *SHIPPED_SPLITS])
        raise UserError(f"{path}: expected a split ({', '.join(there)}), got no such file")
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if len(name.split()) > 1 or "/" in name or "\\" in name or name.lower().endswith((".jpg", ".jpeg", ".png")):
            _expect_name(path, number, name, devkit / "JPEGImages")
        if name in names:
            raise UserError(
                f"{path}, line {number}: expected every name once, got {name!r} of line {names[name]} again"
            )
        names[name] = number
    if not names:
        raise UserError(f"{path}: expected a name on each line, got an empty file")
    return list(names)


def split_path(devkit: Path, split: str) -> Path:
    """Where the list of a split lies."""
    return devkit / "ImageSets" / "Segmentation" / f"{split}.txt"


def splits_there(devkit: Path) -> list[str]:
    """The splits that a devkit itself has."""
    return sorted(path.stem for path in split_path(devkit, "").parent.glob("*.txt"))


def _expect_name(path: Path, number: int, name: str, pictures: Path) -> None:
    """Refuse a line of a split that is no name, however unusual names of pictures may be."""
    if "/" not in name and "\\" not in name and os.path.isfile(pictures / f"{name}.jpg"):
        return  # "img (1)", say
    fields = name.split()
    if len(fields) > 1 and fields[-1] in TAG_VALUES:
        came = f"a name and {fields[-1]} (lists of ImageSets/Main hold tags): {name!r:.80}"
    elif len(fields) > 1 and all(os.path.isfile(pictures / f"{field}.jpg") for field in fields):
        came = f"{len(fields)} names on it"
    else:
        came = f"{name!r:.80}"
    raise UserError(f"{path}, line {number}: expected the name of a picture, without folder and ending, got {came}")


def tags_from_xml(path: Path, classes: Sequence[str]) -> Tensor:
    """Tags of one picture from its VOC annotation; objects marked difficult count, as in the papers.

    Raises:
        UserError: missing or broken file, a class that is not among ``classes``, or objects where VOC has none.
    """
    root = _parse_xml(path)
    if root.tag != "annotation":  # an error page, say: it would read as a picture without objects
        raise UserError(f"{path}: expected a VOC annotation, got <{root.tag:.80}>")
    objects = root.findall("object")
    tags = torch.zeros(len(classes))
    for item in objects:
        name = (item.findtext("name") or "").strip()
        if name not in classes:
            raise UserError(f"{path}: expected one of {', '.join(classes)}, got class {name!r:.80}")
        tags[classes.index(name)] = 1
    # A level too deep or in capitals they would read as "no object"; so would boxes outside of objects.
    for tag, there in (("object", len(objects)), ("bndbox", sum(1 for item in objects for _ in item.iter("bndbox")))):
        if there != sum(1 for element in root.iter() if element.tag.rpartition("}")[2].lower() == tag):
            raise UserError(f"{path}: expected every object as <object> directly in <annotation>, got others (<{tag}>)")
    return tags


def _parse_xml(path: Path) -> ElementTree.Element:
    content = read_bytes(path, "an annotation")
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: expected a VOC annotation in XML, got: {error}") from error
    except (ValueError, LookupError):  # the parser knows no encodings of several bytes, such as GB2312; Python does
        pass
    declared = _XML_ENCODING.match(content)
    try:
        return ElementTree.fromstring(content[declared.end() :].decode(declared[1].decode()) if declared else "")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: expected a VOC annotation in XML, got: {one_line(error)}") from error


def tags_from_lists(devkit: Path, split: str, names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Tags N×K of a split from ``ImageSets/Main/<class>_<split>.txt``: 1 present, 0 difficult, -1 absent.

    Difficult objects count as present, as they do in the XML annotations. Where a list for the split itself is
    missing, ``<class>_trainval.txt`` serves.

    Raises:
        UserError: a list is missing or malformed, names a picture twice, or lacks one of the split.
    """
    tags, known, pictures = torch.zeros(len(names), len(classes)), set(names), devkit / "JPEGImages"
    for k, class_name in enumerate(classes):
        path = devkit / "ImageSets" / "Main" / f"{class_name}_{split}.txt"
        if not path.is_file():
            path = path.with_name(f"{class_name}_trainval.txt")
        if not path.is_file():
            raise UserError(f"{path.with_name(f'{class_name}_{split}.txt')}: expected a list of tags, got no such file")
        values: dict[str, str] = {}
        for number, line in enumerate(read_lines(path, "a list of tags"), start=1):
            if not line.strip():
                continue
            name, value = (line.strip().rsplit(maxsplit=1) + [""])[:2]
            spaces = len(name.split()) > 1
            if spaces and name not in known and os.path.isfile(pictures / f"{name}.jpg"):
                known.add(name)  # not of this split; whatever else has spaces is no name
            if value not in TAG_VALUES or (spaces and name not in known):
                raise UserError(f"{path}, line {number}: expected a name and 1, 0 or -1, got {line!r:.80}")
            if name in values:
                raise UserError(f"{path}, line {number}: expected every name once, got {name!r} again")
            values[name] = value
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
            note = ""
            if not split_path(self.devkit, split).is_file():  # own data and a preset for VOC
                own = ", ".join(splits_there(self.devkit)) or "none yet"
                note = f" (that split is the package's, for VOC; --set split=… takes one of the data: {own})"
            raise UserError(f"{self.image_path(missing)}: expected a picture of split {split}, got no such file{note}")
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
        image, turn = read_turned_image(self.image_path(name))
        sample: Sample = {"name": name, "image": tv_tensors.Image(image), "tags": self.tags[index].clone()}
        if masks:
            sample["mask"] = self.read_mask(name, image.shape[-2:], turn)
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

    def read_mask(self, name: str, size: Sequence[int], turn: Image.Transpose | None = None) -> tv_tensors.Mask:
        """The mask of a picture of that size (height, width), upright like the picture.

        A mask belongs to the pixels as they are stored. Where the picture was turned, so is its mask, but for one whose
        size only the upright picture has: it was drawn on that.

        Args:
            name: of the picture.
            size: of the upright picture.
            turn: how the stored picture was turned, see ``read_turned_image``.

        Raises:
            UserError: missing, unreadable, of another size, or with a label out of range.
        """
        path = self.mask_path(name)
        mask = read_mask(path)
        stored = tuple(size) if turn is None or turn not in QUARTER_TURNS else (size[1], size[0])
        if turn is not None and tuple(mask.shape) == stored:
            mask = torch.from_numpy(np.array(Image.fromarray(mask.numpy()).transpose(turn)))
        expect_labels(path, mask, size, len(self.classes), turned=turn is not None)
        return tv_tensors.Mask(mask)


def expect_labels(
    path: Path, mask: Tensor, size: Sequence[int], classes: int, *, void: bool = True, turned: bool = False
) -> None:
    """Check labels that were read from a file against the picture they are for.

    Args:
        path: of the file.
        mask: H×W uint8.
        size: of the picture (height, width).
        classes: how many there are.
        void: whether that is a label too.
        turned: whether EXIF turns the picture, for the error.

    Raises:
        UserError: another size, or a label out of range.
    """
    if tuple(mask.shape) != tuple(size):
        note = " as EXIF turns it, or as it is stored" if turned else ""
        raise UserError(
            f"{path}: expected the picture's size {tuple(size)} (height, width){note}, got {tuple(mask.shape)}"
        )
    strange = mask > classes
    wrong = mask[strange & (mask != VOID) if void else strange]
    if wrong.numel():
        allowed = f"labels 0 to {classes}{f' or {VOID}' if void else ''}"
        raise UserError(f"{path}: expected {allowed}, got {int(wrong[0])}")
