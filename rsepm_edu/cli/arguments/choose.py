"""The options of rsepm-edu choose."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_common, add_criteria, add_scales
from rsepm_edu.cli.arguments.known import PICTURES


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Ranks checkpoints and chooses the background threshold of each seed map, from images and tags alone. No mask "
        "is read."
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="checkpoints to compare, trained on the same data")
    parser.add_argument("--root", type=Path, help="VOC devkit; needs no masks (default: Creatures)")
    parser.add_argument("--split", default="train", help="split to use (default: train)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="number of images to use (default: %(default)s)")
    add_criteria(parser)
    add_scales(parser)
    add_common(parser)
