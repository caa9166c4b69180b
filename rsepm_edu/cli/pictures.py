"""The pictures that segment is given and the files it makes of them, checked before anything is written."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rsepm_edu.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png")


class Job(NamedTuple):
    """A picture and what is made of it."""

    picture: Path
    mask: Path
    overlay: Path

    def done(self, since: float) -> bool:
        """Whether both files are there, no older than the picture or that time."""
        made = (self.mask, self.overlay)
        since = max(since, self.picture.stat().st_mtime)
        return all(path.is_file() and path.stat().st_mtime >= since for path in made)


def find_pictures(given: Sequence[Path]) -> list[Path]:
    """The files that are named, and of each folder the JPEG and PNG files in it, without hidden ones.

    Raises:
        UserError: a file or folder that is not there, or a folder without pictures.
    """
    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
            if not found:
                raise UserError(f"{path}: expected a folder with JPEG or PNG files, got none")
            paths += found
        elif path.is_file():
            paths.append(path)
        else:
            raise UserError(f"{path}: expected an image, got no such file")
    return paths


def plan(pictures: Sequence[Path], out: Path, read: Iterable[Path]) -> list[Job]:
    """What will be written, refused where a file would be written over a picture, another input or another output.

    Args:
        pictures: see ``find_pictures``.
        out: folder of the outputs.
        read: other files that the command reads.

    Raises:
        UserError: two files are the same.
    """
    inputs = {_identity(path): path for path in (*pictures, *read)}
    written: dict[str, Path] = {}
    jobs = []
    for picture in pictures:
        job = Job(picture, out / f"{picture.stem}.png", out / f"{picture.stem}_overlay.png")
        for path in (job.mask, job.overlay):
            identity = _identity(path)
            if identity in inputs:
                raise UserError(f"--out: expected a folder in which no input is overwritten, got {out} for {path}")
            if identity in written:
                raise UserError(
                    f"{picture}: expected images with different names, got {path.name} from {written[identity]} too"
                )
            written[identity] = picture
        jobs.append(job)
    return jobs


def _identity(path: Path) -> str:
    """The same for two paths to one file, links and the case-blindness of Windows followed."""
    return os.path.normcase(os.path.realpath(path))


def read_tags(path: Path, pictures: Sequence[Path], classes: Sequence[str]) -> dict[Path, Tensor]:
    """Tags of pictures from a text file: a line a picture, NAME,CLASS,CLASS …, with quotes as in CSV.

    NAME is the picture's file name, with its suffix or without; a name alone stands for a picture without any class.
    Lines about other pictures are left out.

    Returns:
        K in {0, 1} by picture, every one of them.

    Raises:
        UserError: unreadable, an unknown class, a picture twice, or one of the pictures missing.
    """
    try:
        rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    except OSError as error:
        raise UserError(f"{path}: expected a file of tags, got: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: expected lines NAME,CLASS,CLASS in UTF-8, got: {error}") from error
    by_name: dict[str, Tensor] = {}
    for number, row in enumerate(rows, start=1):
        name, *tagged = (cell.strip() for cell in row) if row else ("",)
        if not name:
            continue
        unknown = [tag for tag in tagged if tag and tag not in classes]
        if unknown:
            raise UserError(f"{path}, line {number}: expected classes of {', '.join(classes)}, got {unknown[0]!r}")
        if name in by_name:
            raise UserError(f"{path}, line {number}: expected each image once, got {name} again")
        by_name[name] = torch.tensor([float(known in tagged) for known in classes])
    tags = {}
    for picture in pictures:
        found = by_name.get(picture.name, by_name.get(picture.stem))
        if found is None:
            raise UserError(f"{path}: expected a line for every image, got none for {picture.name}")
        tags[picture] = found
    return tags
