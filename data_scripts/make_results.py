"""Regenerate a table of results/: train every row, score it, and write it with its command, settings and log."""

import argparse
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from run_logs import merge_logs

from rsepm_edu.cli.options import shows_bars
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.inference import NEAR_SCALES
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.training.config import TrainConfig, method_name, preset
from rsepm_edu.training.experiments import ABLATION, EVERY_MIXING, PUZZLE, Branch, Experiment, ablation

VOC_SAMPLE, WEIGHTS = "RSEPM_EDU_VOC_SAMPLE", "RSEPM_EDU_WEIGHTS"
TABLES: dict[str, tuple[str, tuple[Branch, ...]]] = {
    "creatures": ("creatures", ABLATION),
    "creatures-puzzle": ("creatures", PUZZLE),
    "creatures-mixings": ("creatures", EVERY_MIXING),
    "voc-sample": ("voc-sample", ABLATION),
    "voc-sample-gpu": ("voc-sample-gpu", ABLATION),
    "voc-sample-gpu-mixings": ("voc-sample-gpu", EVERY_MIXING),
    "voc-sample-puzzle": ("voc-sample", PUZZLE),
}
"""By name: the data set, whose runs are shared by all its tables, and what is trained and scored on it."""
VOC_6 = ("cat", "cow", "dog", "horse", "person", "sheep")


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=tuple(TABLES), help="which table")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2; for voc-sample, hours on a CPU, 0 alone")
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="checkpoints; a stopped run goes on")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data, branches = TABLES[options.name]
    seeds = options.seeds or ([0] if data == "voc-sample" else [0, 1, 2])
    try:
        rows: list[Row] = []
        for seed in seeds:
            experiment = make_experiment(data, seed, progress=shows_bars(options))
            runs = options.runs / data / f"seed_{seed}"
            rows += ablation(experiment, runs, branches, progress=shows_bars(options))
            print(tables.text(rows), flush=True)
            write(options.name, rows, experiment.config, seeds, options)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def make_experiment(data: str, seed: int, *, progress: bool) -> Experiment:
    """The settings behind the tables of a data set."""
    if data == "creatures":
        config = preset("creatures-cpu", seed=seed)
        return Experiment(config, ensure_creatures(), scales=NEAR_SCALES, pictures=300, progress=progress)
    name = "voc-sample-gpu" if data == "voc-sample-gpu" else "voc-sample-cpu"
    config = preset(name, seed=seed, weights=from_environment(WEIGHTS))
    root = Path(from_environment(VOC_SAMPLE))
    # Without the published scale 2.0: half of the time, and these photographs are small already (short side 224).
    return Experiment(config, root, classes=VOC_6, scales=(1.0, 0.5, 1.5), progress=progress)


def from_environment(name: str) -> str:
    """The value of a variable.

    Raises:
        UserError: it is not set.
    """
    if name not in os.environ:
        raise UserError(f"{name}: expected this environment variable to name a path, got none")
    return os.environ[name]


def write(name: str, rows: list[Row], config: TrainConfig, seeds: list[int], options: argparse.Namespace) -> None:
    """Write results/<name> with one log of all runs."""
    data, branches = TABLES[name]
    runs: Path = options.runs / data
    logs = [
        path
        for seed in seeds
        for run in (method_name(method, mixing) for method, mixing in branches)
        if (path := runs / f"seed_{seed}" / run / "log.jsonl").is_file()
    ]
    log = merge_logs(runs, logs, runs / f"{name}.jsonl")
    command = ["python", "data_scripts/make_results.py", name, "--seeds", *map(str, seeds)]
    command += ["--threads", str(options.threads)]
    settings = asdict(config) | {"seed": seeds, "weights": Path(config.weights).name}
    folder = options.results / name.replace("-", "_")
    tables.write_results(folder, rows, command=shlex.join(command), config=settings, log=log)


if __name__ == "__main__":
    raise SystemExit(main())
