"""rsepm-edu choose: checkpoints and thresholds, chosen from pictures and tags alone."""

import argparse
from pathlib import Path

from rsepm_edu.cli.options import add_common, add_criteria, add_scales, expect_classes, on_device, shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.choosing import PICTURES, choose_thresholds, rank_checkpoints
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.seed_options import seed_options_of


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
    add_criteria(parser)
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
        network = on_device(checkpoint.build_network(), options.device)
        seen[str(path)] = choose_thresholds(
            network,
            dataset,
            seed_options_of(checkpoint.config, checkpoint.learnt, scales=options.scales),
            criteria=options.choose,
            pictures=options.pictures,
            progress=shows_bars(options),
        )
    for criterion in options.choose:
        found = {name: chosen[criterion] for name, chosen in seen.items()}
        print(f"{criterion}: checkpoints by the mean of the criterion over seeds, best first")
        for name, mean in rank_checkpoints(found):
            print(f"  {mean:.4f}  {name}")
            for seed, values in found[name].items():
                threshold, value = values.best()
                print(f"    {value:.4f}  {seed:<13} θ {threshold:.2f}")
