"""The options of rsepm-edu report."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_common, add_scales, parse_count


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Writes a run as one self-contained HTML file: scores (from every table.json in the run's folder or one level "
        "below it), curves, panels, worst and best cases, settings with their meaning."
    )
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="folder of train or demo, or of a training stage of multistage"
    )
    parser.add_argument("--out", type=Path, help="the HTML file (default: RUN/report.html)")
    parser.add_argument(
        "--root", type=Path, help="VOC devkit with masks, for the cases (default for a run on Creatures: Creatures)"
    )
    parser.add_argument("--split", default="val", help="split from which the cases come (default: %(default)s)")
    parser.add_argument(
        "--count", type=parse_count, default=4, help="number of cases of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--cases",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the worst and best cases; without them, no network runs (default: yes)",
    )
    add_scales(parser)
    add_common(parser)
