"""Writing files so that a reader never sees half of one: write beside, then rename."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LEFTOVER = re.compile(r"\..*\.[0-9a-f]{8}\.part(\.[^.]*)?")


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
