"""Regenerate results/creatures_multistage: what random walks, a dense CRF and a DeepLab make of finished networks.

    python data_scripts/make_results.py creatures --seeds 0 1 2     # first: trains the single-stage networks
    python data_scripts/make_multistage_results.py --seeds 0 1 2

For each seed the networks of runs/results/creatures/seed_N/{cam,rs+epm} give seeds; both walks, the CRF after each, and
DeepLabv3+ after IRNet's walk and the CRF. A stopped run goes on.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.metrics import scores
from rsepm_edu.evaluation.scoring import segmentation_confusion
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.files import atomic_write_text
from rsepm_edu.training.checkpoint import load_network
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.multistage import Multistage, MultistageConfig, Walk
from rsepm_edu.training.stages import SeedMap

PRESET = "creatures-cpu"
PICTURES = 200  # the first of the training pictures: six CPU minutes a seed
SOURCES: tuple[tuple[str, str, SeedMap], ...] = (("cam", "CAM", "cam"), ("rs+epm", "RS + EPM decoder", "decoder"))
"""Folder of the network, name of its seeds in the table, and which of its maps they are."""

WALKS: tuple[Walk, ...] = ("none", "affinity", "boundary")


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the networks (default: 0 1 2)")
    parser.add_argument("--networks", type=Path, default=Path("runs/results/creatures"), help="where these lie")
    parser.add_argument("--runs", type=Path, default=Path("runs/results/creatures_multistage"), help="stages' files")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--threshold", type=float, help="fixed background score (default: by the preset, 0.25)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        root = ensure_creatures(train=PICTURES)
        rows: list[Row] = []
        for seed in options.seeds:
            for folder, name, seed_map in SOURCES:
                checkpoint = options.networks / f"seed_{seed}" / folder / LAST
                out = options.runs / f"seed_{seed}" / folder
                rows += rows_of(
                    checkpoint, name, partial(config, seed, seed_map, options.threshold), root, out, options
                )
            rows.append(single_stage_row(seed, root, options))
            print(tables.text([row for row in rows if row.seed == seed]), flush=True)
            write(rows, config(seed, "decoder", options.threshold), options)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def config(seed: int, seed_map: SeedMap, fixed: float | None, **stages: Any) -> MultistageConfig:
    """The settings behind the table; ``fixed`` is the threshold of the rows that need no masks, None: the preset's."""
    changes = {} if fixed is None else {"threshold": fixed}
    return MultistageConfig.preset(PRESET, seed=seed, **{"seed_map": seed_map, **changes, **stages})


def rows_of(
    checkpoint: Path,
    name: str,
    config: Callable[..., MultistageConfig],
    root: Path,
    out: Path,
    options: argparse.Namespace,
) -> list[Row]:
    """Rows of one network: each map at the fixed and at its oracle threshold, each after the CRF, then the segmenter.

    A CRF at an oracle threshold has the one that is best before the CRF: to try all would take sixteen CRFs.
    """
    dataset = VocDataset(root, "train", masks=True)

    def run(**stages: Any) -> Multistage:
        return Multistage(checkpoint, root, out, config(**stages), name=name, progress=not options.quiet)

    maps: list[Row] = []
    refined: list[Row] = []
    for walk in WALKS:
        plain = run(walk=walk)
        fixed, oracle = plain.seed_rows(dataset)[-2:]
        maps += [fixed, oracle]
        refined.append(plain.mask_row(dataset))
        refined.append(run(walk=walk, threshold=oracle.threshold).mask_row(dataset, oracle=True))
    last = run(walk="boundary")
    final = [last.final_row("train", tags_given=True), last.final_row("val"), last.final_row("val", crf=True)]
    return [*maps, *refined, *final]


def single_stage_row(seed: int, root: Path, options: argparse.Namespace) -> Row:
    """What the last rows of RS + EPM are to be compared with: its own segmentation, without a second stage."""
    network = load_network(options.networks / f"seed_{seed}" / "rs+epm" / LAST)
    dataset = VocDataset(root, "val", masks=True)
    confusion = segmentation_confusion(network, dataset, progress=not options.quiet)
    result = scores(confusion, dataset.classes)
    return Row.from_scores("RS + EPM alone (val, no tags)", result, threshold=None, oracle=False, seed=seed)


def write(rows: list[Row], config: MultistageConfig, options: argparse.Namespace) -> None:
    """Write results/creatures_multistage with one log of all trainings."""
    lines = [
        json.dumps({"run": str(path.parent.relative_to(options.runs)), **json.loads(line)})
        for path in sorted(options.runs.glob("seed_*/*/*/log.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]
    log = options.runs / "log.jsonl"
    atomic_write_text(log, "".join(f"{line}\n" for line in lines))
    command = ["python", f"data_scripts/{Path(__file__).name}", "--seeds", *map(str, options.seeds)]
    command += [] if options.threshold is None else ["--threshold", str(options.threshold)]
    command += ["--threads", str(options.threads)]
    settings = config.to_dict() | {"seeds": options.seeds, "pictures": PICTURES}
    folder = options.results / "creatures_multistage"
    tables.write_results(folder, rows, command=shlex.join(command), config=settings, log=log)


if __name__ == "__main__":
    raise SystemExit(main())
