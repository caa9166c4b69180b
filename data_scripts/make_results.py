"""Regenerate a table of results/: train every row, score it, and write it with its command, settings and log."""

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.files import atomic_write_text
from rsepm_edu.training.config import TrainConfig, preset
from rsepm_edu.training.experiments import Experiment, ablation

VOC_SAMPLE, WEIGHTS = "RSEPM_EDU_VOC_SAMPLE", "RSEPM_EDU_WEIGHTS"
VOC_6 = ("cat", "cow", "dog", "horse", "person", "sheep")


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("creatures", "voc-sample"), help="which table")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2 for creatures, 0 for voc-sample")
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="checkpoints; a stopped run goes on")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the table goes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seeds = options.seeds or ([0, 1, 2] if options.name == "creatures" else [0])
    try:
        rows: list[Row] = []
        for seed in seeds:
            experiment = make_experiment(options.name, seed, progress=not options.quiet)
            runs = options.runs / options.name / f"seed_{seed}"
            rows += ablation(experiment, runs, progress=not options.quiet)
            print(tables.text(rows), flush=True)
            write(options.name, rows, experiment.config, seeds, options)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def make_experiment(name: str, seed: int, *, progress: bool) -> Experiment:
    """The settings behind a table."""
    if name == "creatures":
        return Experiment(preset("creatures-cpu", seed=seed), ensure_creatures(), pictures=300, progress=progress)
    config = preset("voc-sample-cpu", seed=seed, weights=from_environment(WEIGHTS))
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
    runs: Path = options.runs / name
    lines = [
        json.dumps({"run": str(path.parent.relative_to(runs)), **json.loads(line)})
        for path in sorted(runs.glob("seed_*/*/log.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]
    log = runs / "log.jsonl"
    atomic_write_text(log, "".join(f"{line}\n" for line in lines))
    command = ["python", "data_scripts/make_results.py", name, "--seeds", *map(str, seeds)]
    command += ["--threads", str(options.threads)]
    settings = asdict(config) | {"seed": seeds, "weights": Path(config.weights).name}
    folder = options.results / name.replace("-", "_")
    tables.write_results(folder, rows, command=shlex.join(command), config=settings, log=log)


if __name__ == "__main__":
    raise SystemExit(main())
