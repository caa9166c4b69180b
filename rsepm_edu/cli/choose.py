"""rsepm-edu choose: checkpoints and thresholds, chosen from pictures and tags alone."""

import argparse

from rsepm_edu.cli.options import expect_classes, on_device, shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.choosing import choose_thresholds, rank_checkpoints
from rsepm_edu.evaluation.inference import usual_scales
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.seed_options import seed_options_of


def run(options: argparse.Namespace) -> None:
    """Rank the checkpoints and print what was chosen."""
    if options.pictures < 1:
        raise UserError(f"--pictures: expected at least 1, got {options.pictures}")
    dataset = VocDataset(options.root or ensure_creatures(), options.split)
    seen = {}
    for path in options.checkpoints:
        checkpoint = load_checkpoint(path)
        expect_classes(dataset, checkpoint.classes)
        network = on_device(checkpoint.build_network(), options.device)
        scales = options.scales or usual_scales(checkpoint.config.backbone)
        seen[str(path)] = choose_thresholds(
            network,
            dataset,
            seed_options_of(checkpoint.config, checkpoint.learnt, scales=scales),
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
