"""The options of rsepm-edu compare."""

import argparse
from pathlib import Path


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Compares runs in one table: epochs, time, the settings in which they differ, their last losses, and their "
        "scores. The scores come from every table.json in a run's folder or one level below it, such as those written "
        "by evaluate RUN/last.pt --out RUN/table."
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        type=Path,
        nargs="+",
        help="folder of train or demo, or of a training stage of multistage",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for compare.md and compare.png, the table and a figure: curves of the losses and mIoU, plane of "
        "FP and FN",
    )
