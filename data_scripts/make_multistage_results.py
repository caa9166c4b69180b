"""Regenerate results/<data>_multistage: what random walks, a dense CRF and a DeepLab make of finished networks.

    python data_scripts/make_results.py creatures --seeds 0 1 2     # first: trains the single-stage networks
    python data_scripts/make_multistage_results.py creatures --seeds 0 1 2

Creatures: for each seed the networks of runs/results/creatures/seed_N/{cam,rs+epm} give seeds; both walks, the CRF
after each, and DeepLabv3+ after IRNet's walk and the CRF. Photographs (table voc-sample-gpu first): the networks of
voc-sample-gpu/seed_N/{cam,rs,rs+epm} on every fourth picture of train; IRNet's walk, the CRF, no last stage (see
make_held_out_results.py). A stopped run goes on.
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from make_results import VOC_6
from photograph_lists import sample_names, sample_with_lists
from run_logs import merge_logs

from rsepm_edu.cli.options import shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.metrics import scores
from rsepm_edu.evaluation.scoring import segmentation_confusion
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.multistage.config import MultistageConfig, Walk
from rsepm_edu.multistage.run import Multistage
from rsepm_edu.multistage.stages import SeedMap
from rsepm_edu.training.checkpoint import load_network
from rsepm_edu.training.keeping import LAST

PICTURES = 200  # of Creatures, the first of the training pictures: six CPU minutes a seed
EVERY = 4  # of the photographs with masks, these: ten minutes or so on one core for each network
WALK_EPOCHS = 25  # of the boundary network on these 110 photographs: 175 steps


@dataclass(frozen=True)
class Table:
    """What a table holds.

    preset: of all stages. sources: folder of a network, name of its seeds in the table, which of its maps they are.
    walks: each gives rows. segmenter: whether a DeepLab follows IRNet's walk. classes: of the means; None: all.
    """

    preset: str
    sources: tuple[tuple[str, str, SeedMap], ...]
    walks: tuple[Walk, ...]
    segmenter: bool
    classes: tuple[str, ...] | None = None


CAM: tuple[str, str, SeedMap] = ("cam", "CAM", "cam")
EPM: tuple[str, str, SeedMap] = ("rs+epm", "RS + EPM decoder", "decoder")
RS: tuple[str, str, SeedMap] = ("rs", "RS decoder", "decoder")
TABLES = {
    "creatures": Table("creatures-cpu", (CAM, EPM), ("none", "affinity", "boundary"), segmenter=True),
    "voc-sample-gpu": Table("voc-sample-cpu", (CAM, RS, EPM), ("none", "boundary"), segmenter=False, classes=VOC_6),
}


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", choices=tuple(TABLES), help="which table")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the networks (default: as make_results.py)")
    parser.add_argument("--networks", type=Path, help="where these lie (default: runs/results/DATA)")
    parser.add_argument("--runs", type=Path, help="stages' files (default: runs/results/DATA_multistage)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--threshold", type=float, help="fixed background score (default: chosen without masks)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.seeds = options.seeds or ([0, 1, 2] if options.data == "creatures" else [0])
    options.networks = options.networks or Path("runs/results") / options.data
    options.runs = options.runs or Path("runs/results") / f"{options.data}_multistage"
    table = TABLES[options.data]
    try:
        creatures = options.data == "creatures"
        if creatures:
            root = ensure_creatures(train=PICTURES)
        else:
            root = sample_with_lists(options.runs / "VOC2012", train=sample_names("train")[::EVERY])
        rows: list[Row] = []
        for seed in options.seeds:
            for folder, name, seed_map in table.sources:
                checkpoint = options.networks / f"seed_{seed}" / folder / LAST
                settings = partial(settings_of, table, seed, seed_map, options.threshold)
                out = options.runs / f"seed_{seed}" / folder
                rows += rows_of(table, checkpoint, name, settings, root, out, progress=shows_bars(options))
                write(rows, settings(), options)
            if table.segmenter:
                rows.append(single_stage_row(seed, root, options))
                write(rows, settings(), options)
            print(tables.text([row for row in rows if row.seed == seed]), flush=True)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def settings_of(table: Table, seed: int, seed_map: SeedMap, fixed: float | None, **stages: Any) -> MultistageConfig:
    """The settings behind a table; ``fixed`` is the threshold of the rows that need no masks, None: by colour."""
    # Only the pictures that are scored: their tags are enough for all that is trained here.
    changes = {"split": "train", "seed_map": seed_map, "threshold": fixed, "skip": False}
    config = MultistageConfig.preset(table.preset, seed=seed, **{**changes, **stages})
    return config if table.segmenter else replace(config, walk=replace(config.walk, epochs=WALK_EPOCHS))


def rows_of(
    table: Table,
    checkpoint: Path,
    name: str,
    settings: Callable[..., MultistageConfig],
    root: Path,
    out: Path,
    *,
    progress: bool,
) -> list[Row]:
    """Rows of one network: each map at θ without masks and at its oracle θ, each after the CRF, then the segmenter.

    A CRF at an oracle threshold has the one that is best before the CRF: to try all would take sixteen CRFs.
    """
    dataset = VocDataset(root, "train", masks=True)

    def run(**stages: Any) -> Multistage:
        return Multistage(checkpoint, root, out, settings(**stages), name=name, progress=progress)

    maps: list[Row] = []
    refined: list[Row] = []
    for walk in table.walks:
        plain = run(walk=walk)
        without, oracle = plain.seed_rows(dataset, classes=table.classes)[-2:]
        maps += [without, oracle]
        refined.append(plain.mask_row(dataset, classes=table.classes))
        best = run(walk=walk, threshold=oracle.threshold)
        refined.append(best.mask_row(dataset, oracle=True, classes=table.classes))
    if not table.segmenter:
        return [*maps, *refined]
    last = run(walk="boundary")
    final = [last.final_row("train", tags_given=True), last.final_row("val"), last.final_row("val", crf=True)]
    return [*maps, *refined, *final]


def single_stage_row(seed: int, root: Path, options: argparse.Namespace) -> Row:
    """What the last rows of RS + EPM are to be compared with: its own segmentation, without a second stage."""
    network = load_network(options.networks / f"seed_{seed}" / "rs+epm" / LAST)
    dataset = VocDataset(root, "val", masks=True)
    scales = settings_of(TABLES[options.data], seed, "decoder", None).stages.final_scales  # as of the last stage
    confusion = segmentation_confusion(network, dataset, scales=scales, progress=shows_bars(options))
    result = scores(confusion, dataset.classes)
    return Row.from_scores("RS + EPM alone (val, no tags)", result, threshold=None, oracle=False, seed=seed)


def write(rows: list[Row], config: MultistageConfig, options: argparse.Namespace) -> None:
    """Write results/<data>_multistage with one log of all trainings."""
    log = merge_logs(options.runs, sorted(options.runs.glob("seed_*/*/*/log.jsonl")), options.runs / "log.jsonl")
    command = ["python", f"data_scripts/{Path(__file__).name}", options.data, "--seeds", *map(str, options.seeds)]
    command += [] if options.threshold is None else ["--threshold", str(options.threshold)]
    command += ["--threads", str(options.threads)]
    settings = config.to_dict() | {"seeds": options.seeds}
    settings |= {"pictures": PICTURES} if options.data == "creatures" else {"every": EVERY}
    folder = options.results / f"{options.data.replace('-', '_')}_multistage"
    tables.write_results(folder, rows, command=shlex.join(command), config=settings, log=log)


if __name__ == "__main__":
    raise SystemExit(main())
