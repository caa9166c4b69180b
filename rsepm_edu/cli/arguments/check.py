"""The options of rsepm-edu check."""

import argparse

from rsepm_edu.cli.arguments.known import CELL_SECONDS, MEMORY_GB


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Grades the exercises in students' notebooks. Each notebook runs in its own process; the functions that the "
        "exercises ask for are compared with the package's, on inputs that are not in the notebook. Each result is "
        "printed as soon as it is ready. Exit code 0: all exercises are solved; 1: not all. Without bubblewrap, the "
        "students' code runs with your rights: docs/instructors.md describes the sandbox and its limits."
    )
    parser.add_argument("notebooks", metavar="FILE.ipynb", nargs="+", help="notebooks of one student or of a class")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each notebook")
    parser.add_argument(
        "--cell-seconds",
        type=float,
        default=CELL_SECONDS,
        help="time limit for a cell, in seconds (default: %(default)g)",
    )
    parser.add_argument(
        "--memory-gb", type=float, default=MEMORY_GB, help="memory limit for each process, in GB (default: %(default)g)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
