"""Before a command begins: nothing heavy for help, one line at Ctrl-C, words for errors of the system."""

import argparse
import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from rsepm_edu import cli
from rsepm_edu.cli.arguments import known
from rsepm_edu.course.submissions import CELL_SECONDS, MEMORY_GB
from rsepm_edu.evaluation import choosing, inference, segmenting
from rsepm_edu.evaluation.scoring import ARGMAX
from rsepm_edu.models.segmenters import Head
from rsepm_edu.multistage.config import STAGE_PRESETS, Walk
from rsepm_edu.multistage.stages import SeedMap
from rsepm_edu.training import config


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("option", ["--help", "--version", ""])
def test_no_torch_is_imported_for_help(option: str) -> None:
    heavy = "{'torch', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)"
    told = f"atexit.register(lambda: print({heavy}))"
    code = f"import atexit, sys; from rsepm_edu import cli; {told}; cli.main([{option!r}])"
    done = python(code)
    assert done.stdout.endswith("set()\n") and "rsepm-edu" in done.stdout + done.stderr


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_no_torch_is_imported_for_the_help_of_a_command(command: str) -> None:
    told = "atexit.register(lambda: print({'torch', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)))"
    done = python(f"import atexit, sys; from rsepm_edu import cli; {told}; cli.main([{command!r}, '--help'])")
    assert f"usage: rsepm-edu {command}" in done.stdout and done.stdout.endswith("set()\n"), done.stderr


def test_what_help_shows_is_what_the_package_has() -> None:
    originals = {
        "PRESETS": tuple(config.PRESETS),
        "STAGE_PRESETS": tuple(STAGE_PRESETS),
        "SCALES": inference.SCALES,
        "NEAR_SCALES": inference.NEAR_SCALES,
        "LEAST_SCALE": inference.LEAST_SCALE,
        "GREATEST_SCALE": inference.GREATEST_SCALE,
        "CRITERIA": tuple(choosing.CRITERIA),
        "DEFAULT_CRITERIA": choosing.DEFAULT_CRITERIA,
        "PICTURES": choosing.PICTURES,
        "LONGEST": segmenting.LONGEST,
        "MAPS": segmenting.MAPS,
        "SEED_MAPS": get_args(SeedMap),
        "WALKS": get_args(Walk),
        "HEADS": get_args(Head),
        "TAG_THRESHOLD": inference.TAG_THRESHOLD,
        "ARGMAX": ARGMAX,
        "CELL_SECONDS": CELL_SECONDS,
        "MEMORY_GB": MEMORY_GB,
    }
    assert originals == {name: value for name, value in vars(known).items() if name.isupper()}


def test_an_interrupt_at_any_moment_of_the_start_is_one_line() -> None:
    """Before the command line is imported, while it is, and while a command is."""
    interrupt = "os.kill(os.getpid(), signal.SIGINT)"
    entry = "import builtins, os, signal, sys\nfrom rsepm_edu import __main__ as entry\nsys.argv[1:] = ['settings']\n"
    before = "original = builtins.__import__\ndef stop(name, *more):\n"
    for moment in ("rsepm_edu.cli", "argparse", "rsepm_edu.errors"):
        code = f"{entry}{before}    if name == {moment!r}: {interrupt}\n    return original(name, *more)\n"
        done = python(f"{code}builtins.__import__ = stop\nentry.main()")
        assert (done.returncode, done.stdout) == (130, ""), moment
        assert done.stderr == "\nrsepm-edu: stopped before anything was begun\n", moment


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    """As for what a script has started in the background."""
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from rsepm_edu import interrupts\n"
        "with interrupts.one_line_at_an_interrupt(): os.kill(os.getpid(), signal.SIGINT)\n"
        "print('went on')"
    )
    assert python(code).stdout == "went on\n"


def test_an_interrupt_while_torch_is_imported_is_one_line() -> None:
    code = (
        "import os, signal; from rsepm_edu import cli\n"
        "cli.importlib.import_module = lambda name: os.kill(os.getpid(), signal.SIGINT)\n"
        "cli.main(['settings'])"
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
    assert cli._goes_on(options) == "; train --resume continues from there"
    assert cli._goes_on(argparse.Namespace(command="evaluate")) == ""


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = "import sys; sys.argv[1:] = ['settings']; from rsepm_edu.__main__ import main; sys.exit(main())"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("w", "")


def test_letters_that_the_terminal_lacks_are_replaced() -> None:
    code = "import sys; from rsepm_edu import cli; sys.exit(cli.main(['settings']))"
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0 and b"learning rate ? (1 ? step / steps)" in done.stdout and done.stderr == b""
