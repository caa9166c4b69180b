"""Reading the code cells of a notebook file that anybody may have made, and the lesson that it is.

Without nbformat: that raises whatever breaks first, and what is needed here is little.
"""

import json
import re
from pathlib import Path
from typing import Any

from rsepm_edu.course.exercises import EXERCISES

LARGEST_FILE = 32 * 2**20
"""Bytes; a lesson with its outputs has less than a twentieth of that."""


def code_cells(path: Path) -> list[tuple[int, str]]:
    """Number (from 1, among the code cells) and source of the cells to run; those tagged `solution` are left out.

    Raises:
        ValueError: not such a notebook; the message says what it is, in one line without the file's name.
    """
    try:
        if not path.is_file():  # reading from a pipe could wait forever
            raise ValueError("got a folder" if path.is_dir() else "got no such file")
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ValueError(f"got {size / 2**20:.0f} MB, more than {LARGEST_FILE // 2**20}: clear its outputs")
        text = path.read_bytes().decode("utf-8-sig")  # Windows editors put a mark before the text
    except OSError as error:
        raise ValueError(f"got a file that cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("got a file that is not UTF-8 text") from None
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("got no JSON" if text.strip() else "got an empty file") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("nbformat"), int):
        raise ValueError("got other JSON")
    if notebook["nbformat"] != 4:
        raise ValueError("got another format than 4: open and save it in Jupyter")
    cells = notebook.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError("got one without cells")
    code = [cell for cell in cells if cell.get("cell_type") == "code"]
    sources = [_source(cell, number) for number, cell in enumerate(code, start=1)]
    return [(i + 1, source) for i, source in enumerate(sources) if not _is_solution(code[i])]


def lesson_of(source: str) -> str | None:
    """The lesson that a notebook's code says it is, if that lesson has exercises."""
    for pattern in (r"""\bstart\(\s*["'](\d\d)["']""", r"""\bcheck\(\s*["'](\d\d)\."""):
        for number in re.findall(pattern, source):
            if any(name.startswith(f"{number}.") for name in EXERCISES):
                return str(number)
    return None


def _source(cell: dict[str, Any], number: int) -> str:
    source: Any = cell.get("source")
    lines: list[Any] = source if isinstance(source, list) else [source]
    if not all(isinstance(line, str) for line in lines):
        raise ValueError(f"got one whose code cell {number} has no text")
    return "".join(lines)


def _is_solution(cell: dict[str, Any]) -> bool:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return isinstance(tags, list) and "solution" in tags
