"""The options of rsepm-edu evaluate."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_common, add_criteria, add_scales, parse_count
from rsepm_edu.cli.arguments.known import ARGMAX, TAG_THRESHOLD


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Scores a checkpoint: mIoU, FP and FN from one confusion matrix over the split, without void pixels. By "
        "default every map is scored as a seed, with the tags given, at its ORACLE threshold and at one chosen without "
        "masks. With --final, the segmentation is scored, without tags. The DeepLab of multistage has no seeds: it is "
        "always scored without tags."
    )
    parser.add_argument("checkpoint", type=Path, help="a last.pt of train or multistage")
    parser.add_argument("--root", type=Path, help="VOC devkit with masks (default: Creatures)")
    parser.add_argument("--split", default=None, help="split to score (default: train; with --final, val)")
    parser.add_argument("--classes", help="foreground classes to average over, separated by commas (default: all)")
    parser.add_argument(
        "--final",
        action="store_true",
        help=f"score without tags: classes with a tag probability from {TAG_THRESHOLD}",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json", "markdown"),
        default="text",
        help="of the table; json prints a list of rows, with --per-class or --boundary an object with rows and classes",
    )
    add_criteria(parser)
    parser.add_argument("--out", type=Path, help="folder for table.json, table.md, command, settings and versions")
    parser.add_argument(
        "--per-class",
        action="store_true",
        help="add a table of the classes for every map, at its oracle threshold or by arg-max: IoU, FN, and FP split "
        "into background and other classes",
    )
    parser.add_argument(
        "--boundary",
        action="store_true",
        help="add the boundary IoU of every class, for --map (a second pass)",
    )
    parser.add_argument(
        "--cases",
        type=Path,
        metavar="FOLDER",
        help="write figures of the images with the worst and the best masks of --map to this folder",
    )
    parser.add_argument(
        "--count", type=parse_count, default=6, help="number of --cases of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--map",
        help=f"row of the table for --boundary and --cases, e.g. cam+pamr (default: {ARGMAX}; without a decoder, cam)",
    )
    add_scales(parser)
    add_common(parser)
