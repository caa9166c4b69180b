"""The options of rsepm-edu multistage."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_changes, add_common
from rsepm_edu.cli.arguments.known import HEADS, SEED_MAPS, STAGE_PRESETS, WALKS


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Makes pseudo masks with a run of train (seeds, random walk, background score, dense CRF) and trains a "
        "DeepLab on them. Each stage has a folder below OUT; given again, the command goes on where it stopped. No "
        "training sees a true mask; only the scores at the end do, where there are masks. All thresholds are chosen "
        "without masks, and a stage whose mask-free score is no better than that of what it got is skipped, with a "
        "line that says so."
    )
    parser.epilog = "rsepm-edu settings --multistage lists the settings for --set, with their meaning"
    parser.add_argument("checkpoint", type=Path, metavar="RUN", help="a folder of train, or a last.pt in one")
    parser.add_argument(
        "--preset", help=f"settings to start from: {', '.join(STAGE_PRESETS)} (default: by the run and the pictures)"
    )
    parser.add_argument(
        "--root", type=Path, help="VOC devkit (holds JPEGImages); default for Creatures' networks: Creatures"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; the same one to go on")
    parser.add_argument(
        "--split", help="pictures with tags that get pseudo masks (default: by the preset, else the run's, or train)"
    )
    parser.add_argument(
        "--map", choices=SEED_MAPS, help="seed: cam, or decoder (default: decoder where one was trained)"
    )
    parser.add_argument("--walk", choices=WALKS, help="IRNet's, AffinityNet's or none (default: boundary)")
    parser.add_argument(
        "--threshold", type=float, help="background score of the pseudo masks (default: chosen without masks)"
    )
    parser.add_argument(
        "--crf",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="dense CRF on masks and result (default: yes)",
    )
    parser.add_argument("--head", choices=HEADS, help="of the segmenter (default: deeplabv3+)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of both trainings, where --set gives none (default: 0)"
    )
    parser.add_argument(
        "--score", metavar="SPLIT", help="score seeds and pseudo masks there; none: do not (default: train, with masks)"
    )
    parser.add_argument(
        "--evaluate", metavar="SPLIT", help="score the segmenter there; none: do not (default: val, with masks)"
    )
    parser.add_argument(
        "--skip",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="leave out a walk or a CRF that does not raise the mask-free score (default: yes)",
    )
    add_changes(parser, "--set walk.epochs=2 --set segmentation.epochs=5")
    add_common(parser)
