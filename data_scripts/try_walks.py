"""What a random walk does to the seeds of photographs, step by step, by either network and either kind of labels.

    python data_scripts/try_walks.py cam/last.pt rs/last.pt --every 4 --threads 1 --out results/voc_sample_walks
    python data_scripts/try_walks.py … --labels published --unscaled --clear-edges …     IRNet's walk as published

For each run the seeds of every N-th picture of train walk 0, 8, … 256 steps (--steps; small photographs are seen
enlarged to the published size) by a network that has learnt from confident labels: at the published 0.30 and 0.05, or
at the seeds' own θ with margins. Rows have θ chosen by colour, the greatest θ that is nearly as good by colour, or the
oracle's; curve.json has the mask-free score too.
"""

import argparse
import json
import shlex
import shutil
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch
from make_results import VOC_6
from photograph_lists import sample_names, sample_with_lists
from run_logs import merge_logs
from torch import Tensor

from rsepm_edu.data.seeds import read_seed
from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.maskfree import ColourInformation
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.evaluation.thresholds import ThresholdSweep
from rsepm_edu.files import atomic_write_text
from rsepm_edu.multistage.config import MultistageConfig
from rsepm_edu.multistage.judging import high_threshold
from rsepm_edu.multistage.reach import PUBLISHED_SIDE, published_view, scaled_walk
from rsepm_edu.multistage.run import WALK_NAMES, Multistage
from rsepm_edu.multistage.stages import SeedMap
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.mixings import MIXINGS

