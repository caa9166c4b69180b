"""rsepm-edu choose: checkpoints and thresholds, chosen from pictures and tags alone."""

import argparse
from pathlib import Path
from typing import Any

from rsepm_edu.cli.options import add_common, add_scales, add_ways, expect_classes, on_device, shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.choosing import PICTURES, choose_thresholds, rank_checkpoints
from rsepm_edu.training.checkpoint import Checkpoint, load_checkpoint, load_network


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Ranks the checkpoints of a run, and chooses each seed's threshold, from pictures and tags alone. "
        "No mask is read."
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="last.pt and others of the same data")
    parser.add_argument("--root", type=Path, help="VOC devkit, no masks needed; default: Creatures")
    parser.add_argument("--split", default="train", help="split to look at (default: train)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="how many of them (default: %(default)s)")
    add_ways(parser)
    add_scales(parser)
    add_common(parser)
    parser.set_defaults(run=_choose)


def _choose(options: argparse.Namespace) -> None:
    if options.pictures < 1:
        raise UserError(f"--pictures: expected at least 1, got {options.pictures}")
    dataset = VocDataset(options.root or ensure_creatures(), options.split)
    seen = {}
    for path in options.checkpoints:
        checkpoint = load_checkpoint(path)
        expect_classes(dataset, checkpoint.classes)
        network = on_device(load_network(path), options.device)
        settings = _seed_settings(checkpoint, options)
        seen[str(path)] = choose_thresholds(
            network, dataset, ways=options.choose, pictures=options.pictures, **settings
        )
    for way in options.choose:
        found = {name: chosen[way] for name, chosen in seen.items()}
        print(f"{way}: checkpoints by the mean of the criterion over seeds, best first")
        for name, mean in rank_checkpoints(found):
            print(f"  {mean:.4f}  {name}")
            for seed, criterion in found[name].items():
                threshold, value = criterion.best()
                print(f"    {value:.4f}  {seed:<13} θ {threshold:.2f}")


def _seed_settings(checkpoint: Checkpoint, options: argparse.Namespace) -> dict[str, Any]:
    """How the seeds of a checkpoint are made, to choose and to score."""
    return {
        "scales": options.scales,
        "decode": "decoder" in checkpoint.learnt,
        "scg_threshold": checkpoint.config.scg_threshold,
        "pamr_stride": checkpoint.config.pamr_stride,
        "progress": shows_bars(options),
    }
