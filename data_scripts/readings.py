"""What each reading of RecurSeed + EdgePredictMix is worth: everything as drawn, against one switch at a time.

Where the figures are silent, or where a former version of this package read them otherwise, a switch changes one
thing: a setting, or a function of the training step. All switches share what comes before the phase they act in. A call
goes on where the last one stopped, and writes the table after every score, so it may be cut off at any time:

    timeout 480 python data_scripts/readings.py --preset voc-sample-gpu        again and again, on a GPU
    python data_scripts/readings.py --preset voc-sample-cpu --every 2 --set size=160 --set epochs=6 …   on a CPU

Scores are at oracle θ, on `train` masks: nothing is trained with them, but a choice made by this table is an ORACLE's.
"""

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from make_results import VOC_6, WEIGHTS, from_environment
from photograph_lists import sample_names, sample_with_lists
from torch import Tensor

from rsepm_edu.cli.options import parse_changes
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import tables
from rsepm_edu.evaluation.choosing import spread
from rsepm_edu.evaluation.scoring import score_seeds
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.files import atomic_write_text
from rsepm_edu.labels import VOID
from rsepm_edu.methods.edgepredictmix import edge_predict, edge_regions
from rsepm_edu.methods.mixing import Mixed, choose_half, label_counts, partners, paste_classes
from rsepm_edu.methods.recurseed import Refined, conditional_filter
from rsepm_edu.methods.scg import correlated_map, self_correlation
from rsepm_edu.training import mixings, step
from rsepm_edu.training import targets as targets_of_training
from rsepm_edu.training.checkpoint import load_checkpoint, save_checkpoint
from rsepm_edu.training.config import TrainConfig, preset
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.loop import Trainer, train
from rsepm_edu.training.phases import Phase
from rsepm_edu.training.seed_options import seed_options_of
from rsepm_edu.training.step import Forward, Target
from rsepm_edu.training.targets import Batch

# --- other readings of parts of the step


def to_spread_map(config: TrainConfig, batch: Batch, outputs: Any, *, refine: Callable[..., Refined]) -> Refined:
    """L_rec's target is M_scg, before PAMR; the pseudo mask stays that of M_rs."""
    refined = refine(config, batch, outputs)
    size = refined.rs_map.shape[2:]
    return refined._replace(rs_map=F.interpolate(refined.scg_map, size, mode="bilinear", align_corners=False))


def held_targets(
    config: TrainConfig, phase: Phase, batch: Batch, *, teacher: Forward, generator: torch.Generator
) -> list[Target]:
    """The CAM's target of a former version: M_scg times the pseudo mask's share of the class, nothing said on void."""
    seen: list[Refined] = []

    def refine(*inputs: Any) -> Refined:
        seen.append(REFINE(*inputs))
        return seen[-1]

    with patch.object(step, "refine", refine):
        targets = TARGETS(config, phase, batch, teacher=teacher, generator=generator)
    size = (seen[0].scg_map.shape[2], seen[0].scg_map.shape[3])
    shares, known = class_shares(targets[0].pseudo_mask, batch.tags.shape[1], size)
    targets[0] = targets[0]._replace(batch=batch._replace(inside=known), rs_map=seen[0].scg_map * shares)
    return targets[:1] + [with_mask_target(target, size) for target in targets[1:]]


