"""Compare the criteria that choose thresholds without masks with the oracle, on one network and some pictures.

    python data_scripts/compare_choices.py creatures
    python data_scripts/compare_choices.py voc-sample --checkpoint runs/results/voc-sample/seed_0/cam/last.pt

The same pictures, spread over ``train``, serve to choose (masks closed) and to score (masks open).
"""

import argparse
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rsepm_edu.cli.options import shows_bars
from rsepm_edu.course.networks import CREATURES_CAM, load_lesson_network
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.choosing import CRITERIA, choose_thresholds, thresholds_of
from rsepm_edu.evaluation.inference import NEAR_SCALES
from rsepm_edu.evaluation.scoring import score_seeds
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.seed_options import seed_options_of

VOC_6 = ("cat", "cow", "dog", "horse", "person", "sheep")


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", choices=("creatures", "voc-sample"))
    parser.add_argument("--checkpoint", type=Path, help="a last.pt (default for creatures: the lessons' network)")
    parser.add_argument("--pictures", type=int, default=100)
    # --ways: as the commands of results/choices have it.
    parser.add_argument("--criteria", "--ways", default=",".join(CRITERIA), help="comma separated (default: all)")
    parser.add_argument("--name", help="folder below --results (default: the data's name)")
    parser.add_argument("--results", type=Path, default=Path("results/choices"), help="where the table goes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        rows, config = compare(options)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    command = ["python", "data_scripts/compare_choices.py", options.data, "--pictures", str(options.pictures)]
    command += ["--criteria", options.criteria, "--threads", str(options.threads)]
    command += ["--checkpoint", options.checkpoint.name] if options.checkpoint else []
    folder = options.results / (options.name or options.data.replace("-", "_"))
    tables.write_results(folder, rows, command=shlex.join(command), config=config, log=None)
    print(lost(rows))
    return 0


def compare(options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Rows at oracle θ and at the θ of every criterion, and what they were made with."""
    voc = options.data == "voc-sample"
    if voc and "RSEPM_EDU_VOC_SAMPLE" not in os.environ:
        raise UserError("RSEPM_EDU_VOC_SAMPLE: expected this environment variable to name a path, got none")
    dataset = VocDataset(os.environ["RSEPM_EDU_VOC_SAMPLE"] if voc else ensure_creatures(), "train", masks=True)
    count = min(options.pictures, len(dataset))
    picked = [position * len(dataset) // count for position in range(count)]
    dataset.names, dataset.tags = [dataset.names[index] for index in picked], dataset.tags[picked]
    # Scale 2.0 is left out on the photographs, as in make_results.py.
    scales = (1.0, 0.5, 1.5) if voc else NEAR_SCALES
    if options.checkpoint is None:
        if voc:
            raise UserError("--checkpoint: expected a network trained on the photographs, got none")
        network, made_of, seed = load_lesson_network(), {"network": CREATURES_CAM}, 0
        maps = SeedOptions(scales, decode=False)
    else:
        checkpoint = load_checkpoint(options.checkpoint)
        network, config = checkpoint.build_network(), checkpoint.config
        made_of, seed = asdict(config) | {"weights": ""}, config.seed
        maps = seed_options_of(config, checkpoint.learnt, scales=scales)
    network = network.to(memory_format=torch.channels_last)
    criteria = tuple(options.criteria.split(","))
    progress = shows_bars(options)
    chosen = choose_thresholds(network, dataset, maps, criteria=criteria, pictures=len(dataset), progress=progress)
    scores = score_seeds(network, dataset, maps, progress=progress)
    rows = scores.rows(seed=seed, chosen=thresholds_of(chosen), classes=VOC_6 if voc else None)
    return rows, made_of | {"pictures": len(dataset), "scales": scales}


def lost(rows: list[Row]) -> str:
    """A Markdown table: a line for each map, the oracle's θ and mIoU, each criterion's θ and the points it loses."""
    by_map: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_map.setdefault(row.method, {})[row.choice] = row
    criteria = [name for name in next(iter(by_map.values())) if name != tables.ORACLE]
    lines = [f"| map | oracle | {' | '.join(criteria)} |", f"|---|---|{'---|' * len(criteria)}"]
    for name, found in by_map.items():
        if tables.ORACLE in found:
            best = found[tables.ORACLE]
            cells = [f"θ {best.threshold:.2f}: {best.miou:.1f}"]
            cells += [
                f"θ {found[criterion].threshold:.2f}: {found[criterion].miou - best.miou:+.1f}"
                for criterion in criteria
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
