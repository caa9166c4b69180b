"""The options of rsepm-edu train."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_changes, add_common
from rsepm_edu.cli.arguments.known import PRESETS


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    names = ", ".join(PRESETS)
    parser.description = (
        "Trains on the images and tags of a folder in VOC's layout. Training never reads a mask; only the panels show "
        "masks, if there are any. Before the first step, the command estimates memory and time from two steps of each "
        "phase (not with --quiet)."
    )
    parser.epilog = "For all settings of --set and their meaning: rsepm-edu settings"
    parser.add_argument("--preset", required=True, help=f"settings to start from: {names}")
    parser.add_argument("--root", type=Path, help="VOC devkit (with JPEGImages); default for creatures-cpu: Creatures")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, logs and figures")
    add_changes(parser, "--set epochs=40 --set seed=1")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        choices=("auto",),
        help="resume from the newest intact last.pt in OUT or COPY_TO; auto: start a new run if there is none",
    )
    parser.add_argument("--copy-to", type=Path, help="second folder for every checkpoint, such as a mounted drive")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the settings and the estimate, write nothing, and stop"
    )
    add_common(parser)
