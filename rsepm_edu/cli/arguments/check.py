"""The options of rsepm-edu check."""

import argparse

from rsepm_edu.cli.arguments.known import CELL_SECONDS, MEMORY_GB


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Runs each notebook in a process of its own and tries the functions that its exercises ask for, beside the "
        "package's, on inputs that are not in the notebook. Grades are printed as they come. Exit code 0: all solved; "
        "1: not all. Where bubblewrap is not installed the code runs with your rights: docs/instructors.md says what "
        "is kept out and what not."
    )
    parser.add_argument("notebooks", metavar="FILE.ipynb", nargs="+", help="one submission, or those of a class")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each notebook instead of text")
    parser.add_argument(
        "--cell-seconds", type=float, default=CELL_SECONDS, help="time limit of each cell (default: %(default)g)"
    )
    parser.add_argument(
        "--memory-gb", type=float, default=MEMORY_GB, help="memory of a notebook's process (default: %(default)g)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
