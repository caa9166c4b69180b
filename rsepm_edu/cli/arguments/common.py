"""Options that several commands have."""

import argparse

from rsepm_edu.cli.arguments.known import CRITERIA, DEFAULT_CRITERIA, GREATEST_SCALE, LEAST_SCALE, NEAR_SCALES, SCALES


def add_common(parser: argparse.ArgumentParser) -> None:
    """Device and progress messages."""
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1, … (default: the GPU if there is one)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no progress messages")


def add_scales(parser: argparse.ArgumentParser) -> None:
    """Scales at which the network sees an image."""
    parser.add_argument(
        "--scales",
        type=_parse_scales,
        help="scales at which the network sees each image and its mirror image (default: "
        f"{_shown(SCALES)}; for Creatures' network {_shown(NEAR_SCALES)})",
    )


def _shown(scales: tuple[float, ...]) -> str:
    return ",".join(map(str, scales))


def _parse_scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(LEAST_SCALE <= scale <= GREATEST_SCALE for scale in scales):
        raise argparse.ArgumentTypeError(
            f"expected numbers from {LEAST_SCALE} to {GREATEST_SCALE} like 1.0,0.5, got {text!r}"
        )
    return scales


def add_criteria(parser: argparse.ArgumentParser) -> None:
    """Criteria that choose thresholds without masks."""
    parser.add_argument(
        "--choose",
        type=_parse_criteria,
        default=DEFAULT_CRITERIA,
        metavar="CRITERION,…",
        help=f"criteria that choose thresholds without masks: {', '.join(CRITERIA)} "
        f"(default: {', '.join(DEFAULT_CRITERIA)})",
    )


def _parse_criteria(text: str) -> tuple[str, ...]:
    criteria = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(name in CRITERIA for name in criteria):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(CRITERIA)}, got {text!r}")
    return criteria


def add_changes(parser: argparse.ArgumentParser, example: str) -> None:
    """Changes of single settings, for ``parse_changes``."""
    parser.add_argument(
        "--set",
        dest="changes",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help=f"change a setting, e.g. {example}; can be repeated",
    )


def parse_count(text: str) -> int:
    """A number of images."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of images, at least 1, got {text!r}")
    return int(text)
