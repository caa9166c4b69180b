"""COCO 2014 in VOC's layout: pictures with at least one object, tags from the instance annotations, masks if wanted.

Our reading, where papers are silent: a picture has the tag of every class that is annotated in it, crowds included
(82,081 pictures of ``train`` and 40,137 of ``val`` have one, as in the papers); where objects overlap in a mask, the
smaller one lies on top.
"""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from rsepm_edu.data.download import Archive, expect_space, fetch, unpacked
from rsepm_edu.data.palette import write_mask
from rsepm_edu.errors import UserError, one_line
from rsepm_edu.files import atomic_write_text, read_bytes
from rsepm_edu.saved import is_number

MOST_PIXELS = 2**27
"""Of a picture; more is a damaged size."""

_LICENCE = "annotations CC BY 4.0; pictures from Flickr, under Flickr's terms of use"


def _archive(path: str, size: int, md5: str, unpacked_size: int) -> Archive:
    hosts = ("http://images.cocodataset.org", "https://s3.amazonaws.com/images.cocodataset.org")
    return Archive(path.rpartition("/")[2], tuple(f"{h}/{path}" for h in hosts), size, md5, unpacked_size, _LICENCE)


ANNOTATIONS = _archive(
    "annotations/annotations_trainval2014.zip", 252_872_794, "0a379cfc70b0e71301e0f377548639bd", 850_000_000
)
PICTURES = {
    "train": _archive("zips/train2014.zip", 13_510_573_713, "0da8c0bd3d6becc4dcb32757491aca88", 13_700_000_000),
    "val": _archive("zips/val2014.zip", 6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3", 6_800_000_000),
}


def get_coco(
    root: str | os.PathLike[str],
    *,
    splits: Sequence[str] = ("train", "val"),
    masks: bool = True,
    given: Sequence[str | os.PathLike[str]] = (),
    annotations: Archive = ANNOTATIONS,
    pictures: dict[str, Archive] = PICTURES,
    progress: bool = True,
) -> Path:
    """Put COCO 2014 into ``root``/coco2014: JPEGImages, ImageSets, classes.txt and, if wanted, SegmentationClass.

    Args:
        root: folder for data; the archives are kept there too, and may be removed afterwards.
        splits: of "train" and "val".
        masks: draw the masks (for evaluation alone; takes minutes).
        given: archives that are there already, under their own names.
        annotations, pictures: what to get.
        progress: show bars.

    Returns:
        The folder, as ``VocDataset`` takes it. If it is there already, nothing is done.

    Raises:
        UserError: see ``fetch``; pycocotools is missing; or an archive holds something else.
    """
    root = Path(root)
    folder = root / "coco2014"
    if folder.is_dir():
        return folder
    COCO = _coco_reader()
    for split in splits:
        if split not in pictures:
            raise UserError(f"splits: expected of {', '.join(pictures)}, got {split!r}")
    by_name = {Path(path).name: path for path in given}
    archives = {"annotations": annotations} | {split: pictures[split] for split in splits}
    unknown = set(by_name) - {archive.name for archive in archives.values()}
    if unknown:
        names = ", ".join(archive.name for archive in archives.values())
        raise UserError(f"--from: expected files named {names}, got {min(unknown)}")
    paths = {
        key: fetch(archive, root, given=by_name.get(archive.name), progress=progress)
        for key, archive in archives.items()
    }
    expect_space(root, sum(archive.unpacked for archive in archives.values()), "COCO 2014")
    with tempfile.TemporaryDirectory(prefix=".coco2014.", suffix=".part", dir=root) as temporary:
        made = Path(temporary) / "coco2014"
        (made / "JPEGImages").mkdir(parents=True)
        with unpacked(paths["annotations"], made / "annotations") as inner:
            for split in splits:
                listed = _expect(inner / "annotations" / f"instances_{split}2014.json", paths["annotations"])
                coco = COCO()
                coco.dataset = read_instances(listed)
                with contextlib.redirect_stdout(io.StringIO()):  # it prints how far it is
                    coco.createIndex()
                _write_split(coco, made, split, masks=masks, progress=progress)
        for split in splits:
            with unpacked(paths[split], made / split) as inner:
                for picture in _expect(inner / f"{split}2014", paths[split]).iterdir():
                    os.replace(picture, made / "JPEGImages" / picture.name)
        os.replace(made, folder)
    return folder


def _expect(path: Path, archive: Path) -> Path:
    if not path.exists():
        raise UserError(f"{archive}: expected {path.name} in it, got no such entry")
    return path


def read_instances(path: Path) -> dict[str, Any]:
    """Read instance annotations in COCO's JSON, as ``pycocotools`` takes them.

    What it would take for something else is refused: it draws a polygon of two corners as a box, and fails on an empty
    one without naming it.

    Raises:
        UserError: missing or no such JSON; a part is missing or of another kind; an annotation has no outline, or is
            of a picture or class that is not listed. The message names the annotation.
    """
    content = read_bytes(path, "instance annotations")
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected instance annotations in JSON, got: {one_line(error)}") from error
    parts: dict[str, dict[str, Any]] = {
        "categories": {"id": int, "name": str},
        "images": {"id": int, "file_name": str, "height": int, "width": int},
        "annotations": {"id": int, "image_id": int, "category_id": int, "area": (int, float)},
    }
    for part, fields in parts.items():
        entries = data.get(part) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not entries:
            raise UserError(f"{path}: expected a list of {part}, got none")
        for number, item in enumerate(entries):
            for name, kind in fields.items():
                if not isinstance(item, dict) or not isinstance(item.get(name), kind) or item[name] is True:
                    raise UserError(f"{path}: expected {part} with {name}, got entry {number} = {item!r:.80}")
        ids = [item["id"] for item in entries]
        if len(set(ids)) < len(ids):
            raise UserError(f"{path}: expected {part} with an id each, got one twice")
    sizes = {item["id"]: (item["height"], item["width"]) for item in data["images"]}
    classes = {item["id"] for item in data["categories"]}
    names = {Path(item["file_name"]).stem for item in data["images"]}
    if len(names) < len(sizes) or len({item["name"] for item in data["categories"]}) < len(classes):
        raise UserError(f"{path}: expected pictures and categories of different names, got one twice")
    for image, (height, width) in sizes.items():
        if height < 1 or width < 1 or height * width > MOST_PIXELS:
            raise UserError(f"{path}: expected 1 to {MOST_PIXELS} pixels, got {width}×{height} for picture {image}")
    for item in data["annotations"]:
        where = f"{path}, annotation {item['id']}"
        if item["image_id"] not in sizes or item["category_id"] not in classes:
            raise UserError(f"{where}: expected a picture and a category of the file, got others")
        if not is_number(item["area"]):
            raise UserError(f"{where}: expected an area, got {item['area']!r:.80}")
        item["segmentation"] = _outline(where, item.get("segmentation"), sizes[item["image_id"]])
    return data


def _outline(where: str, outline: Any, size: tuple[int, int]) -> Any:
    """Polygons of three corners at least, or runs that fill the picture; a line or point among polygons is left out."""
    if isinstance(outline, list):
        if not all(isinstance(polygon, list) and all(map(is_number, polygon)) for polygon in outline):
            raise UserError(f"{where}: expected polygons, lists of numbers, got {outline!r:.80}")
        if any(abs(number) > 10 * max(size) for polygon in outline for number in polygon):  # it would take all memory
            raise UserError(f"{where}: expected polygons about its picture of {size}, got {outline!r:.80}")
        polygons = [polygon for polygon in outline if len(polygon) >= 6]
        if not polygons or any(len(polygon) % 2 for polygon in outline):
            raise UserError(f"{where}: expected a polygon of 6 numbers or more, x and y in turn, got {outline!r:.80}")
        return polygons
    runs = outline.get("counts") if isinstance(outline, dict) else None
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise UserError(f"{where}: expected polygons or a list of runs, got {outline!r:.80}")
    if outline.get("size") != list(size) or sum(runs) != size[0] * size[1]:
        raise UserError(
            f"{where}: expected runs for its picture of {size}, got {outline.get('size')!r:.80}, {sum(runs)}"
        )
    return outline


def _write_split(coco: Any, folder: Path, split: str, *, masks: bool, progress: bool) -> None:
    """Lists, tags and masks of one split, from its instance annotations."""
    categories = sorted(coco.getCatIds())
    classes = [category["name"] for category in coco.loadCats(categories)]
    label_of = {category: label for label, category in enumerate(categories, start=1)}
    atomic_write_text(folder / "classes.txt", "".join(f"{name}\n" for name in classes))
    present: dict[str, set[int]] = {}
    for picture in tqdm(coco.loadImgs(sorted(coco.getImgIds())), desc=split, disable=not progress):
        objects = coco.loadAnns(coco.getAnnIds(imgIds=picture["id"]))
        if not objects:
            continue
        name = Path(picture["file_name"]).stem
        present[name] = {label_of[item["category_id"]] for item in objects}
        if masks:
            mask = np.zeros((picture["height"], picture["width"]), dtype=np.uint8)
            for item in sorted(objects, key=lambda item: -item["area"]):
                mask[coco.annToMask(item) > 0] = label_of[item["category_id"]]
            write_mask(folder / "SegmentationClass" / f"{name}.png", mask)
    sets = folder / "ImageSets"
    atomic_write_text(sets / "Segmentation" / f"{split}.txt", "".join(f"{name}\n" for name in present))
    for label, class_name in enumerate(classes, start=1):
        lines = (f"{name} {1 if label in labels else -1}\n" for name, labels in present.items())
        atomic_write_text(sets / "Main" / f"{class_name}_{split}.txt", "".join(lines))


def _coco_reader() -> Any:
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise UserError("pycocotools: expected it to read COCO; pip install 'rsepm-edu[data]'") from error
    return COCO
