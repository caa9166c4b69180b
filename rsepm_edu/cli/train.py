"""rsepm-edu train: from pictures with tags to a checkpoint."""

import argparse
import os
from pathlib import Path

from rsepm_edu.cli.options import expect_folder, parse_changes, shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.processes import World, joined
from rsepm_edu.training.config import TrainConfig, preset
from rsepm_edu.training.described import settings_text
from rsepm_edu.training.estimate import estimate
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.loop import Trainer, train, training_dataset
from rsepm_edu.training.map_scores import store_map_scores
from rsepm_edu.training.memory import memory_advice
from rsepm_edu.training.progress import expect_method_reached
from rsepm_edu.training.report import LOGGER


def run(options: argparse.Namespace) -> None:
    """Train, or with --dry-run say what that would take."""
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
            store_map_scores(options.out, root, world.device, progress=shows_bars(options))
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
    """What the run will take; told as the epochs are, so that the output stays the checkpoint's path."""
    for line in estimate(trainer, dataset).lines():
        LOGGER.info(line)
