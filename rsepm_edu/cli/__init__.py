"""The command line, rsepm-edu COMMAND: a file for each command, and what they share in options.py.

torch takes seconds to import. So the options lie apart, in arguments/, and a command's own file is imported to run it.
"""

import argparse
import importlib
import io
import logging
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rsepm_edu.errors import UserError
from rsepm_edu.interrupts import one_line_at_an_interrupt

COMMANDS = {
    "demo": "train RS + EPM on Creatures and show what it has learnt",
    "train": "train on images with tags, without masks",
    "settings": "print every setting, with its meaning",
    "evaluate": "score a checkpoint on a split with masks",
    "choose": "rank checkpoints and choose thresholds without masks",
    "segment": "write masks and overlays for any images",
    "multistage": "train a DeepLab on the pseudo masks of a checkpoint",
    "compare": "compare runs in one table and one figure",
    "report": "write a run as one HTML page",
    "export": "write a checkpoint as an ONNX file",
    "lab": "open the lessons in JupyterLab",
    "check": "grade the exercises in students' notebooks",
}
"""What each does; each has a module of its name here, with ``run``, and one in arguments/, with ``add_command``."""

AGAIN = {name: "the same command" for name in ("demo", "multistage", "segment")}
"""What to tell somebody who stops a command that keeps its state, beside train, see ``_goes_on``."""

SHARED = ("train", "evaluate")
"""Commands whose work several processes can share, started by torchrun."""


class _Parser(argparse.ArgumentParser):
    """A parser that answers a wrong option with one line; subcommands inherit it."""

    def error(self, message: str) -> NoReturn:
        rank, _ = _launched()
        self.exit(2, None if rank else f"{self.prog}: {message}; see {self.prog} --help\n")  # the same on every rank


class _Version(argparse.Action):
    """Prints the version, which is not looked up before."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from rsepm_edu import __version__

        print(f"{parser.prog} {__version__}")
        parser.exit()


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the options of one command or of all; every option has its help."""
    parser = _Parser(prog="rsepm-edu", description="From image tags to masks: RecurSeed and EdgePredictMix.")
    parser.add_argument("--version", action=_Version, help="print the version and stop")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        of_command = commands.add_parser(name, help=purpose)
        if command in (None, name):
            importlib.import_module(f"rsepm_edu.cli.arguments.{name}").add_command(of_command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 after one line about what the user can put right.

    `check` returns 1 where an exercise is not solved, `segment` where a picture could not be done.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every code page has θ, × and –
    with one_line_at_an_interrupt():
        first = given[0] if given else ""
        options = build_parser(first if first in COMMANDS else "").parse_args(given)
        command = importlib.import_module(f"rsepm_edu.cli.{options.command}")
    rank, processes = _launched()
    try:
        if processes > 1 and options.command not in SHARED:
            raise UserError(f"processes: expected 1, got {processes}; torchrun works only with {' and '.join(SHARED)}")
        with _told_on_stderr(quiet=getattr(options, "quiet", False)):
            return command.run(options) or 0
    except UserError as error:
        return _refused(options.command, str(error))
    except BrokenPipeError:  # whoever reads the output, head say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder without rights
        return _refused(options.command, _told(error))
    except RuntimeError as error:
        from rsepm_edu.training.loop import NotFiniteError  # loaded long ago where it was raised

        if not isinstance(error, NotFiniteError):
            raise
        return _refused(options.command, str(error)) if rank == 0 else 2  # all processes end for the same reason
    except KeyboardInterrupt:
        if rank == 0:
            print(f"\nrsepm-edu {options.command}: stopped{_goes_on(options)}", file=sys.stderr)
        return 130


class _OnStderr(logging.Handler):
    """Writes lines above the progress bar, if there is one; a narrow terminal gets them in several rows."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(_in_rows(record.getMessage()), file=sys.stderr)


def _in_rows(line: str) -> str:
    """A line as a terminal has room for it, no word and no loss cut in two; elsewhere, in a file say, as it is."""
    if not sys.stderr.isatty():
        return line
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    together = re.sub(r" (?=[\d.]+([,;]|$))", "\u00a0", line)  # a loss and its value
    rows = textwrap.wrap(together, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(rows).replace("\u00a0", " ")


@contextmanager
def _told_on_stderr(*, quiet: bool) -> Iterator[None]:
    """Show what the package tells of its progress: a line an epoch or stage."""
    logger, handler = logging.getLogger("rsepm_edu"), _OnStderr()
    before = logger.level
    if not quiet:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _refused(command: str, message: str) -> int:
    print(f"rsepm-edu {command}: {message}", file=sys.stderr)
    return 2


def _told(error: OSError) -> str:
    """An error of the system in the words of the others: the file, and what the system says without its number."""
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


def _goes_on(options: argparse.Namespace) -> str:
    """How to go on after an interrupt, where there is something to go on from."""
    again = AGAIN.get(options.command)
    if options.command == "train" and (Path(options.out) / "last.pt").is_file():
        again = "train --resume"
    return "" if again is None else f"; {again} continues from there"


def _launched() -> tuple[int, int]:
    """Rank and number of processes, see ``processes.launched``; without torchrun torch need not be asked."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    from rsepm_edu.processes import launched

    return launched()
