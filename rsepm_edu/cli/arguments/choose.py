"""The options of rsepm-edu choose."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_common, add_criteria, add_scales
from rsepm_edu.cli.arguments.known import PICTURES


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Ranks the checkpoints of a run, and chooses each seed's threshold, from pictures and tags alone. "
        "No mask is read."
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="last.pt and others of the same data")
    parser.add_argument("--root", type=Path, help="VOC devkit, no masks needed; default: Creatures")
    parser.add_argument("--split", default="train", help="split to look at (default: train)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="how many of them (default: %(default)s)")
    add_criteria(parser)
    add_scales(parser)
    add_common(parser)
