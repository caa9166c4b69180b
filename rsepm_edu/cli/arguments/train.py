"""The options of rsepm-edu train."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_changes, add_common
from rsepm_edu.cli.arguments.known import PRESETS


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    names = ", ".join(PRESETS)
    parser.description = (
        "Trains on the pictures and tags of a folder in VOC's layout. Nothing that is learnt sees a mask; only the "
        "panels show the truth, where there is one. Before it starts it says what the run will take, memory and time, "
        "from two steps of each phase (not with --quiet)."
    )
    parser.epilog = "rsepm-edu settings lists the settings for --set, with their meaning"
    parser.add_argument("--preset", required=True, help=f"settings to start from: {names}")
    parser.add_argument("--root", type=Path, help="VOC devkit (holds JPEGImages); default for creatures-cpu: Creatures")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, logs and pictures")
    add_changes(parser, "--set epochs=40 --set seed=1")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        choices=("auto",),
        help="go on from the newest whole last.pt in OUT or COPY_TO, bit for bit on the CPU; auto: if there is one",
    )
    parser.add_argument("--copy-to", type=Path, help="a second folder for every checkpoint, such as a mounted drive")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the settings and what the run would take, write nothing, and stop"
    )
    add_common(parser)
