"""Puzzle-CAM on photographs: what α does, and a beginning after the classifier has learnt.

    python data_scripts/try_puzzle.py --alphas 0 1 2 4 --start 3 --out results/voc_sample_puzzle_alpha
    python data_scripts/try_puzzle.py --data voc-sample --every 2 --masks 110 --set freeze_stages=0 …   on a CPU

With α = 0 the pieces' tags are learnt but not their maps' agreement. All runs have the same settings (--data, --set)
and share their first epochs with classification alone. With --normalised each class's two maps are divided by the
greatest value of the whole picture's before they are compared. Scored: the CAM on masks of train, at θ by colour and at
the oracle's. A stopped script resumes.
"""

import argparse
import shlex
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import patch

import torch
from make_results import make_experiment
from photograph_lists import sample_names, sample_with_lists
from run_logs import merge_logs
from torch import Tensor

from rsepm_edu.cli.options import parse_changes
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.choosing import spread
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.methods.puzzle import puzzle_loss
from rsepm_edu.training import step
from rsepm_edu.training.config import Method
from rsepm_edu.training.experiments import Experiment, train_branch


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0, 1, 2, 4], help="greatest weights")
    parser.add_argument("--normalised", type=float, nargs="*", default=[], help="α of runs with normalised maps")
    parser.add_argument("--start", type=int, default=3, help="the epoch that Puzzle-CAM begins with (default: 3)")
    parser.add_argument("--data", choices=("voc-sample", "voc-sample-gpu"), default="voc-sample-gpu")
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="NAME=VALUE", help="other settings"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="train on every N-th photograph (default: all)")
    parser.add_argument("--masks", type=int, help="score so many, evenly spread (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs/results/puzzle_alpha"), help="checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        base = make_experiment(options.data, options.seed, progress=sys.stderr.isatty())
        config = replace(base.config, puzzle_start=options.start)
        config = replace(config, **parse_changes(options.changes, config.to_dict()))
        train, scored = sample_names("trainaug")[:: options.every], sample_names("train")
        scored = [scored[index] for index in spread(len(scored), options.masks or len(scored))]
        base = replace(
            base, config=config, root=sample_with_lists(options.runs / "VOC2012", trainaug=train, train=scored)
        )
        rows = cam_rows(base, "CAM", options.runs)
        runs = [(alpha, False) for alpha in options.alphas] + [(alpha, True) for alpha in options.normalised]
        for alpha, normalised in runs:
            out = options.runs / f"alpha_{alpha:g}{'_normalised' if normalised else ''}"
            if options.start and not (out / "cam").exists():
                shutil.copytree(options.runs / "cam", out / "cam")
            later = replace(base, config=replace(config, method="puzzle", mixing="none", puzzle_alpha=alpha))
            name = f"Puzzle-CAM, α = {alpha:g}{', normalised maps' if normalised else ''}, from epoch {options.start}"
            with patch.object(step, "puzzle_loss", loss_of_normalised_maps if normalised else puzzle_loss):
                rows += cam_rows(later, name, out)
            write(rows, base, options)
            print(tables.text(rows), flush=True)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def loss_of_normalised_maps(cam: Tensor, merged_cam: Tensor, tags: Tensor) -> Tensor:
    """``puzzle_loss`` in units of the greatest score of the whole picture's map, no gradient into the unit."""
    unit = cam.detach().amax(dim=(2, 3), keepdim=True).clamp(min=1)
    return puzzle_loss(cam / unit, merged_cam / unit, tags)


def cam_rows(experiment: Experiment, name: str, out: Path) -> list[Row]:
    """Train, unless that is done, and score the CAM without what SCG and PAMR make of it."""
    method: Method = "puzzle" if experiment.config.method == "puzzle" else "cam"
    network = train_branch(experiment, out, (method, "none"), progress=experiment.progress).build_network()
    rows = experiment.rows(network, method)
    return [replace(row, method=name) for row in rows if row.method in ("CAM", "Puzzle-CAM")]


def write(rows: list[Row], experiment: Experiment, options: argparse.Namespace) -> None:
    """Write the folder of the results with one log of all runs."""
    log = merge_logs(
        options.runs,
        [options.runs / "cam/log.jsonl", *sorted(options.runs.glob("alpha_*/puzzle/log.jsonl"))],
        options.runs / "all.jsonl",
    )
    settings = asdict(experiment.config) | {"weights": Path(experiment.config.weights).name}
    words = ["python", f"data_scripts/{Path(__file__).name}", "--alphas", *(f"{alpha:g}" for alpha in options.alphas)]
    words += ["--normalised", *(f"{alpha:g}" for alpha in options.normalised)] if options.normalised else []
    words += ["--data", options.data, "--start", str(options.start)]
    for change in options.changes:
        words += ["--set", change]
    words += ["--seed", str(options.seed), "--every", str(options.every), "--threads", str(options.threads)]
    words += [] if options.masks is None else ["--masks", str(options.masks)]
    tables.write_results(options.out, rows, command=shlex.join(words), config=settings, log=log)


if __name__ == "__main__":
    raise SystemExit(main())
