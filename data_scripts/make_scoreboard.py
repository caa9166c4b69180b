"""Compute the scoreboard of the lessons anew, from the networks that come with them, under the card of the course.

    python data_scripts/make_scoreboard.py

Run it after a network of the lessons, Creatures or the card has changed, then put_sections.py. It takes about a minute
on one CPU core. The masks of the scored images choose each θ (an ORACLE) and count FP and FN; nothing learns from them.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.course.networks import (
    CREATURES_CAM,
    CREATURES_EPM,
    CREATURES_PUZZLE,
    CREATURES_RS,
    load_lesson_network,
)
from rsepm_edu.course.scoreboard import Point
from rsepm_edu.course.settings_card import CARD, SettingsCard
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.metrics import Scores, confusion_matrix, scores
from rsepm_edu.evaluation.scoring import ARGMAX, seed_maps
from rsepm_edu.evaluation.tables import NONE, ORACLE
from rsepm_edu.evaluation.thresholds import ThresholdSweep
from rsepm_edu.files import atomic_write_text
from rsepm_edu.models.network import SingleStageNetwork

COURSE = Path(__file__).resolve().parents[1] / "rsepm_edu" / "course"
FILE = COURSE / "scoreboard.json"
CHECKPOINTS = COURSE / "checkpoints"

ADDED = (
    ("01", "CAM", CREATURES_CAM, "cam"),
    ("02", "Puzzle-CAM", CREATURES_PUZZLE, "cam"),
    ("03", "CAM + SCG", CREATURES_CAM, "cam+scg"),
    ("04", "CAM + PAMR", CREATURES_CAM, "cam+pamr"),
    ("05", "M_rs: CAM + SCG + PAMR", CREATURES_CAM, "cam+scg+pamr"),
    ("06", "RS: CAM", CREATURES_RS, "cam"),
    ("06", "RS: decoder's arg-max", CREATURES_RS, ARGMAX),
    ("08", "RS + EPM: decoder's arg-max", CREATURES_EPM, ARGMAX),
)
"""Lesson, method, network, and the name that ``seed_maps`` gives the map; lesson 00 has no network."""


def points(dataset: VocDataset, networks: dict[str, SingleStageNetwork], card: SettingsCard = CARD) -> list[Point]:
    """What every lesson adds, in their order; rows whose network is not given are left out.

    Args:
        dataset: with masks, the pictures to score alone.
        networks: by the name in ``ADDED``.
        card: how maps are made and scored.
    """
    classes = dataset.classes
    found = [
        _point("00", name, None, None, NONE, scores(confusion, classes)) for name, confusion in trivial(dataset).items()
    ]
    of_network = {name: score(network, dataset, card) for name, network in networks.items()}
    for lesson, method, name, map_ in ADDED:
        if name not in networks:
            continue
        sweeps, labels = of_network[name]
        if map_ == ARGMAX:
            found.append(_point(lesson, method, name, None, NONE, scores(labels, classes)))
        else:
            threshold, result = sweeps[map_].best(classes)
            found.append(_point(lesson, method, name, threshold, ORACLE, result))
    return found


def trivial(dataset: VocDataset) -> dict[str, Tensor]:
    """Confusion matrices of two masks that need no network: background alone, and the first tag everywhere."""
    labels = len(dataset.classes) + 1
    found = {name: torch.zeros(labels, labels, dtype=torch.int64) for name in ("nothing", "everything (first tag)")}
    for sample in (dataset[index] for index in range(len(dataset))):
        mask = sample["mask"].as_subclass(Tensor)
        first = int(sample["tags"].argmax()) + 1
        for label, confusion in zip((0, first), found.values(), strict=True):
            confusion += confusion_matrix(torch.full_like(mask, label), mask, labels)
    return found


def score(
    network: SingleStageNetwork, dataset: VocDataset, card: SettingsCard
) -> tuple[dict[str, ThresholdSweep], Tensor]:
    """Sweeps of all maps by name, and the confusion matrix of the decoder's arg-max (0 where none was trained)."""
    options = replace(card.options, decode="decoder" in network.learnt)
    labels = len(dataset.classes) + 1
    sweeps: dict[str, ThresholdSweep] = {}
    argmax = torch.zeros(labels, labels, dtype=torch.int64)
    for sample in tqdm(dataset, desc="scoring", leave=False):
        image, mask = (sample[key].as_subclass(Tensor)[None] for key in ("image", "mask"))
        seeds, decided = seed_maps(network, normalise(image), sample["tags"][None], options)
        for name, seed in seeds.items():
            sweeps.setdefault(name, ThresholdSweep(labels - 1, card.thresholds)).update(seed, mask)
        if decided is not None:
            argmax += confusion_matrix(decided, mask, labels)
    return sweeps, argmax


def _point(
    lesson: str, method: str, network: str | None, threshold: float | None, choice: str, result: Scores
) -> Point:
    fp, fn, miou = (round(value, 4) for value in (result.fp, result.fn, result.miou))
    return Point(lesson, method, network, threshold, choice, fp, fn, miou)


def as_json(card: SettingsCard, data: str, found: Sequence[Point], networks: Sequence[str]) -> dict[str, Any]:
    """What is stored: the card, the data's folder, each network's file by its hash, and the points."""
    hashes = {name: hashlib.sha256((CHECKPOINTS / f"{name}.pt").read_bytes()).hexdigest() for name in networks}
    return {"card": asdict(card), "data": data, "networks": hashes, "points": [asdict(point) for point in found]}


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FILE, help="file to write (default: the package's)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in dict.fromkeys(row[2] for row in ADDED) if (CHECKPOINTS / f"{name}.pt").is_file()]
    try:
        root = ensure_creatures()
        dataset = VocDataset(root, CARD.split, masks=True).take(range(CARD.pictures))
        found = points(dataset, {name: load_lesson_network(name) for name in names})
    except UserError as error:
        print(f"make_scoreboard: {error}", file=sys.stderr)
        return 2
    stored = as_json(CARD, root.name, found, names)
    atomic_write_text(options.out, json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
    for point in found:
        theta = "" if point.threshold is None else f"θ {point.threshold:.2f} ({point.choice})"
        print(f"{point.lesson}  {point.method:28} {theta:18} FP {point.fp:.2f}  FN {point.fn:.2f}  {point.miou:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
