"""The options of rsepm-edu multistage."""

import argparse
from pathlib import Path

from rsepm_edu.cli.arguments.common import add_changes, add_common
from rsepm_edu.cli.arguments.known import HEADS, SEED_MAPS, STAGE_PRESETS, WALKS


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Makes pseudo masks with a run of train (seeds, random walk, background threshold, dense CRF) and trains a "
        "DeepLab on them. Each stage has a folder in OUT; the same command resumes an interrupted run. No training "
        "reads a ground-truth mask; only the scores at the end do, if there are masks. All thresholds are chosen "
        "without masks. A walk or a CRF whose mask-free score is no better than that of its input is skipped, with a "
        "line that says so."
    )
    parser.epilog = "For all settings of --set and their meaning: rsepm-edu settings --multistage"
    parser.add_argument("checkpoint", type=Path, metavar="RUN", help="folder of a run of train, or its last.pt")
    parser.add_argument(
        "--preset", help=f"settings to start from: {', '.join(STAGE_PRESETS)} (default: chosen by run and images)"
    )
    parser.add_argument(
        "--root", type=Path, help="VOC devkit (with JPEGImages); default for Creatures' network: Creatures"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; to resume, the same folder")
    parser.add_argument(
        "--split", help="split to make pseudo masks for (default: that of the preset or run, otherwise train)"
    )
    parser.add_argument(
        "--map", choices=SEED_MAPS, help="map to use as seed (default: decoder if one was trained, otherwise cam)"
    )
    parser.add_argument(
        "--walk",
        choices=WALKS,
        help="IRNet's walk, AffinityNet's walk, or none (default: boundary)",
    )
    parser.add_argument(
        "--threshold", type=float, help="background threshold of the pseudo masks (default: chosen without masks)"
    )
    parser.add_argument(
        "--crf",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="dense CRF on the pseudo masks and on the result (default: yes)",
    )
    parser.add_argument("--head", choices=HEADS, help="kind of DeepLab (default: deeplabv3+)")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of both trainings, unless --set gives one (default: 0)"
    )
    parser.add_argument(
        "--score",
        metavar="SPLIT",
        help="split to score seeds and pseudo masks on, or none (default: train, with masks)",
    )
    parser.add_argument(
        "--evaluate", metavar="SPLIT", help="split to score the DeepLab on, or none (default: val, with masks)"
    )
    parser.add_argument(
        "--skip",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="skip a walk or a CRF that does not raise the mask-free score (default: yes)",
    )
    add_changes(parser, "--set walk.epochs=2 --set segmentation.epochs=5")
    add_common(parser)
