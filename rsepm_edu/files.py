"""Writing files so that a reader never sees half of one (write beside, then rename), and reading them."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsepm_edu.errors import UserError

_LEFTOVER = re.compile(r"\..*\.[0-9a-f]{8}\.part(\.[^.]*)?")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well.

    The temporary file lies in the same folder (a rename is atomic only within one file system) and
    keeps the suffix of `path`, because many savers choose the format by it. Missing parent folders
    are made. If the block raises, the temporary file is removed and `path` stays as it was.

    Example:
        with atomic_path("runs/last.pt") as temporary:
            torch.save(state, temporary)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a full disk, told while writing: of which file is what the user must know
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of `atomic_path` in a folder that a process left when it was killed.

    For whoever alone writes into the folder: what another process is writing would go too.
    """
    if os.path.isdir(folder):
        for path in Path(folder).iterdir():
            if _LEFTOVER.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8 with Unix line ends, atomically (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def digest(path: str | os.PathLike[str]) -> str:
    """16 hexadecimal digits of a file's content (SHA-256), by which another content is known."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_bytes(path: str | os.PathLike[str], what: str) -> bytes:
    """The content of a file.

    Args:
        path: of the file.
        what: was expected there, such as "a picture".

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: expected {what}, got no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte, which a damaged list can hold
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: expected {what}, got what cannot be read: {reason}") from error


def read_lines(path: str | os.PathLike[str], what: str) -> list[str]:
    """The lines of a text in UTF-8; a byte order mark, which Windows puts before it, is left out.

    Raises:
        UserError: it is missing, cannot be read, is in another encoding, or holds control characters.
    """
    try:
        text = read_bytes(path, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:  # PowerShell's ">" writes UTF-16
        raise UserError(f"{path}: expected text in UTF-8, got: {error}") from error
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise UserError(f"{path}, line {line}: expected text in UTF-8, got the control character {control.group()!r}")
    return text.splitlines()
