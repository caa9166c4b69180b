"""The sandbox: what a hostile cell gets of the machine, and that it costs nobody else's grade."""

import io
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import rsepm_edu
from rsepm_edu.course import sandbox, walls
from rsepm_edu.course.sandbox import Findings, one_line, run_notebook
from rsepm_edu.errors import UserError

GB = 2**30

needs_walls = pytest.mark.skipif(walls.why_no_walls() is not None, reason=str(walls.why_no_walls()))


def run(*cells: str, seconds: float = 60, memory: int = 3 * GB, walled: bool | None = False) -> Findings:
    return run_notebook(cells, ["01.tag_scores"], seconds=seconds, memory=memory, walls=walled)


def shown(expression: str) -> str:
    """A cell that says what an expression gives in there."""
    return f"import glob, os, pathlib\nraise ValueError(repr({expression}))"


def values(found: Findings) -> list[str]:
    assert found.end is None
    return [str(problem).removeprefix("raised ValueError: ") for problem in found.problems]


@pytest.mark.parametrize("walled", [False, pytest.param(True, marks=needs_walls)])
def test_cells_have_an_environment_and_a_folder_of_their_own(
    walled: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "12345")
    monkeypatch.setenv("RSEPM_EDU_DATA", str(tmp_path))
    folder, home, secret, data, package, stopped, tags, gpu, end = values(
        run(
            *map(
                shown,
                [
                    "os.getcwd()",
                    "str(pathlib.Path.home())",
                    "[name for name in os.environ if 'SECRET' in name]",
                    "os.environ['RSEPM_EDU_DATA']",
                    "__import__('rsepm_edu').__file__",
                    "input('name?')",
                    "open('tag', 'w').write('here')",
                    "__import__('torch').cuda.is_available()",
                    "1",
                ],
            ),
            walled=walled,
        )
    )
    assert folder == home != repr(os.getcwd())
    assert secret == "[]"
    assert data == repr(str(tmp_path))
    assert package == repr(rsepm_edu.__file__)
    assert stopped.startswith("raised EOFError")  # nobody answers, and it does not wait
    assert (tags, gpu, end) == ("4", "False", "1")
    assert not Path(folder.strip("'")).exists()


