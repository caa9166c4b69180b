"""rsepm-edu demo: the whole method on generated pictures, in minutes."""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from rsepm_edu.cli.options import expect_folder, on_device, shows_bars
from rsepm_edu.cli.pictures import plan
from rsepm_edu.cli.segment import segment_all
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.segmenting import Recipe
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.training.checkpoint import load_checkpoint, load_network
from rsepm_edu.training.config import preset
from rsepm_edu.training.experiments import Experiment, full_run
from rsepm_edu.training.keeping import LAST

SHORT = {"epochs": 19, "rs_start": 12, "mix_start": 17}
"""The schedule of the demo: about half of the tables', so that two cores are done within minutes."""


def run(options: argparse.Namespace) -> None:
    """Train, score and draw; what is there already is not done again."""
    started = time.perf_counter()
    root = ensure_creatures()
    out: Path = options.out
    expect_folder("--out", out)
    resume = (out / LAST).is_file()
    config = preset("creatures-cpu", seed=options.seed, **SHORT)
    table = out / "table" / "table.json"
    if resume and table.is_file() and load_checkpoint(out / LAST).epoch >= config.epochs:
        rows = tables.read_rows(table)
        if any(row.seed != config.seed for row in rows):
            raise UserError(f"--seed: expected {rows[0].seed}, of the finished demo in {out}, got {config.seed}")
        _show(rows, out)
        return
    experiment = Experiment(config, root, split="train", pictures=100, choose=25, progress=shows_bars(options))
    rows = full_run(experiment, out, resume=resume, device=options.device, progress=shows_bars(options))
    val = VocDataset(root, "val")
    jobs = plan([val.image_path(name) for name in val.names[:12]], out / "masks", [])
    network = on_device(load_network(out / LAST), options.device)
    segment_all(network, jobs, Recipe("argmax"), progress=shows_bars(options))
    tables.write_results(
        table.parent,
        rows,
        command=f"rsepm-edu demo --seed {config.seed}",
        config=asdict(config),
        log=out / "log.jsonl",
    )
    _show(rows, out)
    print(f"seconds: {time.perf_counter() - started:.0f}")


def _show(rows: list[Row], out: Path) -> None:
    print(tables.text(rows))
    print(f"panels:  {out / 'panels'}")
    print(f"masks:   {out / 'masks'}")
