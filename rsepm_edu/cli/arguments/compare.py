"""The options of rsepm-edu compare."""

import argparse
from pathlib import Path


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Puts runs side by side: epochs, time, the settings in which they differ, their last losses, and the scores of "
        "every table.json in a run's folder or directly below it, such as evaluate RUN/last.pt --out RUN/table writes."
    )
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="+", help="folders of train, of demo, or of multistage's trainings"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for compare.md and compare.png: a curve for each loss, mIoU, and the plane of false positives and "
        "false negatives",
    )