def mask_targets(*inputs: Any, **settings: Any) -> list[Target]:
    """The mixed CAM's target of a former version: the shares of the classes in the mixed mask, nothing on void."""
    targets = TARGETS(*inputs, **settings)
    size = tuple(side // 16 for side in targets[0].batch.images.shape[2:])
    return targets[:1] + [with_mask_target(target, size) for target in targets[1:]]  # type: ignore[arg-type]


def with_mask_target(target: Target, size: tuple[int, int]) -> Target:
    """The CAM is compared with the pseudo mask, where that is not void; no tags are learnt from such a batch."""
    shares, known = class_shares(target.pseudo_mask, target.batch.tags.shape[1], size)
    return target._replace(batch=target.batch._replace(inside=known), rs_map=shares)


def class_shares(masks: Tensor, classes: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Shares of the classes among the labelled pixels of each position, and the labelled share."""
    known = F.adaptive_avg_pool2d((masks != VOID).float()[:, None], size)
    planes = torch.stack([(masks == k).float() for k in range(1, classes + 1)], dim=1)
    return F.adaptive_avg_pool2d(planes, size) / known.clamp(min=1e-6), known


def mix_with(
    images: Tensor,
    tags: Tensor,
    maps: Tensor,
    *,
    generator: torch.Generator,
    certain: float,
    uncertain: float,
    predict: Callable[..., Tensor] = edge_predict,
    half: bool = False,
) -> Mixed:
    """EPM with another EdgePredict, or pasting half of the classes."""
    masks = predict(maps, tags, certain=certain, uncertain=uncertain)
    below = partners(len(images), generator=generator).to(images.device)
    chosen = label_counts(masks)[:, 1 : tags.shape[1] + 1] > 0
    if half:
        chosen = choose_half(chosen, generator=generator)
    batch = Mixed.unmixed(images, tags, masks)
    return paste_classes(batch, batch.rows(below), chosen)


def filter_alone(maps: Tensor, tags: Tensor, **thresholds: float) -> Tensor:
    """No edges: the conditional filter on M_dec."""
    return conditional_filter(maps[:, 1:] * tags[:, :, None, None], **thresholds)


def two_fronts(maps: Tensor, tags: Tensor, *, certain: float, uncertain: float, steps: int = 32) -> Tensor:
    """EdgePredict of a former version: from certain object and certain background fronts walk up to the edges."""
    scores = maps[:, 1:] * tags[:, :, None, None]
    labels = conditional_filter(scores, certain=certain, uncertain=uncertain)
    free = (labels == VOID) & (edge_regions(scores.amax(1)) > 0)
    for _ in range(steps):
        reached = F.max_pool2d(torch.where(labels == VOID, -1.0, labels.float())[:, None], (3, 1), 1, (1, 0))
        across = F.max_pool2d(torch.where(labels == VOID, -1.0, labels.float())[:, None], (1, 3), 1, (0, 1))
        arrived = torch.maximum(reached, across)[:, 0].long()
        labels = torch.where(free & (labels == VOID) & (arrived >= 0), arrived, labels)
    return labels


def scg_summed(features: Any, cam: Tensor, tags: Tensor, *, first_threshold: float) -> Tensor:
    """SCG of the authors' code of April 2022: one matrix over orders and stages, then one map."""
    stages = [features] if isinstance(features, Tensor) else list(features)
    matrix: Tensor | float = 0.0
    for stage in stages:
        resized = F.interpolate(stage.float(), cam.shape[2:], mode="bilinear", align_corners=False)
        best = torch.maximum(*self_correlation(resized, first_threshold=first_threshold))
        matrix = matrix + best / (best.sum(1, keepdim=True) + 1e-10)
    assert isinstance(matrix, Tensor)
    flat = cam.flatten(2)
    spread = correlated_map(matrix, (flat >= 0.30).to(cam.dtype), (flat <= 0.05).to(cam.dtype))
    return spread.view_as(cam) * tags[:, :, None, None]


REFINE, TARGETS, EPM = targets_of_training.refine, step.teacher_targets, mixings.MIXINGS["epm"]


@dataclass(frozen=True)
class Switch:
    """One other reading: settings, and functions put in the place of the package's; from = phase it acts in first."""

    says: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    functions: Mapping[str, Any] = field(default_factory=dict)
    acts_from: str = "rs"


def epm(**changes: Any) -> dict[str, Any]:
    """EPM with another mixing function, or another input."""
    return {"rsepm_edu.training.mixings.MIXINGS.epm": EPM._replace(**changes)}


TARGETS_IN_LOOP = "rsepm_edu.training.loop.teacher_targets"
SWITCHES: dict[str, Switch] = {
    "drawn": Switch("everything as drawn", acts_from="cam"),
    "target M_scg": Switch(
        "L_rec to SCG's map, before PAMR",
        functions={"rsepm_edu.training.step.refine": partial(to_spread_map, refine=REFINE)},
    ),
    "target held": Switch(
        "L_rec to SCG's map held within the pseudo mask (a former version)", functions={TARGETS_IN_LOOP: held_targets}
    ),
    "no average": Switch("targets of the network as it is, without average", settings={"ema_decay": 0.0}),
    "SCG summed": Switch(
        "one correlation matrix over orders and stages", functions={"rsepm_edu.methods.recurseed.scg": scg_summed}
    ),
    "uncertain 0.10": Switch("conditional filter at 0.10", settings={"uncertain": 0.10}),
    "uncertain 0.15": Switch("conditional filter at 0.15", settings={"uncertain": 0.15}),
    "EP none": Switch(
        "no edges: CF(M_dec) is pasted", functions=epm(mix=partial(mix_with, predict=filter_alone)), acts_from="mix"
    ),
    "EP fronts": Switch(
        "two fronts up to the edges (a former version)",
        functions=epm(mix=partial(mix_with, predict=two_fronts)),
        acts_from="mix",
    ),
    "EP without PAMR": Switch("EdgePredict on the decoder's map as it is", functions=epm(pamr=False), acts_from="mix"),
    "half": Switch("half of the classes pasted", functions=epm(mix=partial(mix_with, half=True)), acts_from="mix"),
    "mask target": Switch(
        "the mixed CAM's target from the mixed mask (a former version)",
        functions={TARGETS_IN_LOOP: mask_targets},
        acts_from="mix",
    ),
    "L_cls^mix": Switch("mixed tags are learnt too", settings={"mix_tag_weight": 1.0}, acts_from="mix"),
    "crop": Switch(
        "whole pictures, padded, in place of parts", settings={"crop": "pad", "scale": (0.625, 1.25)}, acts_from="cam"
    ),
}
ORDER = ("cam", "rs", "mix")


def main() -> int:
    """Run from the root of the repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="voc-sample-gpu")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--switches", nargs="+", choices=tuple(SWITCHES), default=list(SWITCHES))
    parser.add_argument("--until", choices=ORDER, default="mix", help="the last phase that is trained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="train on every N-th picture")
    parser.add_argument("--masks", type=int, default=220, help="score so many of `train`, evenly spread")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 0.5, 1.5])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=Path, default=Path("runs/readings"))
    parser.add_argument("--results", type=Path, default=Path("results/readings"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        start = preset(options.preset, seed=options.seed, weights=from_environment(WEIGHTS), panel_every=0)
        config = replace(start, **parse_changes(options.changes, start.to_dict()))
        some = sample_names("trainaug")[:: options.every]
        root = sample_with_lists(options.runs / "VOC2012", trainaug=some, train=sample_names("train"))
        for name in ["drawn", *(name for name in options.switches if name != "drawn")]:
            for phase in ORDER[ORDER.index(SWITCHES[name].acts_from) : ORDER.index(options.until) + 1]:
                train_phase(config, root, name, phase, options)
                write_table(config, options)
    except UserError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    return 0


def train_phase(config: TrainConfig, root: Path, name: str, phase: str, options: argparse.Namespace) -> None:
    """Train a switch to the end of a phase and score it, unless that is done; what it shares is taken from `drawn`."""
    switch, folder = SWITCHES[name], options.runs / f"seed_{config.seed}" / name.replace(" ", "_")
    ends = {"cam": config.rs_start, "rs": config.mix_start, "mix": config.epochs}
    scored = folder / f"{phase}.json"
    if scored.is_file():
        return
    config = replace(config, **switch.settings)
    last = folder / LAST
    if not last.is_file() and phase != "cam":  # the first phase of its own: go on from the end of the one before
        before = options.runs / f"seed_{config.seed}" / "drawn" / f"epoch_{ends[ORDER[ORDER.index(phase) - 1]]:03d}.pt"
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(last, replace(load_checkpoint(before), config=config))

    def at_the_end(trainer: Trainer, row: dict[str, Any]) -> None:
        print(
            name,
            row["epoch"],
            row["phase"],
            f"{row['seconds']} s",
            {k: round(v, 3) for k, v in row["losses"].items()},
            flush=True,
        )
        if trainer.epoch == ends[phase]:
            shutil.copyfile(last, folder / f"epoch_{trainer.epoch:03d}.pt")
            rows = score(trainer, root, phase, options)
            atomic_write_text(scored, tables.to_json(rows))
            raise PhaseOverError

    with ExitStack() as stack:
        for target, function in switch.functions.items():
            if target.endswith("MIXINGS.epm"):
                stack.enter_context(patch.dict(mixings.MIXINGS, {"epm": function}))
            else:
                stack.enter_context(patch(target, function))
        try:
            if last.is_file() and load_checkpoint(last).epoch == ends[phase]:  # cut off while it was scored
                trainer = Trainer(replace(config, weights="none"), VocDataset(root, config.split).classes, device())
                trainer.restore(load_checkpoint(last))
                at_the_end(trainer, {"epoch": trainer.epoch, "phase": phase, "seconds": 0, "losses": {}})
            train(config, root, folder, resume="auto", progress=False, on_epoch=at_the_end)
        except PhaseOverError:
            pass


class PhaseOverError(Exception):
    """The phase that was asked for is trained and scored."""


def device() -> torch.device:
    """Where ``train`` would train."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def score(trainer: Trainer, root: Path, phase: str, options: argparse.Namespace) -> list[Row]:
    """Rows of the averaged network on some masks of `train`."""
    dataset = VocDataset(root, "train", masks=True)
    count = min(options.masks, len(dataset))
    dataset = dataset.take(spread(len(dataset), count))
    config = trainer.config
    seeds = replace(seed_options_of(config, scales=tuple(options.scales)), decode=phase != "cam")
    scores = score_seeds(trainer.average.network, dataset, seeds, progress=False)
    rows = scores.rows(seed=config.seed, classes=VOC_6)
    print(
        "==",
        phase,
        "; ".join(f"{row.method} {row.miou:.1f} ({row.fp:.3f}/{row.fn:.3f} @{row.threshold})" for row in rows),
        flush=True,
    )
    return rows


def write_table(config: TrainConfig, options: argparse.Namespace) -> None:
    """results/readings from whatever has been scored so far."""
    lines, all_rows, logs = [], [], []
    for name, switch in SWITCHES.items():
        folder = options.runs / f"seed_{config.seed}" / name.replace(" ", "_")
        for phase in ORDER:
            if not (folder / f"{phase}.json").is_file():
                continue
            rows = {row.method: row for row in tables.read_rows(folder / f"{phase}.json")}
            all_rows += [replace(row, method=f"{name}, after {phase}: {row.method}") for row in rows.values()]
            shown = [cell(rows.get(key)) for key in ("cam", "cam+scg+pamr", "decoder", "decoder (arg-max)")]
            lines.append(f"| {name} | {switch.says} | {phase} | {' | '.join(shown)} |\n")
        log = folder / "log.jsonl"
        if log.is_file():
            logs += [
                json.dumps({"run": name, **json.loads(line)}) + "\n" for line in log.read_text("utf-8").splitlines()
            ]
    head = "| switch | | after | CAM | M_rs | decoder | decoder, arg-max |\n|---|---|---|---:|---:|---:|---:|\n"
    atomic_write_text(options.results / "table.md", head + "".join(lines))
    atomic_write_text(options.results / "table.json", tables.to_json(all_rows))
    atomic_write_text(options.results / "log.jsonl", "".join(logs))
    settings = asdict(config) | {"weights": Path(config.weights).name}
    atomic_write_text(options.results / "config.json", json.dumps(settings, indent=2) + "\n")
    atomic_write_text(options.results / "command.txt", shlex.join(["python", *sys.argv]) + "\n")
    atomic_write_text(options.results / "versions.json", json.dumps(tables.versions(), indent=2) + "\n")


def cell(row: Row | None) -> str:
    """mIoU (FP / FN) of a row, or a dash."""
    return "–" if row is None else f"{row.miou:.1f} ({row.fp:.3f} / {row.fn:.3f})"


if __name__ == "__main__":
    raise SystemExit(main())
