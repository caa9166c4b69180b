"""The options of rsepm-edu segment."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_common, add_scales
from rsepm_edu.cli.arguments.known import LONGEST, MAPS

RUN = "run"
"""As the run's own scores without masks say, where it has stored some; else by these pictures' colours."""

COLOUR = "colour"
"""By these pictures' colours."""


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Writes NAME.png (VOC palette mask) and NAME_overlay.png for pictures of any size. Where it is not given, "
        "which map is used, and where it is cut, is chosen without masks: as the scores say that train has stored "
        "beside the checkpoint, else by the colours of these pictures; the output names it. Given again, the command "
        "goes on with the pictures that are not done. Exit code 1: some pictures could not be done; they are listed at "
        "the end."
    )
    parser.add_argument("checkpoint", type=Path, help="a last.pt, of train or of multistage")
    parser.add_argument("pictures", type=Path, nargs="+", help="JPEG or PNG files, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="folder for masks and overlays")
    parser.add_argument(
        "--map",
        choices=MAPS,
        help="cam, decoder, or argmax (the decoder against its own background); a segmenter has argmax alone "
        "(default: chosen, among those the network was trained for)",
    )
    parser.add_argument(
        "--pamr",
        action=argparse.BooleanOptionalAction,
        help="refine cam or decoder by the picture's colours (default: chosen)",
    )
    parser.add_argument("--crf", action="store_true", help="a dense CRF at the end; seconds a picture")
    parser.add_argument(
        "--threshold",
        type=_parse_threshold,
        default=RUN,
        metavar="NUMBER",
        help=f"background score of --map cam or decoder, 0 to 1; {RUN}: as the run's own scores say, where it has "
        f"some; {COLOUR}: chosen by the colours of these pictures (default: {RUN})",
    )
    parser.add_argument(
        "--tags",
        type=Path,
        metavar="FILE",
        help="a line a picture, NAME,CLASS,CLASS …: the classes that are in it (default: those the classifier sees)",
    )
    parser.add_argument(
        "--longest",
        type=_parse_longest,
        default=LONGEST,
        metavar="PIXELS",
        help="longer side at which a picture is seen; larger ones are made smaller, their masks are not; takes memory "
        "with its square (default: %(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="do all pictures, those in OUT already too")
    add_scales(parser)
    add_common(parser)


def _parse_threshold(text: str) -> float | str:
    if text in (RUN, COLOUR):
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected {RUN}, {COLOUR} or a number from 0 to less than 1, got {text!r}")
    return value


def _parse_longest(text: str) -> int:
    if not text.isdecimal() or not 32 <= int(text) <= 8192:
        raise argparse.ArgumentTypeError(f"expected pixels from 32 to 8192, got {text!r}")
    return int(text)
