"""The options of rsepm-edu demo."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_common


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Creates the Creatures data set (the first time), trains the full method on its tags, scores every phase with "
        "masks, and draws the network's predictions on new images. Takes less than ten minutes on two CPU cores."
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of weights, order, crops, mixing (default: 0)")
    parser.add_argument("--full", action="store_true", help="print every row of the table, not only the main ones")
    add_common(parser)
