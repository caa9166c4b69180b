"""rsepm-edu multistage: pseudo masks of a checkpoint train a DeepLab."""

import argparse
import shlex
from pathlib import Path
from typing import get_args

from rsepm_edu.cli.options import add_changes, add_common, expect_folder, parse_changes, shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.scored_split import scored_split
from rsepm_edu.models.segmenters import Head
from rsepm_edu.multistage.config import STAGE_PRESETS, MultistageConfig, StageConfig, Walk
from rsepm_edu.multistage.run import Multistage, run_multistage
from rsepm_edu.multistage.segmentation import SegmentationConfig
from rsepm_edu.multistage.stages import SeedMap
from rsepm_edu.multistage.walk import WalkConfig
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.keeping import LAST

SETTINGS = {
    "split": "split",
    "map": "seed_map",
    "walk": "walk",
    "threshold": "threshold",
    "crf": "crf",
    "head": "segmentation.head",
}
"""Options of their own for settings that --set knows too."""


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Makes pseudo masks with a checkpoint of train (seeds, random walk, background score, dense CRF) and trains a "
        "DeepLab on them. Each stage has a folder below OUT; given again, the command goes on where it stopped. No "
        "training sees a true mask; only the scores at the end do."
    )
    described = (
        ("", StageConfig(), "multistage/config.py"),
        ("walk.", WalkConfig(), "multistage/walk.py"),
        ("segmentation.", SegmentationConfig(), "multistage/segmentation.py"),
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
    parser.add_argument("--walk", choices=get_args(Walk), help="IRNet's, AffinityNet's or none (default: boundary)")
    parser.add_argument(
        "--threshold", type=float, help="background score of the pseudo masks (default: chosen without masks)"
    )
    parser.add_argument(
        "--crf",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="dense CRF on masks and result (default: yes)",
    )
    parser.add_argument("--head", choices=get_args(Head), help="of the segmenter (default: deeplabv3+)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of both trainings, where --set gives none (default: 0)"
    )
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
    checkpoint = load_checkpoint(options.checkpoint)
    seed_map: SeedMap = "decoder" if "decoder" in checkpoint.learnt else "cam"
    config = _multistage_config(options, seed_map)
    root = options.root
    if root is None:
        if options.preset != "creatures-cpu":
            raise UserError(f"--root: expected the folder of the data for preset {options.preset}, got none")
        root = ensure_creatures()
    run = Multistage(checkpoint, root, options.out, config, device=options.device, progress=shows_bars(options))
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
            command=_multistage_command(options, config),
            config=config.to_dict(),
            log=run.segmenter_folder / "log.jsonl",
        )
    print(run.segmenter_folder / LAST)


def _multistage_config(options: argparse.Namespace, seed_map: SeedMap) -> MultistageConfig:
    """The preset with what options and --set ask for; each of them counts, or is refused. seed_map: where none does."""
    changes = parse_changes(options.changes, MultistageConfig.preset(options.preset).settings())
    for option, name in SETTINGS.items():
        given = getattr(options, option)
        if given is not None and changes.setdefault(name, given) != given:
            raise UserError(f"--{option}, --set {name}: expected one of the two, got {given!r} and {changes[name]!r}")
    changes.setdefault("seed_map", seed_map)
    # Settings between the networks first: on the walk depends what the preset is.
    stages = {name: value for name, value in changes.items() if "." not in name}
    trainings = {name: value for name, value in changes.items() if "." in name}
    config = MultistageConfig.preset(options.preset, seed=options.seed, **stages).with_settings(trainings)
    for name, reason in config.unused().items():
        if name in changes:
            raise UserError(f"--set {name}: expected a setting that changes something, got one that does not: {reason}")
    return config


def _multistage_command(options: argparse.Namespace, config: MultistageConfig) -> str:
    """The command, without the paths of this machine: the checkpoint by its name, the data set not at all."""
    words = ["rsepm-edu", "multistage", options.checkpoint.name, "--preset", options.preset, "--out", "OUT"]
    settings = config.settings()
    for option, name in SETTINGS.items():
        if option != "crf" and settings[name] is not None:
            words += [f"--{option}", str(settings[name])]
    words += ["--crf" if config.stages.crf else "--no-crf", "--seed", str(options.seed)]
    for option in ("score", "evaluate"):
        value = getattr(options, option)
        words += [] if value is None else [f"--{option}", value]
    for change in options.changes:
        name = change.partition("=")[0]
        words += [] if name in SETTINGS.values() or name.endswith("weights") else ["--set", change]
    return shlex.join(words)
