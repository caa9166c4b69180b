"""rsepm-edu demo: the whole method on generated pictures, in minutes."""

import argparse
import json
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
from rsepm_edu.evaluation.inference import NEAR_SCALES
from rsepm_edu.evaluation.metrics import scores
from rsepm_edu.evaluation.scoring import segmentation_confusion
from rsepm_edu.evaluation.segmenting import Recipe
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.files import atomic_path, atomic_write_text, read_bytes
from rsepm_edu.training.checkpoint import load_checkpoint, load_network
from rsepm_edu.training.config import preset
from rsepm_edu.training.experiments import Experiment, full_run
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.map_scores import store_map_scores
from rsepm_edu.training.method_picture import method_picture

TRAIN, VAL = 500, 100
SHORT = {"epochs": 20, "rs_start": 14, "mix_start": 18}
"""Half of the tables' pictures and fewer epochs of mixing, so that two idle cores are done in about five minutes."""

PLAIN_WORDS = {
    "CAM": "tags alone: class activation maps (CAM)",
    "CAM + PAMR": "the same, sharpened along colours (CAM + PAMR)",
    "RS (decoder, arg-max)": "RecurSeed (RS), its own mask",
    "RS + EPM (decoder, arg-max)": "RecurSeed and EdgePredictMix (RS + EPM), its own mask",
}
"""Rows of the short table: maps at the θ that the masks say is best, networks' own masks with none to choose."""


def run(options: argparse.Namespace) -> None:
    """Train, score and draw; what is there already is not done again."""
    started = time.perf_counter()
    root = ensure_creatures(train=TRAIN, val=VAL)
    out: Path = options.out
    expect_folder("--out", out)
    resume = (out / LAST).is_file()
    config = preset("creatures-cpu", seed=options.seed, **SHORT)
    table = out / "table" / "table.json"
    if resume and table.is_file() and load_checkpoint(out / LAST).epoch >= config.epochs:
        rows = tables.read_rows(table)
        if any(row.seed != config.seed for row in rows):
            raise UserError(f"--seed: expected {rows[0].seed}, of the finished demo in {out}, got {config.seed}")
        _show(rows, out, full=options.full)
        return
    bars = shows_bars(options)
    experiment = Experiment(config, root, split="train", scales=NEAR_SCALES, pictures=60, choose=15, progress=bars)
    rows = full_run(experiment, out, resume=resume, device=options.device, progress=bars)
    network = load_network(out / LAST)
    val = VocDataset(root, "val", masks=True)
    with atomic_path(out / "method.png") as temporary:
        method_picture(network, config, val, range(min(8, len(val)))).savefig(temporary, dpi=160, format="png")
    network = on_device(network, options.device)
    store_map_scores(out, root, next(network.parameters()).device, progress=bars)
    confusion = segmentation_confusion(network, val, scales=NEAR_SCALES, progress=bars)
    seen = scores(confusion, val.classes)
    atomic_write_text(out / "val.json", json.dumps({"miou": 100 * seen.miou, "fp": seen.fp, "fn": seen.fn}) + "\n")
    jobs = plan([val.image_path(name) for name in val.names[:12]], out / "masks", [])
    segment_all(network, jobs, Recipe("argmax"), progress=bars, scales=NEAR_SCALES)
    tables.write_results(
        table.parent,
        rows,
        command=f"rsepm-edu demo --seed {config.seed}",
        config=asdict(config),
        log=out / "log.jsonl",
    )
    _show(rows, out, full=options.full)
    print(f"seconds: {time.perf_counter() - started:.0f}")


def _show(rows: list[Row], out: Path, *, full: bool) -> None:
    if full:
        print(tables.text(rows))
    body = []
    for method, words in PLAIN_WORDS.items():
        row = next(row for row in rows if row.method == method and row.choice in (tables.ORACLE, tables.NONE))
        body.append((words, f"{row.miou:.1f}", f"{row.fp:.2f}", f"{row.fn:.2f}"))
    seen = json.loads(read_bytes(out / "val.json", "scores of the demo"))
    body.append(
        ("the last on new pictures, no tags told", f"{seen['miou']:.1f}", f"{seen['fp']:.2f}", f"{seen['fn']:.2f}")
    )
    print(tables.text_table(("learnt from tags, judged by masks", "mIoU", "FP", "FN"), body))
    print("mIoU: % of masks and truth that agree. FP: painted too much. FN: missed. Nothing learnt from a mask.")
    print(f"look at: {out / 'method.png'}")
    print(f"panels:  {out / 'panels'}")
    print(f"masks:   {out / 'masks'}")
    print(f"table:   {out / 'table' / 'table.md'}")
