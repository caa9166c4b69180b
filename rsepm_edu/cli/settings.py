"""rsepm-edu settings: every setting of train with its meaning and its source."""

import argparse

from rsepm_edu.training.config import PRESETS, TrainConfig, preset
from rsepm_edu.training.described import settings_text


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Prints the settings of train, for its --set NAME=VALUE: value, meaning and source. A star marks what a preset "
        "changes. Sources in brackets: [J] Jo, Yu & Kim 2022; other papers by name; (ours) chosen here."
    )
    parser.add_argument(
        "preset", nargs="?", metavar="PRESET", help=f"one of {', '.join(PRESETS)} (default: the defaults of all)"
    )
    parser.set_defaults(run=_settings)


def _settings(options: argparse.Namespace) -> None:
    print(settings_text(TrainConfig() if options.preset is None else preset(options.preset)), end="")
