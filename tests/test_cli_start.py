"""Before a command begins: nothing heavy for help, one line at Ctrl-C, words for errors of the system."""

import argparse
import errno
import subprocess
import sys
from pathlib import Path

import pytest

from rsepm_edu import cli


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("option", ["--help", "--version", ""])
def test_no_torch_is_imported_for_help(option: str) -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)"
    told = f"atexit.register(lambda: print({heavy}))"
    code = f"import atexit, sys; from rsepm_edu import cli; {told}; cli.main([{option!r}])"
    done = python(code)
    assert done.stdout.endswith("set()\n") and "rsepm-edu" in done.stdout + done.stderr


def test_an_interrupt_while_torch_is_imported_is_one_line() -> None:
    code = (
        "import os, signal; from rsepm_edu import cli\n"
        "cli.importlib.import_module = lambda name: os.kill(os.getpid(), signal.SIGINT)\n"
        "cli.main(['train'])"
    )
    done = python(code)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "\nrsepm-edu: stopped before anything was begun\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileExistsError(errno.EEXIST, "File exists", "runs/x"), "runs/x: File exists"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("what a library says"), "what a library says"),
    ],
)
def test_errors_of_the_system_have_no_numbers(error: OSError, told: str) -> None:
    assert cli._told(error) == told


def test_to_go_on_is_offered_where_there_is_something_to_go_on_from(tmp_path: Path) -> None:
    options = argparse.Namespace(command="train", out=tmp_path)
    assert cli._goes_on(options) == ""
    (tmp_path / "last.pt").touch()
    assert cli._goes_on(options) == "; train --resume goes on from there"
    assert cli._goes_on(argparse.Namespace(command="evaluate")) == ""
