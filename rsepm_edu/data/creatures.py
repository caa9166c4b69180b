"""Creatures, the course's own data set: drawn pictures of made-up animals in VOC's folder layout.

It has the properties that make learning masks from tags hard on photographs: a class shows for certain only in a
small part, the pattern on the head, and the body gives a hint at most (the usual coats of a class); coats have two or
three colours in patches, stripes or spots; ground, stones, bushes and logs often have the animals' colours; objects
vary in size, overlap and come in twos and threes; two classes look alike; one class, tramlo, appears only on pieces of
railway track, and they only with it; borders are void.

The same seed gives the same bytes (with the same versions of numpy and Pillow), whatever the number
of pictures or of workers: picture i of a split depends on seed, split and i alone.
"""

import json
import multiprocessing
import os
import secrets
import shutil
import sys
import warnings
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from rsepm_edu.data.creature_drawing import CREATURES, plan, render
from rsepm_edu.data.palette import write_mask
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_write_text

__all__ = ["CREATURES", "draw_picture", "ensure_creatures", "make_creatures"]

FORMAT = 3  # raised whenever the same seed gives other pictures
SPLITS = ("train", "val")
MOST_PICTURES = 100_000  # of a split: five digits of a name like c012345
SETTINGS_FILE = "creatures.json"

README = """Creatures: a generated data set, in the folder layout of PASCAL VOC 2012
======================================================================

Made by rsepm-edu, data_scripts/make_creatures.py, with these settings:
{settings}

JPEGImages/              the pictures, {size} x {size}
SegmentationClass/       masks: 0 ground, 1 to {last} the classes in the order of
                         classes.txt, 255 void (the border of each creature)
ImageSets/Segmentation/  train.txt, trainaug.txt (the same pictures), val.txt
ImageSets/Main/          <class>_<split>.txt: 1 if the class is in the picture, else -1

A class shows for certain only in the pattern on the head: zebbo has stripes,
dotkin a dot, ringlo a ring, plusmo a plus, tramlo two halves. The body gives a
hint: eight in ten wear one of two usual coats of their class (dotkin and ringlo
the same ones), the others any coat. Colours tell nothing. Tramlo stands on
a piece of railway track, and no other creature does.
"""


