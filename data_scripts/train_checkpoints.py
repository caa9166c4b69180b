"""Train the small networks that come with the lessons, and write them into the package.

    python data_scripts/train_checkpoints.py                       # all of them
    python data_scripts/train_checkpoints.py --only creatures_rs   # one

Each takes two to ten minutes on one CPU core. One thread and a fixed seed: the same machine and
versions give the same bytes again. Beside each network a JSON file says how it was made.
creatures_cam starts from the pretext's weights (train_pretext.py), creatures_random_start from random
ones: a lesson shows what the pretext is worth. creatures_puzzle and creatures_rs go on from the shipped
creatures_cam, creatures_epm from the shipped creatures_rs: what Puzzle-CAM, RecurSeed and EdgePredictMix change is
best seen on one and the same network. creatures_rs leaves a film of its epochs too (course/film.py).

Nothing learns from a mask. After each epoch of RecurSeed the state is scored on the masks of some
training pictures, for the record alone: nothing is chosen by these numbers.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from rsepm_edu.course.film import CREATURES_RS_FILM, Frame, save_film, take_frame
from rsepm_edu.course.networks import (
    CREATURES_CAM,
    CREATURES_EPM,
    CREATURES_PUZZLE,
    CREATURES_RANDOM_START,
    CREATURES_RS,
    load_lesson_network,
    save_lesson_network,
)
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.metrics import Scores, confusion_matrix, scores
from rsepm_edu.evaluation.thresholds import ThresholdSweep
from rsepm_edu.files import atomic_write_text
from rsepm_edu.labels import VOID
from rsepm_edu.training.checkpoint import save_checkpoint
from rsepm_edu.training.config import WITHOUT_DECODER, TrainConfig
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.loop import Trainer, train

FOLDER = Path(__file__).parents[1] / "rsepm_edu" / "course" / "checkpoints"

# Classification alone. Written out, not derived from a preset, so that tuning a preset for other
# purposes leaves the lessons' networks as they are. The decoder is made as small as can be; it is
# neither trained nor kept.
CAM = TrainConfig(
    method="cam",
    mixing="none",
    split="train",
    backbone="creatures",
    weights="pretext",
    freeze_stages=3,
    decoder_channels=8,
    decoder_rates=(2,),
    separable=True,
    epochs=10,
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.01,
    batch_size=8,
    ema_decay=0.99,
    size=96,
    crop="zoom",
    scale=(0.6, 1.0),
    jitter=0.0,
    workers=0,
    precision="fp32",
    panel_every=0,
)

# Eight epochs of RecurSeed after ten of classification alone. Decoder and thresholds are those of
# the preset creatures-cpu, whose values were found with masks (an ORACLE, see training/config.py).
RS = replace(
    CAM,
    method="rs",
    decoder_channels=48,
    decoder_rates=(2, 4, 6),
    epochs=18,
    rs_start=10,
    scg_threshold=0.30,
    certain=0.30,
    uncertain=0.05,
    pamr_stride=2,
)

CONFIGS: dict[str, TrainConfig] = {
    CREATURES_CAM: CAM,
    # As long and on the same pictures; stages that know nothing yet must learn too.
    CREATURES_RANDOM_START: replace(CAM, weights="none", freeze_stages=0),
    # The raw maps reach 60 here; with the paper's weight of 4 their difference drowns the tags.
    CREATURES_PUZZLE: replace(CAM, method="puzzle", epochs=8, puzzle_alpha=0.5),
    CREATURES_RS: RS,
    # Four epochs more, all of them with EdgePredictMix.
    CREATURES_EPM: replace(RS, mixing="epm", epochs=RS.epochs + 4, mix_start=RS.epochs),
}

GO_ON = {CREATURES_PUZZLE: CREATURES_CAM, CREATURES_RS: CREATURES_CAM, CREATURES_EPM: CREATURES_RS}
"""Networks that go on from a shipped one; it stands in for the epochs of the phases before."""

FILM_PICTURES = 6
FILM_EPOCHS = 2  # between two frames
SCORED_PICTURES = 100


class Recorder:
    """Looks at the averaged network before RecurSeed and after every second epoch of it; changes nothing."""

    def __init__(self, config: TrainConfig, root: Path) -> None:
        self.config = config
        self.dataset = VocDataset(root, config.split, masks=True)
        self.epochs: list[int] = []
        self.frames: list[Frame] = []
        self.scores: list[dict[str, Any]] = []
        _, self.tags, _ = self._batch(range(min(FILM_PICTURES, len(self.dataset))))

    def __call__(self, trainer: Trainer) -> None:
        """Take a frame and score the state, where it is time."""
        if (trainer.epoch - self.config.rs_start) % FILM_EPOCHS:
            return
        images, tags, _ = self._batch(range(len(self.tags)))
        self.epochs.append(trainer.epoch)
        self.frames.append(take_frame(self.config, trainer.average.network, images, tags))
        self.scores.append({"epoch": trainer.epoch} | self._score(trainer))

    def _batch(self, indices: range) -> tuple[Tensor, Tensor, Tensor]:
        samples = [self.dataset[index] for index in indices]
        images = torch.stack([sample["image"].as_subclass(Tensor) for sample in samples])
        masks = torch.stack([sample["mask"].as_subclass(Tensor) for sample in samples])
        return normalise(images), torch.stack([sample["tags"] for sample in samples]), masks.long()

    def _score(self, trainer: Trainer) -> dict[str, Any]:
        classes = self.dataset.classes
        sweeps = {name: ThresholdSweep(len(classes)) for name in ("cam", "scg_map", "rs_map", "decoder")}
        labels = len(classes) + 1
        argmax = torch.zeros(labels, labels, dtype=torch.int64)
        labelled, right, pixels = 0, 0, 0
        scored = range(min(SCORED_PICTURES, len(self.dataset)))
        for start in range(0, len(scored), 20):
            images, tags, masks = self._batch(scored[start : start + 20])
            frame = take_frame(self.config, trainer.average.network, images, tags)
            probabilities = _enlarge(frame.probabilities, masks)
            for name, sweep in sweeps.items():
                maps = probabilities[:, 1:] if name == "decoder" else _enlarge(getattr(frame, name), masks)
                sweep.update(maps, masks)
            argmax += confusion_matrix(probabilities.argmax(1), masks, labels)
            pseudo = F.interpolate(frame.pseudo_mask[:, None].float(), size=masks.shape[1:], mode="nearest")[
                :, 0
            ].long()
            judged = masks != VOID
            pixels += int(judged.sum())
            labelled += int((judged & (pseudo != VOID)).sum())
            right += int((judged & (pseudo == masks)).sum())
        row: dict[str, Any] = {}
        for name, sweep in sweeps.items():
            threshold, result = sweep.best(classes)
            row[name] = {"oracle_threshold": threshold} | _numbers(result)
        row["decoder_argmax"] = _numbers(scores(argmax, classes))
        row["pseudo_mask"] = {"labelled": round(labelled / pixels, 4), "right": round(right / max(1, labelled), 4)}
        return row


def _enlarge(maps: Tensor, masks: Tensor) -> Tensor:
    return F.interpolate(maps, size=masks.shape[1:], mode="bilinear", align_corners=False)


def _numbers(result: Scores) -> dict[str, float]:
    return {"miou": round(100 * result.miou, 2), "fp": round(result.fp, 4), "fn": round(result.fn, 4)}


def warm_start(config: TrainConfig, name: str, epoch: int) -> Trainer:
    """A trainer after that many epochs, with a shipped network in the place of its own."""
    shipped = load_lesson_network(name)
    trainer = Trainer(config, shipped.classes, torch.device("cpu"))
    learnt = "decoder" in shipped.learnt
    known = {key: value for key, value in shipped.state_dict().items() if learnt or not key.startswith("decoder.")}
    for network in (trainer.network, trainer.average.network):
        network.load_state_dict(known, strict=False)
    trainer.epoch = epoch
    return trainer


def make(name: str, folder: Path) -> None:
    """Train one network; write it, its record and, after RecurSeed, its film."""
    config, root = CONFIGS[name], ensure_creatures()
    refines = config.method not in WITHOUT_DECODER
    before = GO_ON.get(name)
    start = config.mix_start if config.mixing != "none" else config.rs_start if refines else 0
    recorder = Recorder(config, root) if refines else None
    rows: list[dict[str, Any]] = []

    def on_epoch(trainer: Trainer, row: dict[str, Any]) -> None:
        rows.append(row)
        if recorder is not None:
            recorder(trainer)

    with tempfile.TemporaryDirectory() as run:
        if before is not None:
            trainer = warm_start(config, before, start)
            save_checkpoint(Path(run) / LAST, trainer.checkpoint())
            if recorder is not None:
                recorder(trainer)
        network = train(config, root, run, resume=before is not None, device="cpu", on_epoch=on_epoch, progress=False)
    path = folder / f"{name}.pt"
    save_lesson_network(path, network, backbone=config.backbone, decoder=config if refines else None)
    record: dict[str, Any] = {
        "command": f"python data_scripts/train_checkpoints.py --only {name}",
        "data": "Creatures: train 1000, size 96, seed 0",
        "config": asdict(config),
        "versions": {m.__name__: str(m.__version__) for m in (torch, torchvision, np)},
        "sha256": {path.name: _sha256(path)},
        "loss_by_epoch": [{key: round(loss, 4) for key, loss in row["losses"].items()} for row in rows],
    }
    if before is not None:
        record["warm_up"] = {"network": before, "epochs": start}
    if name == CREATURES_RS and recorder is not None:
        film = folder / f"{CREATURES_RS_FILM}.npz"
        save_film(film, recorder.epochs, recorder.tags, recorder.frames)
        record["sha256"] |= {film.name: _sha256(film)}
    if recorder is not None:
        record["scored_on_masks"] = f"the first {SCORED_PICTURES} pictures of {config.split}, at one scale"
        record["scores_by_epoch"] = recorder.scores
    atomic_write_text(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, last losses {record['loss_by_epoch'][-1]}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=tuple(CONFIGS), help="one network instead of all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to (the package)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        for name in [options.only] if options.only else CONFIGS:
            make(name, options.out)
    except UserError as error:
        print(f"train_checkpoints: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