STEPS = (0, 8, 16, 32, 64, 128, 256)
LABELS: dict[str, dict[str, Any]] = {"own": {}, "published": {"foreground": 0.30, "background": 0.05}}
"""Settings of the confident labels: by the seeds' own θ, or as IRNet has them."""


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+", help="of single-stage networks")
    parser.add_argument("--map", choices=get_args(SeedMap), help="default: decoder where one was trained")
    parser.add_argument("--every", type=int, default=1, help="of the pictures of train, take these (default: all)")
    parser.add_argument("--epochs", type=int, default=20, help="of the walk networks (default: 20)")
    parser.add_argument("--walks", nargs="+", default=["boundary", "affinity"], help="networks (default: both)")
    parser.add_argument("--labels", nargs="+", choices=tuple(LABELS), default=list(LABELS), help="default: both")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), help="0 is the seed (default: 0 8 … 256)")
    parser.add_argument("--clear-edges", action="store_true", help="multiply the seed by (1 - edge), as IRNet does")
    parser.add_argument("--unscaled", action="store_true", help="radius 5 and the steps as they are, on any map")
    parser.add_argument("--runs", type=Path, default=Path("runs/results/walks"), help="stages' files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    curves: list[dict[str, Any]] = []
    try:
        root = sample_with_lists(options.runs / "VOC2012", train=sample_names("train")[:: options.every])
        dataset = VocDataset(root, "train", masks=True)
        for path in options.checkpoints:
            checkpoint = load_checkpoint(path)
            seed_map: SeedMap = options.map or ("decoder" if "decoder" in checkpoint.learnt else "cam")
            name = name_of(checkpoint.config, seed_map)
            for labels, walk in product(options.labels, options.walks):
                stages = LABELS[labels] | {"walk": walk, "walk_scaled": not options.unscaled}
                config = settings(seed_map, options.epochs, stages | {"walk_clears_edges": options.clear_edges})
                place = f"{labels}{'_unscaled' if options.unscaled else ''}{'_cleared' if options.clear_edges else ''}"
                out = options.runs / name.replace(" ", "_") / place
                shared = out.parent / next(iter(LABELS)) / "1_seeds"
                if shared.is_dir() and not (out / shared.name).exists():
                    shutil.copytree(shared, out / shared.name)
                run = Multistage(checkpoint, root, out, config, name=name, progress=sys.stderr.isatty())
                found = curve(run, dataset, options.steps)
                rows += [row for _, of_steps in found for row in of_steps]
                curves += [information for information, _ in found]
                write(rows, curves, config, options)
                print(tables.text(rows[-3 * len(options.steps) :]), flush=True)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def name_of(config: TrainConfig, seed_map: SeedMap) -> str:
    """Of a network's seeds in the table: CAM, RS decoder, RS + EPM decoder, Puzzle-CAM."""
    method = {"cam": "", "puzzle": "Puzzle", "rs": "RS"}[config.method]
    if config.mixing != "none":
        method += f" + {MIXINGS[config.mixing].label}"
    return {"cam": f"{method} CAM".strip().replace("Puzzle CAM", "Puzzle-CAM"), "decoder": f"{method} decoder"}[
        seed_map
    ]


def settings(seed_map: SeedMap, epochs: int, stages: dict[str, Any]) -> MultistageConfig:
    """Those of voc-sample-cpu for pictures whose tags are enough, with longer training."""
    config = MultistageConfig.preset("voc-sample-cpu", **{"split": "train", "seed_map": seed_map, **stages})
    return replace(config, walk=replace(config.walk, epochs=epochs))


def curve(run: Multistage, dataset: VocDataset, counts: list[int]) -> list[tuple[dict[str, Any], list[Row]]]:
    """By number of steps: what is known without masks, and the rows."""
    network, seeds, stages = run.walk_network, run.seeds, run.config.stages
    foreground, background = run.label_thresholds
    sweeps = {steps: ThresholdSweep(len(dataset.classes)) for steps in counts}
    colours = {steps: ColourInformation() for steps in counts}
    for index, name in enumerate(dataset.names):
        sample = dataset.sample(index, masks=True)
        image, mask = (sample[key].as_subclass(Tensor)[None] for key in ("image", "mask"))
        present = sample["tags"].nonzero()[:, 0]
        seed = read_seed(seeds / f"{name}.npz")[None][:, present]
        on_device = seed.to(run.device)
        view = normalise(image.to(run.device))
        view = published_view(view) if stages.walk_scaled else view
        evidence = network.evidence(view)
        share = min(view.shape[2:]) / network.stride / (PUBLISHED_SIDE / network.published_stride)
        for steps in counts:
            radius, count = scaled_walk(5, steps, share) if stages.walk_scaled else (5, steps)
            walked = seed
            if steps:
                moved = network.walk_by(
                    evidence,
                    on_device,
                    image.shape[2:],
                    radius=radius,
                    steps=count,
                    clear_edges=stages.walk_clears_edges,
                )
                walked = moved.clamp(min=0).cpu()
                walked = walked * (seed.amax() / walked.amax().clamp(min=1e-6))
            sweeps[steps].update(walked, mask, present)
            colours[steps].update(walked, image)
    found = []
    for steps in counts:
        name = f"{run.name} + {WALK_NAMES[stages.walk]}, labels at {foreground:.2f} / {background:.2f}, {steps} steps"
        best, oracle = sweeps[steps].best(dataset.classes, classes=VOC_6)
        rows = [Row.from_scores(name, oracle, threshold=best, oracle=True, seed=0)]
        threshold, bits = colours[steps].best()
        for choice, chosen in (("colour", threshold), ("colour, high", high_threshold(colours[steps]))):
            scores = sweeps[steps].at(chosen, dataset.classes, classes=VOC_6)
            rows.append(Row.from_scores(name, scores, threshold=chosen, oracle=False, seed=0, choice=choice))
        told = {row.choice: round(row.miou, 2) for row in rows}
        found.append(({"method": name, "steps": steps, "bits": round(bits, 4), "miou": told}, rows))
    return found


def write(rows: list[Row], curves: list[dict[str, Any]], config: MultistageConfig, options: argparse.Namespace) -> None:
    """Write the folder of the results with one log of all walk networks."""
    log = merge_logs(options.runs, sorted(options.runs.glob("*/*/3_*/log.jsonl")), options.runs / "log.jsonl")
    words = [
        "python",
        f"data_scripts/{Path(__file__).name}",
        *(f"{p.parent.name}/{p.name}" for p in options.checkpoints),
    ]
    words += ["--every", str(options.every), "--epochs", str(options.epochs), "--threads", str(options.threads)]
    words += ["--labels", *options.labels, "--steps", *map(str, options.steps)]
    words += ["--unscaled"] if options.unscaled else []
    words += ["--clear-edges"] if options.clear_edges else []
    words += ["--walks", *options.walks, "--out", str(options.out)]
    config_of = config.to_dict() | {"every": options.every, "steps": options.steps, "labels": options.labels}
    tables.write_results(options.out, rows, command=shlex.join(words), config=config_of, log=log)
    atomic_write_text(options.out / "curve.json", json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
