"""rsepm-edu train: from pictures with tags to a checkpoint."""

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path

from rsepm_edu.cli.options import add_changes, add_common, expect_folder, parse_changes, shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.processes import World, joined
from rsepm_edu.training.config import PRESETS, TrainConfig, preset
from rsepm_edu.training.described import settings_text
from rsepm_edu.training.estimate import estimate
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.loop import Trainer, train, training_dataset
from rsepm_edu.training.memory import memory_advice
from rsepm_edu.training.progress import expect_method_reached


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    names = ", ".join(PRESETS)
    settings = ", ".join(field.name for field in fields(TrainConfig))
    parser.description = (
        "Trains on the pictures and tags of a folder in VOC's layout. Nothing that is learnt sees a mask; only the "
        "panels show the truth, where there is one. Before it starts it says what the run will take, memory and time, "
        "from two steps of each phase (not with --quiet)."
    )
    parser.epilog = f"settings for --set: {settings} (explained by rsepm-edu settings)"
    parser.add_argument("--preset", required=True, help=f"settings to start from: {names}")
    parser.add_argument("--root", type=Path, help="VOC devkit (holds JPEGImages); default for creatures-cpu: Creatures")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, logs and pictures")
    add_changes(parser, "--set epochs=40 --set seed=1")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        choices=("auto",),
        help="go on from the newest whole last.pt in OUT or COPY_TO, bit for bit on the CPU; auto: if there is one",
    )
    parser.add_argument("--copy-to", type=Path, help="a second folder for every checkpoint, such as a mounted drive")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the settings and what the run would take, write nothing, and stop"
    )
    add_common(parser)
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    with joined(options.device) as world:
        with world.report_once():
            expect_folder("--out", options.out)
            if options.copy_to is not None:
                expect_folder("--copy-to", options.copy_to)
            config = preset(options.preset, **parse_changes(options.changes, TrainConfig().to_dict()))
            root = options.root
            if root is None:
                if config.backbone != "creatures":
                    raise UserError(f"--root: expected the folder of the data for preset {options.preset}, got none")
                root = ensure_creatures()
        if options.dry_run:
            _try(config, root, world)
            return
        train(
            config,
            root,
            options.out,
            resume=options.resume,
            copy_to=options.copy_to,
            device=options.device,
            progress=shows_bars(options),
            on_start=None if options.quiet else _tell,
        )
        if world.is_main:
            print(options.out / LAST)


def _try(config: TrainConfig, root: Path, world: World) -> None:
    """All that train does before its first step, and the estimate; nothing is written."""
    with world.report_once():
        expect_method_reached(config)
        dataset = training_dataset(config, root)
    trainer = Trainer(config, dataset.classes, world.device, world)
    if world.is_main:
        print(settings_text(config))
        with memory_advice(config, Path(os.devnull)):
            print("\n".join(estimate(trainer, dataset).lines()))


def _tell(trainer: Trainer, dataset: VocDataset) -> None:
    """What the run will take; beside the progress bars, so that the output stays the checkpoint's path."""
    for line in estimate(trainer, dataset).lines():
        print(line, file=sys.stderr, flush=True)
