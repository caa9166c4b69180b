"""Learning from label maps that lie in a folder: what walk networks and segmenters share.

Labels are given, never true masks: they come from the stage before. The loop is plain: no moving average, no phases.
What keeps a run whole is the same as in loop.py: draws that depend on the step alone, checkpoints written beside and
renamed, and a stop with one line when a loss leaves the finite numbers.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar, get_args

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from tqdm.auto import tqdm

from rsepm_edu.data.loading import derive_seed, epoch_loader
from rsepm_edu.data.transforms import change_colours, draw_colours, normalise, training_transform
from rsepm_edu.data.voc import Sample, VocDataset
from rsepm_edu.device import resolve_device
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_write_text, remove_leftovers
from rsepm_edu.models.affinity import WalkNetwork
from rsepm_edu.models.backbone import Backbone
from rsepm_edu.models.backbones import copy_weights
from rsepm_edu.models.segmenters import Segmenter
from rsepm_edu.saved import fill, fill_optimizer, fill_scaler
from rsepm_edu.training.checkpoint import read_config, read_json, read_state, save_state
from rsepm_edu.training.config import Precision, Settings
from rsepm_edu.training.keeping import LAST
from rsepm_edu.training.loop import NotFiniteError, resolve_precision, stopped
from rsepm_edu.training.optimizer import set_learning_rate
from rsepm_edu.training.report import LOGGER, epoch_line

# These may differ when a run is resumed: they do not change what it computes, or the checkpoint has their effect.
RESUMABLE = ("workers", "weights")

MOVED = {"split", "kind"}
"""What older checkpoints have among their settings, and newer ones beside them."""

AnyConfig = TypeVar("AnyConfig", bound="LabelledConfig")
AnyNetwork = TypeVar("AnyNetwork", WalkNetwork, Segmenter)


@dataclass(frozen=True)
class LabelledConfig(Settings):
    """Settings that every training on label maps has; the defaults of a subclass are its own."""

    seed: int
    backbone: str
    weights: str
    epochs: int
    learning_rate: float
    poly_power: float
    batch_size: int
    clip_norm: float
    size: int
    scale: tuple[float, float]
    jitter: float
    workers: int
    precision: Precision

    def _check(self) -> None:
        """What every subclass checks in ``__post_init__``."""
        self._kinds()
        for name, most in (("size", 8192), ("workers", 512), ("epochs", 10**6)):
            self._at_most(name, most)
        self._choice("precision", get_args(Precision))
        for name in ("epochs", "batch_size", "size"):
            self._at_least(name, 1)
        for name in ("poly_power", "jitter", "workers"):
            self._at_least(name, 0)
        self._positive("learning_rate")
        self._positive("clip_norm")
        self._check_scale(self.scale)


@dataclass(frozen=True)
class Task(Generic[AnyNetwork]):
    """What a training on label maps computes.

    name: for the progress bar. file_format: of the checkpoint. build: a new network whose backbone has the weights
    named, as in the settings. optimizer: for a network; each group has its "factor". loss: of network, normalised
    images B×3×H×W and labels B×H×W uint8, a scalar. extra: what else the checkpoint holds.
    """

    name: str
    file_format: str
    build: Callable[[str], AnyNetwork]
    optimizer: Callable[[AnyNetwork], torch.optim.Optimizer]
    loss: Callable[[AnyNetwork, Tensor, Tensor], Tensor]
    extra: dict[str, Any] = field(default_factory=dict)


class Running(TypedDict, total=False):
    """How a training on label maps is run, beside its settings; all may be left out.

    backbone: of ``config.backbone``, whose weights are copied; None (default): one built with ``config.weights``.
    resume: go on from last.pt in the folder of the run (default: no); on the CPU the result is bit for bit that of a
    run never stopped. device: where to train (default: the GPU if there is one). progress: show a bar (default: yes).
    """

    backbone: Backbone | None
    resume: bool
    device: str | torch.device | None
    progress: bool


class LabelledDataset(VocDataset):
    """The pictures of a split with labels from a folder of PNGs in the place of masks.

    Args:
        root, split: see ``VocDataset``.
        labels: folder with <name>.png for every picture.
        transform: see ``VocDataset``.

    Raises:
        UserError: as ``VocDataset``, or a label is missing.
    """

    def __init__(
        self, root: str | Path, split: str, labels: str | Path, *, transform: Callable[[Sample], Any] | None = None
    ) -> None:
        super().__init__(root, split, masks=True, transform=transform)
        self.labels = Path(labels)
        missing = next((name for name in self.names if not self.mask_path(name).is_file()), None)
        if missing is not None:
            raise UserError(f"{self.mask_path(missing)}: expected labels of a picture of {split}, got no such file")

    def mask_path(self, name: str) -> Path:
        """Where the labels of that picture lie."""
        return self.labels / f"{name}.png"

    def read_mask(self, name: str, size: Sequence[int], turn: Image.Transpose | None = None) -> tv_tensors.Mask:
        """The labels of that picture: they were made of the upright one, so they are not turned."""
        return super().read_mask(name, size)


def train_labelled(
    config: LabelledConfig,
    task: Task[AnyNetwork],
    root: str | Path,
    split: str,
    labels: str | Path,
    out: str | Path,
    *,
    backbone: Backbone | None = None,
    resume: bool = False,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> AnyNetwork:
    """Train on label maps and leave config.json, log.jsonl (a line an epoch) and last.pt in ``out``.

    Args:
        config: the settings.
        task: what is computed.
        root: data, see ``VocDataset``; its masks are not read.
        split: pictures; of their annotations not even the tags are used.
        labels: folder of labels, see ``LabelledDataset``; void pixels teach nothing.
        out: folder of the run.
        backbone, resume, device, progress: see ``Running``.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: data, settings or folder do not go together.
        NotFiniteError: the loss left the finite numbers; last.pt is the last good state.
    """
    out, device = Path(out), resolve_device(device)
    transform = training_transform(config.size, scale=config.scale)
    prepare = partial(_image_labels_colours, transform, config.jitter)
    dataset = LabelledDataset(root, split, labels, transform=prepare)
    extra = {"split": split, **task.extra}
    state = _previous(config, task, extra, out / LAST, resume=resume)
    torch.manual_seed(derive_seed(config.seed, "weights"))
    network = task.build(config.weights if state is None and backbone is None else "none")
    if state is None and backbone is not None:
        copy_weights(backbone, network.backbone, config.backbone)
    if state is not None:
        fill(network, state.get("network"), out / LAST)
    network = network.to(device).to(memory_format=torch.channels_last).train()
    optimizer = task.optimizer(network)
    precision = resolve_precision(config.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    rows: list[dict[str, Any]] = []
    if state is not None:
        fill_optimizer(optimizer, state.get("optimizer"), out / LAST)
        fill_scaler(scaler, state.get("scaler"), out / LAST)
        rows = _rows(out / LAST, state)
    remove_leftovers(out)
    atomic_write_text(out / "config.json", config.to_json())
    for epoch in range(len(rows), config.epochs):
        run = _Run(config, task, network, optimizer, scaler, precision)
        try:
            rows.append(run.epoch(dataset, epoch, progress=progress))
            LOGGER.info(epoch_line(task.name, rows[-1], config.epochs))
        except NotFiniteError as error:
            raise stopped(error, out / LAST) from None
        save_state(
            out / LAST,
            {
                "format": task.file_format,
                "config": json.dumps(config.to_dict()),  # plain text, so that weights_only loading is enough
                "rows": json.dumps(rows),
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                **extra,
            },
        )
        atomic_write_text(out / "log.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    return network.eval()


@dataclass
class _Run(Generic[AnyNetwork]):
    config: LabelledConfig
    task: Task[AnyNetwork]
    network: AnyNetwork
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: torch.dtype

    def epoch(self, dataset: LabelledDataset, epoch: int, *, progress: bool) -> dict[str, Any]:
        config = self.config
        device = next(self.network.parameters()).device
        loader = epoch_loader(
            dataset,
            batch_size=config.batch_size,
            seed=config.seed,
            epoch=epoch,
            workers=config.workers,
            pin=device.type == "cuda",
        )
        total, rate, started = 0.0, 0.0, time.perf_counter()
        last: tuple[Tensor, Tensor] | None = None
        bar = tqdm(
            loader, desc=f"epoch {epoch + 1}/{config.epochs} {self.task.name}", disable=not progress, leave=False
        )
        for batch, (images, labels, colours) in enumerate(bar):
            step = epoch * len(loader) + batch
            rate = set_learning_rate(self.optimizer, config, step=step, steps=config.epochs * len(loader))
            images, labels = (tensor.to(device, non_blocking=True) for tensor in (images, labels))
            if config.jitter:
                images = change_colours(images, colours)
            last = normalise(images).to(memory_format=torch.channels_last), labels
            value = self.step(*last, step)
            total += value / len(loader)
            bar.set_postfix(loss=f"{value:.3f}")
        assert last is not None  # no split is empty
        self.check(*last, epoch)
        seconds = round(time.perf_counter() - started, 2)
        return {"epoch": epoch + 1, "loss": total, "learning_rate": rate, "seconds": seconds}

    def step(self, images: Tensor, labels: Tensor, step: int) -> float:
        torch.manual_seed(derive_seed(self.config.seed, "step", step))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(images, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss is {value} at step {step}")
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        if not self.scaler.is_enabled() and not math.isfinite(norm):  # the scaler skips such steps itself
            raise NotFiniteError(f"the gradient's length is {float(norm)} at step {step}, the loss is finite")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        enabled = self.precision != torch.float32
        with torch.autocast(images.device.type, dtype=self.precision, enabled=enabled):
            return self.task.loss(self.network, images, labels)

    @torch.no_grad()
    def check(self, images: Tensor, labels: Tensor, epoch: int) -> None:
        """Try the weights that the last step left: no other step would, before they are saved."""
        self.network.eval()
        value = float(self.loss(images, labels))
        self.network.train()
        whole = all(bool(parameter.isfinite().all()) for parameter in self.network.parameters())
        if not (whole and math.isfinite(value)):
            raise NotFiniteError(f"the weights are no longer finite, or the loss is {value}, after epoch {epoch + 1}")


def _image_labels_colours(
    transform: Callable[[Sample], Sample], jitter: float, sample: Sample
) -> tuple[Tensor, Tensor, Tensor]:
    moved = transform(sample)
    return moved["image"].as_subclass(Tensor), moved["mask"].as_subclass(Tensor), draw_colours(jitter)


def read_labelled(path: Path, file_format: str, kind: type[AnyConfig]) -> tuple[AnyConfig, dict[str, Any]]:
    """The settings in a checkpoint of ``train_labelled``, and all that is in it.

    Raises:
        UserError: missing, unreadable, of another format, or written by a version with other settings.
    """
    state = read_state(path, file_format)
    values = read_json(path, state, "config", dict)
    for name in MOVED.intersection(values):
        state.setdefault(name, values.pop(name))
    return read_config(path, state | {"config": json.dumps(values)}, kind), state


def _previous(
    config: LabelledConfig, task: Task[AnyNetwork], extra: dict[str, Any], path: Path, *, resume: bool
) -> dict[str, Any] | None:
    """The state to go on from, checked against what is asked for now."""
    if not resume:
        if path.is_file():
            raise UserError(f"{path}: expected a new folder or resume=True, got a run that is there already")
        return None
    before, state = read_labelled(path, task.file_format, type(config))
    unimportant = {name: getattr(config, name) for name in RESUMABLE}
    for name, value in replace(before, **unimportant).to_dict().items():
        now = getattr(config, name)
        if value != now:
            raise UserError(f"{path}: expected {name} = {value!r} as in the run to resume, got {now!r}")
    for name, value in extra.items():
        if state.get(name) != value:
            raise UserError(f"{path}: expected the {name} {state.get(name)} of the run to resume, got {value}")
    return state


def _rows(path: Path, state: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of the log in a state, one for each epoch done."""
    rows = read_json(path, state, "rows", list)
    for epoch, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or row.get("epoch") != epoch:
            raise UserError(f"{path}: expected rows of epochs 1, 2, …, got {row!r:.80} for epoch {epoch}")
    return rows
