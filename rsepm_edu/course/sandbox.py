"""Running somebody else's notebook: in a process of its own, with limits of time and memory, in a temporary folder.

That process (in_sandbox.py) gets the cells and the names of the exercises, and may send one line for each; a line that
is too long, or is not what was expected, ends it. Nothing else of it is read. Where the system has bubblewrap it lives
within walls (walls.py). Where not, the code has the rights of whoever runs it: it gets neither this process's
environment variables (but for a few) nor its home folder's name, but can look for both, change files and end processes.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import rsepm_edu
from rsepm_edu.course.walls import HOME, why_no_walls, within_walls
from rsepm_edu.data.creatures import data_folder
from rsepm_edu.errors import UserError

START_SECONDS = 300.0
"""A process that has said nothing by then does not start."""
GRACE_SECONDS = 10.0
"""From the time limit, at which code is interrupted, to the kill."""
CELLS_AT_MOST = 4
"""All cells together may take that many times the limit of one."""
SHORT, LONG = 4096, 8 * 2**20
"""Bytes of the longest line about a cell, and about an exercise."""
TOO_LONG = "took too long"

# What a Python needs of the environment; tokens and passwords that others keep there are not among it.
KEPT = {
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH", "PYTHONWARNINGS"),
    *("SYSTEMROOT", "COMSPEC", "PATHEXT"),  # Windows does not start a Python without
}


@dataclass
class Findings:
    """What came of a notebook.

    problems: for each cell that ended, what went wrong or None. answers: for each exercise that ended, what was sent,
    read but not checked. end: why not all of them ended, or None.
    """

    problems: list[str | None] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    end: str | None = None


def run_notebook(
    cells: Sequence[str],
    exercises: Sequence[str],
    *,
    seconds: float,
    memory: int,
    drawn: Path | None = None,
    walls: bool | None = None,
) -> Findings:
    """Run cells and then the functions that exercises ask for; whatever they do is in the result.

    Args:
        cells: their sources.
        exercises: names, see `rsepm_edu.course.exercises`.
        seconds: time limit of each cell and of each exercise.
        memory: bytes that the process, and each that it starts, can take.
        drawn: the folder of Creatures, if the cells need it.
        walls: False does without; by default they are there where they can be built.

    Raises:
        UserError: no process starts, and it is not the notebook's doing.
    """
    if walls is None:
        walls = why_no_walls() is None
    job = {"cells": list(cells), "exercises": list(exercises), "seconds": seconds, "memory": memory}
    with ExitStack() as stack:
        todo = stack.enter_context(tempfile.TemporaryFile())
        todo.write(json.dumps(job).encode("ascii"))
        todo.seek(0)
        said = stack.enter_context(tempfile.TemporaryFile())
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        command = [sys.executable, "-m", "rsepm_edu.course.in_sandbox"]
        if walls:
            command = within_walls(command, _named_in_settings() + ([drawn] if drawn else []), [_data_folder()])
        process = subprocess.Popen(
            command,
            stdin=todo,
            stdout=subprocess.PIPE,
            stderr=said,
            cwd=folder,
            env=_environment(HOME if walls else folder),
            start_new_session=True,  # a group to kill; Ctrl-C is ours alone
        )
        stack.callback(_kill, process)
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        lengths = [SHORT] * (1 + len(cells)) + [LONG] * len(exercises)
        threading.Thread(target=_read, args=(process.stdout, lengths, lines), daemon=True).start()
        _, end = _next(lines, START_SECONDS, "ready")
        if end:
            _kill(process)
            said.seek(0)
            last = said.read(2**16).decode(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"sandbox: expected {sys.executable} to start, got: {one_line(''.join(last)) or end}")
        return _findings(lines, len(cells), len(exercises), seconds)


def one_line(text: str, length: int = 160) -> str:
    """The first line of a text that came out of a sandbox, without what a terminal would act on."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    printable = "".join(letter if letter.isprintable() else " " for letter in first).strip()
    return printable if len(printable) <= length else f"{printable[: length - 1]}…"


def _findings(lines: "queue.SimpleQueue[bytes]", cells: int, exercises: int, seconds: float) -> Findings:
    found = Findings()
    last = time.monotonic() + CELLS_AT_MOST * seconds
    for _ in range(cells):
        left = last - time.monotonic()
        problem, found.end = _next(lines, min(seconds + GRACE_SECONDS, max(left, 0)), "problem")
        if found.end == TOO_LONG and left < seconds + GRACE_SECONDS:
            found.end = f"and those before it ran longer than {CELLS_AT_MOST * seconds:g} s, and were killed"
        elif found.end == TOO_LONG:
            found.end = f"ran longer than {seconds:g} s, did not stop when asked, and was killed"
        if found.end:
            return found
        found.problems.append(None if problem is None else one_line(str(problem)))
    for _ in range(exercises):
        answers, found.end = _next(lines, seconds + GRACE_SECONDS, "answers")
        if found.end:
            return found
        found.answers.append(answers)
    return found


def _next(lines: "queue.SimpleQueue[bytes]", seconds: float, key: str) -> tuple[Any, str | None]:
    """What the next line holds under `key`, or why there is none."""
    try:
        line = lines.get(timeout=seconds)
    except queue.Empty:
        return None, TOO_LONG
    if not line:
        return None, "ended its process"
    try:
        reply: Any = json.loads(line) if line.endswith(b"\n") else None
        return reply[key], None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None, "sent what cannot be read"


def _read(stream: IO[bytes], lengths: Sequence[int], lines: "queue.SimpleQueue[bytes]") -> None:
    """As many lines as are expected, none longer than expected: whoever sends more is not heard."""
    with stream:
        for length in lengths:
            line = stream.readline(length)
            lines.put(line)
            if not line.endswith(b"\n"):
                return


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.returncode is None:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):  # macOS: only its exit code is left of it
                os.killpg(process.pid, signal.SIGKILL)  # with all that it started and that did not leave its group
        else:
            process.kill()
        process.wait()


def _data_folder() -> Path:
    return data_folder().absolute()


def _named_in_settings() -> list[Path]:
    """Files and folders that RSEPM_EDU_… variables name, data of one's own for instance."""
    values = [value for name, value in os.environ.items() if name.startswith("RSEPM_EDU_") and value]
    return [path.absolute() for path in map(Path, values) if path.exists() and path.absolute() != _data_folder()]


def _environment(home: str) -> dict[str, str]:
    environment = {
        name: value for name, value in os.environ.items() if name.upper() in KEPT or name.startswith("RSEPM_EDU_")
    }
    environment |= dict.fromkeys(("HOME", "USERPROFILE", "IPYTHONDIR", "TMPDIR", "TEMP", "TMP"), home)
    environment["USER"] = "student"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # what changes in the package's folder is then the notebook's doing
    environment["RSEPM_EDU_DATA"] = str(_data_folder())  # or each submission would draw Creatures anew
    environment["CUDA_VISIBLE_DEVICES"] = ""  # the same device for everybody
    environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as in Jupyter: draws figures, closes them
    package = str(Path(rsepm_edu.__file__).parents[1])  # a checkout's, or where all packages are
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH")]))
    return environment
