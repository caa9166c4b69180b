"""What a finished run says of its own maps, without masks: a file beside its last checkpoint."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.choosing import spread
from rsepm_edu.evaluation.inference import usual_scales
from rsepm_edu.evaluation.segmenting import CHOOSE, Recipe, ScoredRecipe, score_recipes
from rsepm_edu.files import atomic_write_text, digest, read_bytes
from rsepm_edu.saved import is_number
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.keeping import LAST

FILE = "map_scores.json"


class MapScores(NamedTuple):
    """Every map of a network at its best θ, and on how many of how many training pictures that was found."""

    scores: list[ScoredRecipe]
    seen: int
    pictures: int


def store_map_scores(run: Path, root: str | Path, device: torch.device, *, progress: bool = True) -> None:
    """Score the maps of a run's last checkpoint by colour and write ``map_scores.json`` beside it.

    On ``CHOOSE`` of the pictures that it learnt from, with their tags; no mask is read.

    Args:
        run: folder of the run.
        root: its data, see ``VocDataset``.
        device: where to look at them.
        progress: show a bar.
    """
    checkpoint = load_checkpoint(run / LAST)
    network, config = checkpoint.build_network().to(device), checkpoint.config
    dataset = VocDataset(root, config.split)
    indices = spread(len(dataset), CHOOSE)

    def pictures() -> Iterator[tuple[Tensor, Tensor]]:
        for index in tqdm(indices, desc="scoring maps", unit="picture", disable=not progress, leave=False):
            sample = dataset.sample(index, masks=False)
            yield sample["image"].as_subclass(Tensor), sample["tags"]

    scores = score_recipes(
        network,
        pictures(),
        maps=("cam", "decoder", "argmax") if "decoder" in checkpoint.learnt else ("cam",),
        pamrs=(False, True),
        scales=usual_scales(config.backbone),
        pamr_stride=config.pamr_stride,
    )
    said = {
        "checkpoint": digest(run / LAST),
        "criterion": "colour",
        "seen": len(indices),
        "pictures": len(dataset),
        "maps": [{"recipe": asdict(recipe), "score": round(score, 5)} for recipe, score in scores],
    }
    atomic_write_text(run / FILE, json.dumps(said, indent=2) + "\n")


def read_map_scores(checkpoint: Path) -> MapScores | None:
    """What is stored beside a checkpoint; None where there is nothing, or where it is of another state of the run.

    Raises:
        UserError: the file is damaged.
    """
    path = checkpoint.parent / FILE
    if not path.is_file():
        return None
    try:
        said = json.loads(read_bytes(path, "scores of a run's maps").decode("utf-8"))
        scores = [(Recipe(**each["recipe"]), each["score"]) for each in said["maps"]]
        found = MapScores(scores, said["seen"], said["pictures"])
        whole = bool(scores) and all(map(is_number, [found.seen, found.pictures, *(score for _, score in scores)]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: expected the scores of a run's maps, got: {error}") from error
    if not whole:
        raise UserError(f"{path}: expected the scores of a run's maps, got one that is no number, or none")
    return found if said.get("checkpoint") == digest(checkpoint) else None
