"""What longer training and fewer steps do to IRNet's walk: the RS decoder's seeds of the photographs, seed 0.

    python data_scripts/make_multistage_results.py voc-sample       # first: its seeds, labels and networks are used
    python data_scripts/try_walks.py --threads 1 --out results/voc_sample_multistage/walks.txt

Scored on the masks of the table, at θ chosen by colour and at the oracle's. Nothing was chosen by it.
"""

import argparse
import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from make_multistage_results import TABLES, settings_of

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.files import atomic_write_text
from rsepm_edu.multistage.run import Multistage
from rsepm_edu.training.keeping import LAST

TRIALS = ((3, 91), (3, 32), (20, 256), (20, 32))
"""Epochs of the walk network and steps of the walk; the table has 3 and 256."""


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=Path, default=Path("runs/results/voc-sample"), help="of the single stage")
    parser.add_argument("--runs", type=Path, default=Path("runs/results/voc-sample_multistage"), help="of the table")
    parser.add_argument("--out", type=Path, required=True, help="text file for rows and losses")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table, done = TABLES["voc-sample"], options.runs / "seed_0/rs"
    lines = [f"# {shlex.join(['python', 'data_scripts/try_walks.py', '--threads', str(options.threads)])}"]
    try:
        dataset = VocDataset(options.runs / "VOC2012", "train", masks=True)
        for epochs, steps in TRIALS:
            out = options.runs / "trials" / f"{epochs}_epochs_{steps}_steps"
            for stage in ("1_seeds", "2_labels"):
                shutil.copytree(done / stage, out / stage, dirs_exist_ok=True)
            settings = settings_of(table, 0, "decoder", None, walk="boundary", walk_steps=steps)
            settings = replace(settings, walk=replace(settings.walk, epochs=epochs))
            name = f"RS decoder, {epochs} epochs, {steps} steps"
            run = Multistage(options.networks / "seed_0/rs" / LAST, dataset.devkit, out, settings, name=name)
            rows = run.seed_rows(dataset, classes=table.classes)[-2:]
            log = (out / "3_walk_boundary/log.jsonl").read_text("utf-8").splitlines()
            losses = ", ".join(f"{json.loads(line)['loss']:.3f}" for line in log)
            lines += ["", tables.text(rows).rstrip(), f"loss by epoch: {losses}"]
            atomic_write_text(options.out, "\n".join(lines) + "\n")
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
