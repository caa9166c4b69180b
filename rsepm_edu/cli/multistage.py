"""rsepm-edu multistage: pseudo masks of a checkpoint train a DeepLab."""

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rsepm_edu.cli.options import add_changes, add_common, expect_folder, parse_change, shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.scored_split import scored_split
from rsepm_edu.models.segmenters import Head
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.multistage import (
    STAGE_PRESETS,
    Multistage,
    MultistageConfig,
    StageConfig,
    Walk,
    run_multistage,
)
from rsepm_edu.training.segmentation import SegmentationConfig
from rsepm_edu.training.stages import SeedMap
from rsepm_edu.training.walk import WalkConfig


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Makes pseudo masks with a checkpoint of train (seeds, random walk, background score, dense CRF) and trains a "
        "DeepLab on them. Each stage has a folder below OUT; given again, the command goes on where it stopped. No "
        "training sees a true mask; only the scores at the end do."
    )
    described = (
        ("", StageConfig(), "training/multistage.py"),
        ("walk.", WalkConfig(), "training/walk.py"),
        ("segmentation.", SegmentationConfig(), "training/segmentation.py"),
    )
    parser.epilog = "settings for --set: " + "; ".join(
        f"{', '.join(prefix + name for name in settings.to_dict())} (explained in rsepm_edu/{where})"
        for prefix, settings, where in described
    )
    parser.add_argument("checkpoint", type=Path, help="a last.pt of train")
    parser.add_argument("--preset", required=True, help=f"settings to start from: {', '.join(STAGE_PRESETS)}")
    parser.add_argument("--root", type=Path, help="VOC devkit (holds JPEGImages); default for creatures-cpu: Creatures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; the same one to go on")
    parser.add_argument("--split", help="pictures with tags that get pseudo masks (default: by the preset)")
    parser.add_argument(
        "--map", choices=get_args(SeedMap), help="seed: cam, or decoder (default: decoder where one was trained)"
    )
    parser.add_argument(
        "--walk", choices=get_args(Walk), default="boundary", help="IRNet's, AffinityNet's or none (default: boundary)"
    )
    parser.add_argument(
        "--threshold", type=float, help="background score of the pseudo masks (default: chosen without masks)"
    )
    parser.add_argument(
        "--crf",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="dense CRF on masks and result (default: yes)",
    )
    parser.add_argument(
        "--head", choices=get_args(Head), default="deeplabv3+", help="of the segmenter (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of both trainings (default: 0)")
    parser.add_argument(
        "--score", metavar="SPLIT", help="score seeds and pseudo masks there; none: do not (default: train, with masks)"
    )
    parser.add_argument(
        "--evaluate", metavar="SPLIT", help="score the segmenter there; none: do not (default: val, with masks)"
    )
    add_changes(parser, "--set walk.epochs=2 --set segmentation.epochs=5")
    add_common(parser)
    parser.set_defaults(run=_multistage)


def _multistage(options: argparse.Namespace) -> None:
    expect_folder("--out", options.out)
    config = _multistage_config(options)
    root = options.root
    if root is None:
        if options.preset != "creatures-cpu":
            raise UserError(f"--root: expected the folder of the data for preset {options.preset}, got none")
        root = ensure_creatures()
    run = Multistage(options.checkpoint, root, options.out, config, device=options.device, progress=shows_bars(options))
    masks = (run.dataset.devkit / "SegmentationClass").is_dir()
    score, evaluate = (
        (default if masks else None) if given is None else None if given == "none" else given
        for given, default in ((options.score, "train"), (options.evaluate, "val"))
    )
    for option, split in (("--score", score), ("--evaluate", evaluate)):
        if split is not None:
            try:
                scored_split(root, split)
            except UserError as error:
                raise UserError(f"{error}; {option} none leaves these scores out") from error
    rows = run_multistage(run, score=score, evaluate=evaluate)
    if rows:
        print(tables.text(rows))
        tables.write_results(
            run.segmenter_folder / "table",
            rows,
            command=_multistage_command(options),
            config=config.to_dict(),
            log=run.segmenter_folder / "log.jsonl",
        )
    print(run.segmenter_folder / LAST)


def _multistage_config(options: argparse.Namespace) -> MultistageConfig:
    changes: dict[str, Any] = {"walk": options.walk, "crf": options.crf}
    learnt = load_checkpoint(options.checkpoint).learnt
    changes["seed_map"] = options.map or ("decoder" if "decoder" in learnt else "cam")
    if options.split is not None:
        changes["split"] = options.split
    if options.threshold is not None:
        changes["threshold"] = options.threshold
    config = MultistageConfig.preset(options.preset, seed=options.seed, head=options.head, **changes)
    for change in options.changes:
        part, dot, rest = change.partition(".")
        if dot and part in ("walk", "segmentation"):
            name, value = parse_change(rest, getattr(config, part))
            config = replace(config, **{part: replace(getattr(config, part), **{name: value})})
        else:
            name, value = parse_change(change, config.stages)
            config = replace(config, stages=replace(config.stages, **{name: value}))
    return config


def _multistage_command(options: argparse.Namespace) -> str:
    """The command, without the paths of this machine: the checkpoint by its name, the data set not at all."""
    words = ["rsepm-edu", "multistage", options.checkpoint.name, "--preset", options.preset, "--out", "OUT"]
    for name in ("split", "map", "walk", "threshold", "head", "seed", "score", "evaluate"):
        value = getattr(options, name)
        words += [] if value is None else [f"--{name}", str(value)]
    words += ["--crf" if options.crf else "--no-crf"]
    for change in options.changes:
        words += [] if "weights=" in change else ["--set", change]
    return shlex.join(words)
