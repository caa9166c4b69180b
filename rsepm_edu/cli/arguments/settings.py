"""The options of rsepm-edu settings."""

import argparse

from rsepm_edu.cli.arguments.known import PRESETS, STAGE_PRESETS


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Prints the settings of train or of multistage, for their --set NAME=VALUE: value, meaning and source. A star "
        "marks what a preset changes. Sources in brackets: [J] Jo, Yu & Kim 2022; [I] IRNet, [P] Puzzle-CAM, [K] the "
        "dense CRF; other papers by name; (ours) chosen here."
    )
    parser.add_argument(
        "preset",
        nargs="?",
        metavar="PRESET",
        help=f"one of {', '.join(PRESETS)}; with --multistage of {', '.join(STAGE_PRESETS)} "
        "(default: the defaults of all)",
    )
    parser.add_argument("--multistage", action="store_true", help="the settings of multistage")
