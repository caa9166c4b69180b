"""The command line, rsepm-edu COMMAND: a file for each command, and what they share in options.py."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from rsepm_edu import __version__
from rsepm_edu.cli import check, choose, demo, evaluate, multistage, segment, train
from rsepm_edu.errors import UserError
from rsepm_edu.processes import launched
from rsepm_edu.training.loop import NotFiniteError

AGAIN = {"demo": "the same command", "multistage": "the same command", "train": "train --resume"}
"""What to tell somebody who stops a command that keeps its state."""

SHARED = ("train", "evaluate")
"""Commands whose work several processes can share, started by torchrun."""


class _Parser(argparse.ArgumentParser):
    """A parser that answers a wrong option with one line; subcommands inherit it."""

    def error(self, message: str) -> NoReturn:
        rank, _ = launched()
        self.exit(2, None if rank else f"{self.prog}: {message}; see {self.prog} --help\n")  # the same on every rank


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; every option has its help."""
    parser = _Parser(prog="rsepm-edu", description="From image tags to masks: RecurSeed and EdgePredictMix.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo.add_command(commands.add_parser("demo", help="train RS+EPM on Creatures, print its table, write pictures"))
    train.add_command(commands.add_parser("train", help="train on pictures with tags; no masks"))
    evaluate.add_command(commands.add_parser("evaluate", help="score a checkpoint on a split with masks"))
    choose.add_command(commands.add_parser("choose", help="rank checkpoints and choose thresholds without masks"))
    segment.add_command(commands.add_parser("segment", help="write masks and overlays for any pictures"))
    multistage.add_command(commands.add_parser("multistage", help="pseudo masks of a checkpoint train a DeepLab"))
    check.add_command(commands.add_parser("check", help="check the exercises in students' notebooks"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 after one line about what the user can put right.

    `check` returns 1 where an exercise is not solved.
    """
    options = build_parser().parse_args(arguments)
    rank, processes = launched()
    try:
        if processes > 1 and options.command not in SHARED:
            raise UserError(f"processes: expected 1, got {processes}; torchrun serves {' and '.join(SHARED)} alone")
        return options.run(options) or 0
    except (UserError, OSError) as error:  # OSError: a full disk, a folder without rights
        print(f"rsepm-edu {options.command}: {error}", file=sys.stderr)
        return 2
    except NotFiniteError as error:
        if rank == 0:  # all processes end for the same reason
            print(f"rsepm-edu {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if rank == 0:
            more = f"; {AGAIN[options.command]} goes on from there" if options.command in AGAIN else ""
            print(f"\nrsepm-edu {options.command}: stopped{more}", file=sys.stderr)
        return 130
