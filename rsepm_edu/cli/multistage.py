"""rsepm-edu multistage: pseudo masks of a run train a DeepLab."""

import argparse
import shlex
from pathlib import Path

from rsepm_edu.cli.options import expect_folder, parse_changes, shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.scored_split import scored_split
from rsepm_edu.multistage.config import MultistageConfig
from rsepm_edu.multistage.run import Multistage, run_multistage
from rsepm_edu.training.checkpoint import Checkpoint, load_checkpoint
from rsepm_edu.training.keeping import LAST

SETTINGS = {
    "split": "split",
    "map": "seed_map",
    "walk": "walk",
    "threshold": "threshold",
    "crf": "crf",
    "skip": "skip",
    "head": "segmentation.head",
}
"""Options of their own for settings that --set knows too."""

SWITCHES = ("crf", "skip")
"""Those of them that are on or off."""


def run(options: argparse.Namespace) -> None:
    """Go through the stages and print their scores."""
    expect_folder("--out", options.out)
    path = options.checkpoint / LAST if options.checkpoint.is_dir() else options.checkpoint
    checkpoint = load_checkpoint(path)
    root = options.root
    if root is None:
        if options.preset not in (None, "creatures-cpu") or checkpoint.config.backbone != "creatures":
            whose = path if options.preset is None else f"preset {options.preset}"
            raise UserError(f"--root: expected the folder of the data for {whose}, got none")
        root = ensure_creatures()
    config = _multistage_config(options, checkpoint, root)
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


def _multistage_config(options: argparse.Namespace, checkpoint: Checkpoint, root: Path) -> MultistageConfig:
    """The preset, or what suits run and pictures, with the options and --set: each of them counts, or is refused."""
    changes = parse_changes(options.changes, MultistageConfig.preset(options.preset or "voc-gpu").settings())
    for option, name in SETTINGS.items():
        given = getattr(options, option)
        if given is not None and changes.setdefault(name, given) != given:
            raise UserError(f"--{option}, --set {name}: expected one of the two, got {given!r} and {changes[name]!r}")
    changes.setdefault("seed_map", "decoder" if "decoder" in checkpoint.learnt else "cam")
    # Settings between the networks first: on the walk depends what the preset is.
    stages = {name: value for name, value in changes.items() if "." not in name}
    trainings = {name: value for name, value in changes.items() if "." in name}
    if options.preset is None:
        dataset = VocDataset(root, stages.pop("split", None) or _split_of(checkpoint, root))
        config = MultistageConfig.of_run(checkpoint.config, dataset, seed=options.seed, **stages)
    else:
        config = MultistageConfig.preset(options.preset, seed=options.seed, **stages)
    config = config.with_settings(trainings)
    for name, reason in config.unused().items():
        if name in changes:
            raise UserError(f"--set {name}: expected a setting that changes something, got one that does not: {reason}")
    return config


def _split_of(checkpoint: Checkpoint, root: Path) -> str:
    """The pictures that get pseudo masks where nobody says which: those of the run if they are there, else of train."""
    try:
        return VocDataset(root, checkpoint.config.split).split
    except UserError:
        return "train"


def _multistage_command(options: argparse.Namespace, config: MultistageConfig) -> str:
    """The command, without the paths of this machine: the checkpoint by its name, the data set not at all."""
    words = ["rsepm-edu", "multistage", options.checkpoint.name]
    words += [] if options.preset is None else ["--preset", options.preset]
    words += ["--out", "OUT"]
    settings = config.settings()
    for option, name in SETTINGS.items():
        if option not in SWITCHES and settings[name] is not None:
            words += [f"--{option}", str(settings[name])]
    words += [f"--{name}" if settings[name] else f"--no-{name}" for name in SWITCHES]
    words += ["--seed", str(options.seed)]
    for option in ("score", "evaluate"):
        value = getattr(options, option)
        words += [] if value is None else [f"--{option}", value]
    for change in options.changes:
        name = change.partition("=")[0]
        words += [] if name in SETTINGS.values() or name.endswith("weights") else ["--set", change]
    return shlex.join(words)
