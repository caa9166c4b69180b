"""The options of rsepm-edu evaluate."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_common, add_criteria, add_scales, parse_count
from rsepm_edu.cli.arguments.known import ARGMAX, TAG_THRESHOLD


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Scores a checkpoint: mIoU, FP and FN from one confusion matrix over the split, void left out. Maps as seeds, "
        "tags given, each at its ORACLE threshold and at one chosen without masks; or, with --final, the segmentation "
        "without tags. A segmenter of multistage has no seeds: it is always scored without tags."
    )
    parser.add_argument("checkpoint", type=Path, help="a last.pt, of train or of multistage")
    parser.add_argument("--root", type=Path, help="VOC devkit with masks; default: Creatures")
    parser.add_argument("--split", default=None, help="split to score (default: train, with --final val)")
    parser.add_argument("--classes", help="foreground classes of the means, comma separated (default: all)")
    parser.add_argument(
        "--final", action="store_true", help=f"no tags: classes from the classifier at probability {TAG_THRESHOLD}"
    )
    parser.add_argument(
        "--format",
        choices=("text", "json", "markdown"),
        default="text",
        help="of the table; json is a list of rows, with --per-class or --boundary an object of rows and classes",
    )
    add_criteria(parser)
    parser.add_argument("--out", type=Path, help="folder for table.json, table.md, command, config and versions")
    parser.add_argument(
        "--per-class",
        action="store_true",
        help="a table of the classes for every map, at its oracle threshold or by arg-max: IoU, FN, and FP split into "
        "background and other classes",
    )
    parser.add_argument(
        "--boundary", action="store_true", help="boundary IoU of every class, of the label maps of --map; a second pass"
    )
    parser.add_argument(
        "--cases",
        type=Path,
        metavar="FOLDER",
        help="pictures of the worst and the best cases, of the label maps of --map; for looking only",
    )
    parser.add_argument("--count", type=parse_count, default=6, help="of --cases, each (default: %(default)s)")
    parser.add_argument(
        "--map",
        help=f"row that --boundary and --cases look at, e.g. cam+pamr (default: {ARGMAX}; cam without a decoder)",
    )
    add_scales(parser)
    add_common(parser)