def draw_picture(
    seed: int, split: str, index: int, size: int = 96
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Draw picture `index` of a split ("train" or "val") in memory, as it is before JPEG.

    Returns:
        The picture, uint8 size x size x 3; its mask, uint8 size x size, 0 ground, 1 to K the
        classes in the order of `CREATURES`, 255 void; its tags, float32 K, in {0, 1}.

    Raises:
        UserError: a number out of range, or an unknown split.
    """
    _check_range("seed", seed, 0, 2**63 - 1)
    _check_range("size", size, 64, 256)
    _check_range("index", index, 0, MOST_PICTURES - 1)
    if split not in SPLITS:
        raise UserError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    generator = np.random.default_rng([seed, SPLITS.index(split), index])
    image, mask = render(plan(generator, size))
    tags = np.isin(np.arange(1, len(CREATURES) + 1), mask).astype(np.float32)
    return image, mask, tags


def make_creatures(
    root: str | os.PathLike[str],
    *,
    train: int = 1000,
    val: int = 200,
    size: int = 96,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Write a Creatures set into the folder `root`, which appears complete or not at all.

    A set that is already there with the same settings is left as it is.

    Args:
        root: a folder that does not exist or is empty.
        train: pictures in the split train; the split trainaug holds the same ones.
        val: pictures in the split val.
        size: width and height of the pictures, 64 to 256.
        seed: any number from 0.
        workers: processes to draw with; 0 or 1 draws in this one. Default: on Linux one per
            available core, at most four, for sets that take seconds; elsewhere 1, because
            processes start slowly there.

    Returns:
        `root` as a path.

    Raises:
        UserError: a number out of range; `root` is a file, holds other files, or cannot be written.
    """
    _check_range("train", train, 1, MOST_PICTURES)
    _check_range("val", val, 0, MOST_PICTURES)
    _check_range("size", size, 64, 256)
    _check_range("seed", seed, 0, 2**63 - 1)
    workers = _default_workers(train + val) if workers is None else workers
    _check_range("workers", workers, 0, 1024)
    root = Path(root)
    settings = {"format": FORMAT, "train": train, "val": val, "size": size, "seed": seed}
    if _is_complete(root, settings):
        return root

    folder = root.resolve()
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        _write_set(part, settings, workers)
        if folder.exists():
            folder.rmdir()  # it was empty; a rename onto a folder fails on some systems
        os.replace(part, folder)
    except OSError as error:
        if not _is_complete(root, settings):  # else another process was faster, with the same bytes
            raise UserError(f"{root}: expected a folder to write to, got: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def ensure_creatures(
    root: str | os.PathLike[str] | None = None,
    *,
    train: int = 1000,
    val: int = 200,
    size: int = 96,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Return the folder of a Creatures set with these settings, made on the first call only.

    Each combination of settings has a folder of its own, `creatures-...`, in the folder `root`
    (default: `data_folder()`). Processes that ask for the same set at the
    same time do not disturb each other. Arguments and errors otherwise as in `make_creatures`.
    """
    if root is None:
        root = data_folder()
    name = f"creatures-v{FORMAT}-train{train}-val{val}-size{size}-seed{seed}"
    return make_creatures(
        Path(root).expanduser() / name,
        train=train,
        val=val,
        size=size,
        seed=seed,
        workers=workers,
    )


def data_folder() -> Path:
    """Where drawn data sets are kept: $RSEPM_EDU_DATA, else ~/.cache/rsepm-edu."""
    return Path(os.environ.get("RSEPM_EDU_DATA") or "~/.cache/rsepm-edu").expanduser()


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UserError(f"{name}: expected a number from {low} to {high}, got {value}")


def _is_complete(root: Path, settings: dict[str, int]) -> bool:
    """Whether `root` already is the set wanted; False if it is free; an error if it is neither."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise UserError(f"{root}: expected a folder for a Creatures set, got a file")
    try:
        found = json.loads((root / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if any(root.iterdir()):
            raise UserError(
                f"{root}: expected a new or empty folder for a Creatures set, got one that holds other files"
            ) from None
        return False
    if found != settings:
        raise UserError(
            f"{root}: expected a new or empty folder, or a Creatures set with {settings}, got one with {found}"
        )
    return True


def _write_set(root: Path, settings: dict[str, int], workers: int) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split in SPLITS:
        count = settings[split]
        names = [_name(split, index) for index in range(count)]
        tags = _write_pictures(root, settings["seed"], split, count, settings["size"], workers)
        for copy in ("train", "trainaug") if split == "train" else (split,):
            lines = "".join(f"{name}\n" for name in names)
            atomic_write_text(root / "ImageSets" / "Segmentation" / f"{copy}.txt", lines)
            for label, creature in enumerate(CREATURES):
                lines = "".join(
                    f"{name} {1 if present else -1:2d}\n" for name, present in zip(names, tags[:, label], strict=True)
                )
                atomic_write_text(root / "ImageSets" / "Main" / f"{creature}_{copy}.txt", lines)
    atomic_write_text(root / "classes.txt", "".join(f"{creature}\n" for creature in CREATURES))
    readme = README.format(
        settings=", ".join(f"{key} {value}" for key, value in settings.items()),
        size=settings["size"],
        last=len(CREATURES),
    )
    atomic_write_text(root / "README.txt", readme)
    atomic_write_text(root / SETTINGS_FILE, json.dumps(settings) + "\n")


def _name(split: str, index: int) -> str:
    return f"c{SPLITS.index(split)}{index:05d}"


def _write_pictures(root: Path, seed: int, split: str, count: int, size: int, workers: int) -> npt.NDArray[np.float32]:
    """Write pictures and masks of a split; returns its tags, count x K."""
    jobs = [_Chunk(root, seed, split, range(start, min(start + 25, count)), size) for start in range(0, count, 25)]
    tags = None
    if workers > 1 and len(jobs) > 1 and not multiprocessing.current_process().daemon:
        # If no processes are to be had here, the line below does the work, only more slowly.
        with suppress(BrokenExecutor, OSError, NotImplementedError):
            tags = _in_processes(jobs, min(workers, len(jobs)))
    if tags is None:
        tags = [_write_chunk(job) for job in jobs]
    return np.concatenate([np.zeros((0, len(CREATURES)), np.float32), *tags])


@dataclass(frozen=True)
class _Chunk:
    """A piece of work for one process: some pictures of a split."""

    root: Path
    seed: int
    split: str
    indices: range
    size: int


def _write_chunk(chunk: _Chunk) -> npt.NDArray[np.float32]:
    tags = np.zeros((len(chunk.indices), len(CREATURES)), np.float32)
    for row, index in enumerate(chunk.indices):
        image, mask, tags[row] = draw_picture(chunk.seed, chunk.split, index, chunk.size)
        name = _name(chunk.split, index)
        picture = Image.fromarray(image)
        picture.save(chunk.root / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)
        write_mask(chunk.root / "SegmentationClass" / f"{name}.png", mask)
    return tags


def _in_processes(jobs: list[_Chunk], workers: int) -> list[npt.NDArray[np.float32]]:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads, and a notebook always has some. The children
        # only compute and write files: they take no lock that a thread could have held.
        warnings.filterwarnings("ignore", "(?s).*use of fork\\(\\)", DeprecationWarning)
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return list(pool.map(_write_chunk, jobs))


def _default_workers(pictures: int) -> int:
    if sys.platform != "linux" or pictures < 200:
        return 1
    return min(len(os.sched_getaffinity(0)), 4)
