"""Compare the ways to choose thresholds without masks with the oracle, on one network and some pictures.

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

from rsepm_edu.course.networks import CREATURES_CAM, load_lesson_network
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.choosing import CRITERIA, choose_thresholds, thresholds_of
from rsepm_edu.evaluation.inference import SCALES
from rsepm_edu.evaluation.scoring import score_seeds
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.training.checkpoint import load_checkpoint, load_network

VOC_6 = ("cat", "cow", "dog", "horse", "person", "sheep")


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", choices=("creatures", "voc-sample"))
    parser.add_argument("--checkpoint", type=Path, help="a last.pt (default for creatures: the lessons' network)")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--ways", default=",".join(CRITERIA), help="comma separated (default: all)")
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
    command += ["--ways", options.ways, "--threads", str(options.threads)]
    command += ["--checkpoint", options.checkpoint.name] if options.checkpoint else []
    folder = options.results / (options.name or options.data.replace("-", "_"))
    tables.write_results(folder, rows, command=shlex.join(command), config=config, log=None)
    print(lost(rows))
    return 0


def compare(options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Rows at oracle θ and at the θ of every way, and what they were made with."""
    voc = options.data == "voc-sample"
    if voc and "RSEPM_EDU_VOC_SAMPLE" not in os.environ:
        raise UserError("RSEPM_EDU_VOC_SAMPLE: expected this environment variable to name a path, got none")
    dataset = VocDataset(os.environ["RSEPM_EDU_VOC_SAMPLE"] if voc else ensure_creatures(), "train", masks=True)
    count = min(options.pictures, len(dataset))
    picked = [position * len(dataset) // count for position in range(count)]
    dataset.names, dataset.tags = [dataset.names[index] for index in picked], dataset.tags[picked]
    # Scale 2.0 is left out on the photographs, as in make_results.py.
    settings: dict[str, Any] = {"scales": (1.0, 0.5, 1.5) if voc else SCALES, "progress": not options.quiet}
    if options.checkpoint is None:
        if voc:
            raise UserError("--checkpoint: expected a network trained on the photographs, got none")
        network, made_of, seed = load_lesson_network(), {"network": CREATURES_CAM}, 0
        settings["decode"] = False
    else:
        config = load_checkpoint(options.checkpoint).config
        network, made_of, seed = load_network(options.checkpoint), asdict(config) | {"weights": ""}, config.seed
        settings |= {"scg_threshold": config.scg_threshold, "pamr_stride": config.pamr_stride}
        settings["decode"] = "decoder" in network.learnt
    network = network.to(memory_format=torch.channels_last)
    ways = tuple(options.ways.split(","))
    chosen = choose_thresholds(network, dataset, ways=ways, pictures=len(dataset), **settings)
    scores = score_seeds(network, dataset, **settings)
    rows = scores.rows(seed=seed, chosen=thresholds_of(chosen), classes=VOC_6 if voc else None)
    return rows, made_of | {"pictures": len(dataset), "scales": settings["scales"]}


def lost(rows: list[Row]) -> str:
    """A Markdown table: a line for each map, the oracle's θ and mIoU, and each way's θ and the points it loses."""
    by_map: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_map.setdefault(row.method, {})[row.choice] = row
    ways = [way for way in next(iter(by_map.values())) if way != tables.ORACLE]
    lines = [f"| map | oracle | {' | '.join(ways)} |", f"|---|---|{'---|' * len(ways)}"]
    for name, found in by_map.items():
        if tables.ORACLE in found:
            best = found[tables.ORACLE]
            cells = [f"θ {best.threshold:.2f}: {best.miou:.1f}"]
            cells += [f"θ {found[way].threshold:.2f}: {found[way].miou - best.miou:+.1f}" for way in ways]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
