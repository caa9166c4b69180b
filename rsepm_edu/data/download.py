"""Fetching archives: several addresses a file, resumed, checked against size and check sum, then renamed.

A file under its own name is whole and is what its authors published; one that ends in .part is on its way. Whatever
breaks (no connection, a stall, a cut, another length, another file, a web page in its place), the next try goes on
from the .part, at the same address or the next one; only bytes that turn out wrong are thrown away.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from tqdm.auto import tqdm

from rsepm_edu.errors import UserError

CHUNK = 1 << 20
SPARE = 200_000_000  # bytes that stay free on the disk


@dataclass(frozen=True)
class Archive:
    """A published file.

    name: of the file. urls: addresses of the same bytes, tried in this order. size: bytes. md5: check sum. unpacked:
    bytes needed on top once it is unpacked. licence: under which its content may be used.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    md5: str
    unpacked: int
    licence: str


class _AddressError(Exception):
    """Why an address did not give the file."""


def fetch(
    archive: Archive,
    folder: str | os.PathLike[str],
    *,
    given: str | os.PathLike[str] | None = None,
    attempts: int = 3,
    timeout: float = 30.0,
    progress: bool = True,
) -> Path:
    """Get an archive, unless it is there already.

    Args:
        archive: what to get.
        folder: where to put it; made if it is missing.
        given: the same file from elsewhere: checked and used where it lies, nothing is transferred.
        attempts: tries in a row that may bring less than a megabyte before an address is given up.
        timeout: seconds without a byte after which a try counts as stalled.
        progress: show a bar.

    Returns:
        The path of the whole, checked file.

    Raises:
        UserError: the file that is given, or there already, is another one; the disk is too small; or no address gave
            the file: the message says what each did, and how to go on by hand.
    """
    if given is not None:
        return _checked(archive, Path(given))
    path = Path(folder) / archive.name
    if path.exists():
        return _checked(archive, path)
    part = path.with_name(f"{path.name}.part")
    expect_space(path.parent, archive.size - _size(part) + archive.unpacked, archive.name)
    reasons = []
    for url in archive.urls:
        try:
            _fetch_from(url, archive, part, attempts=attempts, timeout=timeout, progress=progress)
        except _AddressError as error:
            reasons.append(f"{url}: {error}")
            continue
        os.replace(part, path)
        return path
    raise UserError(
        f"{path}: expected {archive.name} from one of {len(archive.urls)} addresses, got {'; '.join(reasons)}. "
        "Try again later (what came so far is kept), or get the file by hand and name it with --from"
    )


def expect_space(folder: Path, needed: int, what: str) -> None:
    """Check the disk under ``folder``, made if it is missing, before a long transfer.

    Raises:
        UserError: fewer than ``needed`` bytes and some to spare are free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise UserError(
            f"{folder}: expected {(needed + SPARE) / 1e9:.1f} GB free for {what}, unpacked too, got {free / 1e9:.1f} GB"
        )


@contextmanager
def unpacked(path: Path, beside: Path) -> Iterator[Path]:
    """Unpack a tar or zip archive into a temporary folder beside ``beside``, from which its content can be renamed.

    Members that would land outside of the folder are refused (tar: the ``data`` filter; zip: by the library).

    Yields:
        The temporary folder; it is gone after the block.

    Raises:
        UserError: it cannot be unpacked.
    """
    beside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{beside.name}.", suffix=".part", dir=beside.parent) as name:
        folder = Path(name)
        try:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(folder)
            else:
                with tarfile.open(path) as tar:
                    tar.extractall(folder, filter="data")
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{path}: expected a tar or zip archive that unpacks, got: {error}") from error
        yield folder


def _checked(archive: Archive, path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: expected {archive.name}, got no such file")
    problem = _difference(archive, path)
    if problem:
        raise UserError(f"{path}: expected {archive.name}, got {problem}; remove it and try again")
    return path


def _difference(archive: Archive, path: Path) -> str | None:
    """What tells the file from the published one, or None; its whole content is read only if its size is right."""
    if _size(path) != archive.size:
        return f"{_size(path)} bytes where it has {archive.size}"
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    return None if md5 == archive.md5 else f"another content (md5 {md5}, expected {archive.md5})"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_from(url: str, archive: Archive, part: Path, *, attempts: int, timeout: float, progress: bool) -> None:
    """Bring ``part`` to its full size from one address, and check it; a part with wrong bytes is removed."""
    if _size(part) > archive.size:
        part.unlink()
    failed = 0
    while _size(part) < archive.size:
        before = _size(part)
        try:
            _transfer(url, archive, part, timeout=timeout, progress=progress)
        except urllib.error.HTTPError as error:
            raise _AddressError(f"HTTP {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:  # refused, stalled, cut: what came is kept
            failed = 0 if _size(part) - before >= CHUNK else failed + 1
            if failed == attempts:
                reason = getattr(error, "reason", error)
                raise _AddressError(f"{reason} ({_size(part)} of {archive.size} bytes came)") from error
    problem = _difference(archive, part)
    if problem:
        part.unlink()
        raise _AddressError(problem)


def _transfer(url: str, archive: Archive, part: Path, *, timeout: float, progress: bool) -> None:
    """One request for the bytes that are still missing."""
    start = _size(part)
    headers = {"User-Agent": "rsepm-edu", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
        if start and response.status != 206:  # it cannot resume
            start = 0
        _expect_promise(response, archive, start)
        bar = tqdm(
            desc=archive.name, total=archive.size, initial=start, unit="B", unit_scale=True, disable=not progress
        )
        with _open(part, start) as file, bar:
            while block := response.read1(CHUNK):  # what has come, so that a stall loses nothing
                start += len(block)
                if start > archive.size:
                    raise _AddressError(f"more than {archive.size} bytes")
                _write(file, block)
                bar.update(len(block))
    if start < archive.size:
        raise ConnectionError("connection closed")


def _open(part: Path, start: int) -> BinaryIO:
    """The part, to go on writing from ``start``; trouble with the disk is not the address's fault."""
    try:
        file = part.open("r+b" if start else "wb")
    except OSError as error:
        raise UserError(f"{part}: expected a file that can be written, got: {error.strerror}") from error
    file.seek(start)
    return file


def _write(file: BinaryIO, block: bytes) -> None:
    try:
        file.write(block)
    except OSError as error:
        raise UserError(f"{file.name}: expected room on the disk, got: {error.strerror}") from error


def _expect_promise(response: HTTPResponse, archive: Archive, start: int) -> None:
    """Refuse an answer that does not even promise the right file."""
    kind = response.headers.get_content_type()
    if kind == "text/html":
        raise _AddressError("a web page")
    length = response.headers.get("Content-Length")
    if length is not None and int(length) != archive.size - start:
        raise _AddressError(f"a file of {start + int(length)} bytes where it has {archive.size}")
    place = response.headers.get("Content-Range", "")
    if start and not place.startswith(f"bytes {start}-"):
        raise _AddressError(f"the part {place!r} where the one from {start} on was asked for")
