"""Why ClassMix is above EPM on Creatures: EPM with one thing changed at a time.

    python data_scripts/make_results.py creatures-mixings --seeds 0      # first: trains the networks to start from
    python data_scripts/try_edgepredict.py --seeds 0 --out results/creatures_mixings/why

All runs start from RS of make_results.py at the epoch where mixing begins, and have the settings of creatures-cpu.
Scored as there: 300 pictures of train. A stopped script resumes.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from make_results import make_experiment
from readings import mix_with
from run_logs import merge_logs

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.files import atomic_write_text
from rsepm_edu.methods.mixing import Mixed
from rsepm_edu.training.experiments import Experiment, branch_point, train_branch
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.mixings import MIXINGS


def mix_at(certain: float, uncertain: float) -> Callable[..., Mixed]:
    """EPM with thresholds of its own, whatever those of RecurSeed are."""

    def mix(*args: Any, **settings: Any) -> Mixed:
        return mix_with(*args, **settings | {"certain": certain, "uncertain": uncertain})

    return mix


CHANGES: dict[str, tuple[str, Callable[..., Mixed]]] = {
    "half": ("half of the classes pasted", partial(mix_with, half=True)),
    "t55_10": ("CF at 0.10 / 0.55", mix_at(0.55, 0.10)),
    "t55_20": ("CF at 0.20 / 0.55", mix_at(0.55, 0.20)),
    "t55_40": ("CF at 0.40 / 0.55", mix_at(0.55, 0.40)),
    "t50_50": ("no void: CF at 0.50", mix_at(0.50, 0.499)),
}
"""By folder of its runs: what is changed, and EPM so changed."""


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--changes", nargs="+", choices=tuple(CHANGES), default=list(CHANGES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--networks", type=Path, default=Path("runs/results/creatures"), help="of make_results.py")
    parser.add_argument("--runs", type=Path, default=Path("runs/results/try_edgepredict"), help="checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    try:
        for seed in options.seeds:
            experiment = make_experiment("creatures", seed, progress=sys.stderr.isatty())
            for change in options.changes:
                rows += rows_of(experiment, change, options.networks / f"seed_{seed}" / "rs", options.runs)
                write(rows, experiment, options)
                print(tables.text(rows), flush=True)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def rows_of(experiment: Experiment, change: str, parent: Path, runs: Path) -> list[Row]:
    """Train and score EPM with that change, unless that is done."""
    name, mix = CHANGES[change]
    out = runs / f"{change}_{experiment.config.seed}"
    kept = out / "rows.json"
    if not kept.is_file():
        start = branch_point(parent, experiment.config.mix_start)
        for path in (parent / LAST, start):
            if not path.is_file():
                raise UserError(f"--networks: expected {path}, of make_results.py creatures, got no such file")
            (out / "rs").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / "rs" / path.name)
        with patch.dict(MIXINGS, {"epm": MIXINGS["epm"]._replace(mix=mix)}):
            network = train_branch(experiment, out, ("rs", "epm"), progress=experiment.progress).build_network()
        found = experiment.rows(network, "rs", "epm")
        atomic_write_text(
            kept, tables.to_json([replace(row, method=row.method.replace("EPM", f"EPM, {name}")) for row in found])
        )
    return tables.read_rows(kept)


def write(rows: list[Row], experiment: Experiment, options: argparse.Namespace) -> None:
    """Write the folder of the results with one log of all runs."""
    logs = sorted(options.runs.glob("*/rs+epm/log.jsonl"))
    log = merge_logs(options.runs, logs, options.runs / "all.jsonl")
    words = ["python", f"data_scripts/{Path(__file__).name}", "--changes", *options.changes]
    words += ["--seeds", *map(str, options.seeds), "--threads", str(options.threads), "--out", str(options.out)]
    settings = asdict(experiment.config) | {"seed": options.seeds}
    tables.write_results(options.out, rows, command=shlex.join(words), config=settings, log=log)


if __name__ == "__main__":
    raise SystemExit(main())
