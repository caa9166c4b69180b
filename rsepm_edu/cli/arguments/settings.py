"""The options of rsepm-edu settings."""

import argparse

from rsepm_edu.cli.arguments.known import PRESETS, STAGE_PRESETS


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Prints the settings of train or multistage, for --set NAME=VALUE: value, meaning and source. A star marks "
        "what a preset changes. Sources: [J] Jo, Yu & Kim 2022; [I] IRNet; [P] Puzzle-CAM; [K] the dense CRF; other "
        "papers by name; (ours) chosen for this project."
    )
    parser.add_argument(
        "preset",
        nargs="?",
        metavar="PRESET",
        help=f"one of {', '.join(PRESETS)}; with --multistage one of {', '.join(STAGE_PRESETS)} "
        "(without: the default of every setting)",
    )
    parser.add_argument("--multistage", action="store_true", help="print the settings of multistage")
