"""What a run leaves to be looked at: a line of JSON an epoch, TensorBoard scalars, and pictures of its state."""

import json
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch.utils.tensorboard import SummaryWriter

from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_write_text, read_lines
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.optimizer import MovingAverage
from rsepm_edu.training.progress import learnt_heads
from rsepm_edu.training.targets import Batch, refine
from rsepm_edu.viz.panels import PanelSample, save_panel

PANEL_ROWS = 4


LOGGER = logging.getLogger("rsepm_edu")
"""Told a line an epoch. Silent until somebody gives it a handler, as the command line does."""


def epoch_line(name: str, row: dict[str, Any], epochs: int) -> str:
    """An epoch of a log in one line, such as ``epoch 3/36 rs: tags 0.412, cam 0.031; 12 s, about 6 min left``.

    Args:
        name: phase or network.
        row: with its epoch, counted from 1, "losses" by name or one "loss", and seconds.
        epochs: of the run.
    """
    losses = row.get("losses") or {"loss": row["loss"]}
    told = ", ".join(f"{term} {value:.3f}" for term, value in losses.items())
    left = row["seconds"] * (epochs - row["epoch"])
    rest = f", about {_duration(left)} left" if row["epoch"] < epochs else ""
    return f"epoch {row['epoch']}/{epochs} {name}: {told}; {_duration(row['seconds'])}{rest}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Shown(Protocol):
    """The state of a run as its pictures show it; a ``Trainer`` has it."""

    @property
    def config(self) -> TrainConfig: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def average(self) -> MovingAverage: ...


class TrainingLog:
    """Writes the files of a run; use as a context manager.

    Args:
        out: folder of the run.
        trainer: whose state the pictures show.
        dataset: the first pictures of its split are shown, with ground truth where a mask lies beside them.
        keep_epochs: lines of an earlier part of the run that stay; later ones belong to epochs not saved.
    """

    def __init__(self, out: Path, trainer: Shown, dataset: VocDataset, *, keep_epochs: int) -> None:
        self.out, self.trainer, self.dataset = out, trainer, dataset
        self.path = out / "log.jsonl"
        lines = read_lines(self.path, "the log of a run") if self.path.is_file() else []
        whole = lines[:-1] if lines and _epoch(lines[-1]) is None else lines  # the last one may have broken off
        epochs = [_epoch(line) for line in whole]
        if None in epochs:
            raise UserError(
                f"{self.path}, line {epochs.index(None) + 1}: expected an epoch of the log in JSON, got none"
            )
        kept = [line for line, epoch in zip(whole, epochs, strict=True) if epoch is not None and epoch <= keep_epochs]
        atomic_write_text(self.path, "".join(f"{line}\n" for line in kept))
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=keep_epochs + 1)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.board.close()

    def write(self, row: dict[str, Any]) -> None:
        """Add an epoch, and tell of it."""
        LOGGER.info(epoch_line(row["phase"], row, self.trainer.config.epochs))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        epoch = row["epoch"]
        for name, value in row["losses"].items():
            self.board.add_scalar(f"loss/{name}", value, epoch)
        self.board.add_scalar("learning_rate", row["learning_rate"], epoch)
        self.board.add_scalar("pictures_per_second", row["pictures_per_second"], epoch)

    def draw(self, epoch: int) -> None:
        """Write a picture of the state if it is due after that epoch, counted from 1."""
        config = self.trainer.config
        if config.panel_every and (epoch % config.panel_every == 0 or epoch == config.epochs):
            trained = "decoder" in learnt_heads(config, (epoch, 0))
            samples = panel_samples(self.trainer, self.dataset, decoder=trained)
            save_panel(self.out / "panels" / f"epoch_{epoch:03d}.png", samples, self.trainer.classes)


def _epoch(line: str) -> int | None:
    """The epoch of a line of the log; None if it is no such line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    epoch = row.get("epoch") if isinstance(row, dict) else None
    return epoch if type(epoch) is int else None


@torch.no_grad()
def panel_samples(trainer: Shown, dataset: VocDataset, *, decoder: bool = True) -> list[PanelSample]:
    """What the averaged network makes of the first pictures of a split, step by step; its decoder if it was trained."""
    rows = []
    for index in range(min(PANEL_ROWS, len(dataset))):
        name, tags = dataset.names[index], dataset.tags[index : index + 1].to(trainer.device)
        image = read_square(dataset, index, trainer.config.size)
        images = normalise(image[None].to(trainer.device))
        outputs = trainer.average.network(images)
        refined = refine(trainer.config, Batch(images, tags, torch.ones_like(images[:, :1])), outputs)
        assert outputs.seg_logits is not None
        size = image.shape[1:]
        allowed = F.pad(tags, (1, 0), value=1)[:, :, None, None] > 0
        seg = outputs.seg_logits.masked_fill(~allowed, float("-inf"))
        rows.append(
            PanelSample(
                image=image,
                name=name,
                cam=_enlarge(normalize_cam(outputs.cam, tags), size),
                rs_map=_enlarge(refined.rs_map, size),
                pseudo_mask=_nearest(refined.pseudo_mask, size),
                decoder=_nearest(seg.argmax(1), size) if decoder else None,
                truth=_truth(dataset, index, size),
            )
        )
    return rows


def read_square(dataset: VocDataset, index: int, side: int) -> torch.Tensor:
    """A picture of the data set, its transform left out, squeezed to side × side: uint8."""
    sample = dataset.sample(index, masks=False)
    resized = F.interpolate(
        sample["image"].as_subclass(torch.Tensor)[None].float(),
        size=(side, side),
        mode="bilinear",
        antialias=True,
    )
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def _truth(dataset: VocDataset, index: int, size: torch.Size) -> torch.Tensor | None:
    """For the eye alone: nothing that is learnt or chosen sees it."""
    if not dataset.mask_path(dataset.names[index]).is_file():
        return None
    try:
        mask = dataset.sample(index, masks=True)["mask"]
    except UserError:  # training needs no masks, so one that cannot be read, coloured say, must not end it
        return None
    return _nearest(mask[None].long(), size)


def _enlarge(maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0].cpu()


def _nearest(mask: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(mask[None].float(), size=size, mode="nearest")[0, 0].to(torch.uint8).cpu()
