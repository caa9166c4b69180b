"""The options of rsepm-edu segment."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_common, add_scales
from rsepm_edu.cli.arguments.known import LONGEST, MAPS

RUN = "run"
"""By the run's own scores without masks, if it has stored some; otherwise by the colours of the images given."""

COLOUR = "colour"
"""By the colours of the images given."""


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Writes NAME.png (a mask with VOC's palette) and NAME_overlay.png for images of any size. Unless you set them, "
        "the map and its threshold are chosen without masks: by the scores that train has stored beside the "
        "checkpoint, otherwise by the colours of the images given; the output names the choice. The same command "
        "resumes with the images that are not done yet. Exit code 1: some images failed; they are listed at the end."
    )
    parser.add_argument("checkpoint", type=Path, help="a last.pt of train or multistage")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="IMAGE", help="JPEG or PNG files, or folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for masks and overlays")
    parser.add_argument(
        "--map",
        choices=MAPS,
        help="cam, decoder, or argmax (the decoder with its own background); for a DeepLab, only argmax (default: "
        "chosen among the maps that the network was trained for)",
    )
    parser.add_argument(
        "--pamr",
        action=argparse.BooleanOptionalAction,
        help="refine cam or decoder with PAMR (default: chosen)",
    )
    parser.add_argument("--crf", action="store_true", help="apply a dense CRF at the end; takes seconds for each image")
    parser.add_argument(
        "--threshold",
        type=_parse_threshold,
        default=RUN,
        metavar="NUMBER",
        help=f"background threshold of --map cam or decoder, 0 to 1; {RUN}: chosen by the stored scores of the run, if "
        f"there are any; {COLOUR}: chosen by the colours of the images given (default: {RUN})",
    )
    parser.add_argument(
        "--tags",
        type=Path,
        metavar="FILE",
        help="text file with the classes of each image, a line NAME,CLASS,CLASS,… each (default: the classes that the "
        "classifier predicts)",
    )
    parser.add_argument(
        "--longest",
        type=_parse_longest,
        default=LONGEST,
        metavar="PIXELS",
        help="larger images are resized to this longer side for the network; masks keep the original size; memory "
        "grows with its square (default: %(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="segment all images again, including those already in OUT")
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