@needs_walls
def test_within_walls_the_machine_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In one process, since the start is what takes time."""
    (tmp_path / "token").write_text("12345")
    package = Path(rsepm_edu.__file__).parent
    before = {path: path.read_bytes() for path in package.rglob("*.py")}
    checker = package / "course" / "checks.py"
    started = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, "SECRET_TOKEN": "54321"}
    )
    with socket.create_server(("127.0.0.1", 0)) as server, started:
        port = server.getsockname()[1]
        found = values(
            run(
                shown("[path for path in glob.glob('/proc/[0-9]*/environ') if b'SECRET' in open(path, 'rb').read()]"),
                shown(f"os.path.exists({str(tmp_path)!r})"),
                shown("[name for name in os.listdir('/') if name in ('home', 'var', 'srv', 'mnt', 'opt')]"),
                f"open({str(checker)!r}, 'w')",
                f"os.rename({str(checker)!r}, {str(checker)!r} + '.old')",
                f"open({str(Path(os.__file__))!r}, 'a')",
                f"import os\nos.kill({started.pid}, 9)",
                "os.kill(os.getppid(), 2)\nos.kill(os.getppid(), 9)",
                f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=5)",
                "open('full', 'wb').write(bytes(1500 * 2**20))",
                "open('/new', 'w')",
                shown("__import__('rsepm_edu').course and 1"),
                walled=True,
            )
        )
        started.communicate(b"\n")
    assert found[0] == "[]"
    assert found[1] == "False"
    assert found[2] == "[]"
    assert found[3].startswith("raised OSError: [Errno 30] Read-only file system")
    assert found[4].startswith("raised OSError: [Errno 30] Read-only file system") or "busy" in found[4]
    assert found[5].startswith("raised OSError: [Errno 30] Read-only file system")
    assert found[6].startswith("raised ProcessLookupError")
    assert found[7] == "None"  # the walls' own first process, which does not listen
    assert found[8].startswith("raised ConnectionRefusedError") or "unreachable" in found[8]
    assert "No space left" in found[9] or "MemoryError" in found[9]
    assert found[10].startswith("raised OSError: [Errno 30] Read-only file system")
    assert found[11] == "1"
    assert {path: path.read_bytes() for path in package.rglob("*.py")} == before


@needs_walls
def test_within_walls_a_process_that_leaves_its_group_dies_too(tmp_path: Path) -> None:
    mark = f"mark-{os.getpid()}"
    cell = f"import subprocess\nsubprocess.Popen(['sleep', '600', '{mark}'], start_new_session=True)"
    # sleep refuses the mark: the shell keeps it on its command line.
    cell = cell.replace("['sleep', '600', '" + mark + "']", f"['sh', '-c', 'sleep 600; : {mark}']")
    assert run(cell, walled=True).end is None
    deadline = time.monotonic() + 60
    while any(mark in command_line(process) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_processes_that_a_cell_started_are_killed_with_it() -> None:
    [problem] = run("import subprocess\nraise ValueError(subprocess.Popen(['sleep', '600']).pid)").problems
    child = int(str(problem).rpartition(" ")[2])
    deadline = time.monotonic() + 60
    while is_running(child):  # at once, or as soon as the system gets to it
        assert time.monotonic() < deadline


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")  # a dead process that nobody has asked about still has its number
    return not (status.is_file() and ") Z " in status.read_text())


def test_a_cell_that_takes_too_long_is_interrupted_and_the_rest_runs() -> None:
    found = run("while True:\n    pass", "import time\ntime.sleep(600)", "1", seconds=5)
    assert found.problems == ["ran longer than 5 s and was stopped"] * 2 + [None]
    assert len(found.answers) == 1


def test_a_cell_that_does_not_stop_when_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "GRACE_SECONDS", 1.0)
    stubborn = (
        "while True:\n    try:\n        while True:\n            pass\n    except KeyboardInterrupt:\n        pass"
    )
    found = run("1", stubborn, "1", seconds=5)
    assert found == Findings([None], [], "ran longer than 5 s, did not stop when asked, and was killed")


def test_many_slow_cells_do_not_hold_up_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CELLS_AT_MOST", 1)
    found = run(*["while True:\n    pass"] * 50, seconds=4)
    assert found.end == "and those before it ran longer than 4 s, and were killed"
    assert len(found.problems) < 5


def test_memory_is_limited_and_the_rest_runs() -> None:
    child = (
        "import subprocess, sys\nassert subprocess.run([sys.executable, '-c', 'bytearray(4 * 2**30)']).returncode == 1"
    )
    found = run("x = bytearray(4 * 2**30)", "import torch\ny = torch.zeros(2**30)", child, memory=2 * GB)
    assert found.problems[0] == "raised MemoryError"
    assert "allocate" in str(found.problems[1])
    assert found.problems[2] is None and len(found.answers) == 1


def test_what_cells_print_is_not_kept() -> None:
    """Two hundred times the longest line that is read."""
    found = run("for _ in range(1600):\n    print('x' * 2**20)", "import os\nos.write(2, b'y' * 2**20)")
    assert found == Findings([None, None], found.answers, None)


EVERYWHERE = (
    "import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, {data})\n    except OSError:\n        pass"
)


def test_a_cell_that_writes_into_the_way_out_ends_itself_alone() -> None:
    assert run(EVERYWHERE.format(data="b'x' * 10000"), "1") == Findings([], [], "sent what cannot be read")


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"[1, 2]\n",
        b"7\n",
        b"null\n",
        b"{}\n",
        b"[" * 3000 + b"\n",
        b"\xff\n",
        b'{"problem": 1}',
        b"9" * 5000,
    ],
    ids=["garbage", "a list", "a number", "null", "other keys", "deep", "no text", "no end", "too long"],
)
def test_a_line_that_is_not_what_was_expected_is_the_end(line: bytes) -> None:
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    sandbox._read(io.BytesIO(line), [sandbox.SHORT], lines)
    assert sandbox._findings(lines, 1, 1, seconds=5) == Findings([], [], "sent what cannot be read")


def test_no_more_is_read_than_was_expected() -> None:
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    sandbox._read(io.BytesIO(b'{"problem": null}\n' * 1000), [sandbox.SHORT] * 2, lines)
    assert lines.qsize() == 2


def test_a_cell_that_ends_its_process() -> None:
    assert run("1", "import os\nos._exit(0)", "1") == Findings([None], [], "ended its process")


def test_whatever_a_cell_raises_is_one_line() -> None:
    cells = {
        "x = 1\nx +": "raised SyntaxError: ",
        "class Odd(Exception):\n    def __str__(self):\n        1 / 0\nraise Odd": "raised ZeroDivisionError",
        "raise ValueError('one\\ntwo \\x1b[31m' + 'x' * 500)": "raised ValueError: one",
        "raise ValueError('\U0001f600' * 2000)": "raised ValueError: \U0001f600",
        "x = '\ud800'": "raised UnicodeEncodeError",
        "import sys\nsys.exit(3)": "raised SystemExit: 3",
        "raise KeyboardInterrupt": "raised KeyboardInterrupt",
        "import asyncio\nawait asyncio.sleep(0)\n1 / 0": "raised ZeroDivisionError",
        "1": "None",
    }
    found = run(*cells)
    assert found.end is None
    for problem, said in zip(found.problems, cells.values(), strict=True):
        assert str(problem).startswith(said) and str(problem).isprintable()


def test_a_python_that_does_not_start_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(UserError, match=r"sandbox: expected .*python to start, got: no such library"):
        run("1")


def test_ctrl_c_kills_the_notebook_and_comes_through() -> None:
    before = {thread.name for thread in threading.enumerate()}
    timer = threading.Timer(3, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run("while True:\n    pass")
    timer.join()
    deadline = time.monotonic() + 60
    while {thread.name for thread in threading.enumerate()} - before:  # the one that reads: nobody writes any more
        assert time.monotonic() < deadline


def test_walls_show_only_what_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = Path(rsepm_edu.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(checkout), "/some/packages"]))
    made = walls.within_walls(["python"], [Path("/data/set")], [Path("/data")])
    bound = [made[i + 1] for i, word in enumerate(made) if word == "--ro-bind-try"]
    assert str(checkout) not in bound and str(Path.home()) not in bound and "/" not in bound
    assert {str(checkout / "rsepm_edu"), "/some/packages", "/data/set", sys.prefix, sys.base_prefix} <= set(bound)
    assert made.index("/data") < made.index("/data/set")
    assert made[-2:] == ["--", "python"]


def test_one_line_is_one_line() -> None:
    assert one_line("\n \x1b[31mred\x07\nmore") == "[31mred"
    assert one_line("a" * 500) == "a" * 159 + "…"
    assert one_line("") == ""
