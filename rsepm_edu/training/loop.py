"""The training loop: from a folder of pictures with tags to a checkpoint that segments.

Nothing here reads a mask: the data set is opened without them. Only the pictures of a run's state (report.py) show one,
where there is one, for the eye alone.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.loading import batches_of, derive_seed, epoch_loader
from rsepm_edu.data.transforms import change_colours, draw_colours, normalise, training_transform
from rsepm_edu.data.voc import Sample, VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_write_text
from rsepm_edu.methods.puzzle import alpha_at, merge, tile
from rsepm_edu.models.device import resolve_device
from rsepm_edu.models.network import Outputs, SingleStageNetwork
from rsepm_edu.training.checkpoint import Checkpoint, network_from_config
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.interruption import StopRequests
from rsepm_edu.training.keeping import LAST, Keeper, Resume, find_previous
from rsepm_edu.training.losses import Phase, mix, mixed_losses, phase_of, plain_losses, puzzle_losses, refine
from rsepm_edu.training.memory import memory_advice
from rsepm_edu.training.optimizer import (
    MovingAverage,
    freeze,
    make_optimizer,
    set_learning_rate,
    training_mode,
)
from rsepm_edu.training.report import TrainingLog


class NotFiniteError(RuntimeError):
    """A loss was infinite or not a number; the message says which, and where the last good checkpoint is."""


def stopped(error: NotFiniteError, last: Path) -> NotFiniteError:
    """The same error with the place of the last good state."""
    kept = f"the last good state is {last}" if last.is_file() else "none was saved yet"
    return NotFiniteError(f"training stopped: {error}; {kept}")


class Trainer:
    """All the state of a run: network, average, optimiser, and how many epochs are done.

    Args:
        config: the settings.
        classes: names of the K classes.
        device: where to train.
    """

    def __init__(self, config: TrainConfig, classes: tuple[str, ...], device: torch.device) -> None:
        self.config = config
        self.classes = classes
        self.device = device
        torch.manual_seed(derive_seed(config.seed, "weights"))
        # Channels last: faster for MobileNetV2 in float32 on one CPU core; not measured on a GPU.
        self.network = network_from_config(config, classes).to(device).to(memory_format=torch.channels_last)
        freeze(self.network, config)
        self.average = MovingAverage(self.network, config.ema_decay)
        self.optimizer = make_optimizer(self.network, config)
        self.precision = resolve_precision(config.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.epoch = 0
        self.batch = 0  # of the epoch under way
        self.totals: dict[str, float] = {}  # over these batches: losses by name, and seconds

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over the state of a checkpoint."""
        self.network.load_state_dict(checkpoint.network)
        self.average.network.load_state_dict(checkpoint.ema)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.scaler.load_state_dict(checkpoint.scaler)
        self.epoch, self.batch, self.totals = checkpoint.epoch, checkpoint.batch, dict(checkpoint.totals)

    def checkpoint(self) -> Checkpoint:
        """The state as it is now."""
        return Checkpoint(
            config=self.config,
            classes=self.classes,
            epoch=self.epoch,
            network=self.network.state_dict(),
            ema=self.average.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            batch=self.batch,
            totals=dict(self.totals),
        )

    def step(self, images: Tensor, tags: Tensor, phase: Phase, *, step: int, alpha: float = 0.0) -> dict[str, float]:
        """One optimiser step on a batch of uint8 images.

        Args:
            images: B×3×S×S uint8.
            tags: B×K.
            phase: what is on.
            step: number of the step in the whole run, which fixes every random draw in it.
            alpha: weight of Puzzle-CAM's loss in this step, see ``alpha_at``; only its phase asks for it.

        Returns:
            The weighted loss terms.

        Raises:
            NotFiniteError: a term or the gradient is infinite or not a number; the weights are untouched.
        """
        torch.manual_seed(derive_seed(self.config.seed, "step", step))
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "mix", step))
        training_mode(self.network, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.config.accumulate
        means: dict[str, float] = defaultdict(float)
        for part_images, part_tags in zip(images.chunk(parts), tags.chunk(parts), strict=True):
            share = len(part_tags) / len(tags)
            losses = self._losses(part_images, part_tags, phase, generator, alpha)
            values = torch.stack([loss.detach() for loss in losses.values()]).tolist()
            for name, value in zip(losses, values, strict=True):
                if not math.isfinite(value):
                    raise NotFiniteError(f"loss term {name!r} is {value} at step {step}")
                means[name] += value * share
            self.scaler.scale(sum(losses.values(), start=torch.zeros(())) * share).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        if not self.scaler.is_enabled() and not math.isfinite(norm):  # the scaler skips such steps itself
            raise NotFiniteError(f"the gradient's length is {float(norm)} at step {step}, the losses are finite")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.network, step)
        return dict(means)

    def _losses(
        self, images: Tensor, tags: Tensor, phase: Phase, generator: torch.Generator, alpha: float
    ) -> dict[str, Tensor]:
        images = normalise(images.to(self.device, non_blocking=True))
        images = images.to(memory_format=torch.channels_last)
        tags = tags.to(self.device, non_blocking=True)
        outputs = self._forward(self.network, images, decode=phase.refine)
        if phase.puzzle:
            tiles = self._forward(self.network, tile(images), decode=False)
            merged = merge(tiles.cam.float(), size=(outputs.cam.shape[2], outputs.cam.shape[3]))
            return puzzle_losses(outputs, merged, tags, alpha=alpha)
        if not phase.refine:
            return plain_losses(self.config, outputs, tags, None)
        with torch.no_grad():  # the average is the calmer teacher: see methods/recurseed.py
            teacher = self._forward(self.average.network, images, decode=phase.mix)
        losses = plain_losses(self.config, outputs, tags, refine(self.config, images, teacher, tags))
        if phase.mix:
            assert teacher.seg_logits is not None
            mixed = mix(self.config, images, tags, teacher.seg_logits, generator=generator)
            losses |= mixed_losses(self.config, self._forward(self.network, mixed.images, decode=True), mixed)
        return losses

    def _forward(self, network: SingleStageNetwork, images: Tensor, *, decode: bool) -> Outputs:
        enabled = self.precision != torch.float32
        with torch.autocast(self.device.type, dtype=self.precision, enabled=enabled):
            outputs: Outputs = network(images, decode=decode)
        return outputs


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype for autocast; "auto" is bf16 or fp16 on a GPU, whichever its hardware has, else float32."""
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def train(
    config: TrainConfig,
    root: str | Path,
    out: str | Path,
    *,
    resume: Resume = False,
    copy_to: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    on_start: Callable[[Trainer, VocDataset], None] | None = None,
    on_epoch: Callable[[Trainer, dict[str, Any]], None] | None = None,
) -> SingleStageNetwork:
    """Train on the tags of a VOC-like folder and leave checkpoints, logs and pictures in ``out``.

    Writes config.json, log.jsonl (a line an epoch), tensorboard/, panels/ and last.pt, the last after epochs, every
    ``checkpoint_minutes``, and when the run is told to stop (Ctrl-C, SIGTERM).

    Args:
        config: the settings.
        root: data, see ``VocDataset``; masks are not needed and never learnt from.
        out: folder of the run.
        resume: go on from the newest whole last.pt in ``out`` or ``copy_to``; "auto": if there is one. On the CPU the
            result is bit for bit that of a run never stopped, wherever it was stopped.
        copy_to: a second folder that gets every checkpoint and the log, such as one on a mounted drive.
        device: default: the GPU if there is one.
        progress: show a bar.
        on_start: called before the first step, if there is one left, with the trainer and its data set.
        on_epoch: called after every epoch with the trainer and the epoch's line of the log.

    Returns:
        The averaged network, in evaluation mode.

    Raises:
        UserError: data, settings or folder do not go together, or the device has too little memory.
        NotFiniteError: a loss term left the finite numbers; last.pt is the last good state.
        KeyboardInterrupt: it was told to stop; last.pt is the state at that moment.
    """
    out, second = Path(out), None if copy_to is None else Path(copy_to)
    device = resolve_device(device)
    dataset = training_dataset(config, root)
    if len(dataset) < 2:
        raise UserError(f"{root}: expected at least 2 pictures in {config.split}, got {len(dataset)}")
    previous = find_previous(config, dataset.classes, out, second, resume=resume)
    if previous is not None:
        config = replace(config, weights="none")  # they come from the checkpoint
    trainer = Trainer(config, dataset.classes, device)
    if previous is not None:
        trainer.restore(previous)
        trainer.config = replace(config, weights=previous.config.weights)
    atomic_write_text(out / "config.json", trainer.config.to_json())
    keeper = Keeper(out, second, minutes=config.checkpoint_minutes)
    with (
        memory_advice(config, out / LAST),
        TrainingLog(out, trainer, dataset, keep_epochs=trainer.epoch) as log,
        StopRequests() as requests,
    ):
        if on_start is not None and trainer.epoch < config.epochs:
            on_start(trainer, dataset)
        while trainer.epoch < config.epochs:
            try:
                row = _run_epoch(trainer, dataset, keeper, requests, progress=progress)
            except NotFiniteError as error:
                raise stopped(error, out / LAST) from None
            trainer.epoch, trainer.batch, trainer.totals = trainer.epoch + 1, 0, {}
            log.write(row)  # before the checkpoint: a line too many is dropped on resume, a missing one never comes
            due = trainer.epoch % config.checkpoint_every == 0 or trainer.epoch == config.epochs
            if due or requests.pending or keeper.due():
                keeper.save(trainer.checkpoint())
            requests.obey()
            log.draw(trainer.epoch)
            if on_epoch is not None:
                on_epoch(trainer, row)
    return trainer.average.network


def training_dataset(config: TrainConfig, root: str | Path) -> VocDataset:
    """The pictures of a run: each item a crop (3×S×S uint8), its tags (K), and its factors for ``change_colours`` (3).

    Raises:
        UserError: see ``VocDataset``.
    """
    transform = training_transform(config.size, scale=config.scale)
    return VocDataset(root, config.split, transform=partial(_image_tags_colours, transform, config.jitter))


def _image_tags_colours(
    transform: Callable[[Tensor], Tensor], jitter: float, sample: Sample
) -> tuple[Tensor, Tensor, Tensor]:
    return transform(sample["image"]), sample["tags"], draw_colours(jitter)


def _run_epoch(
    trainer: Trainer, dataset: VocDataset, keeper: Keeper, requests: StopRequests, *, progress: bool
) -> dict[str, Any]:
    """The rest of the epoch under way, and its line of the log."""
    config, epoch = trainer.config, trainer.epoch
    loader = epoch_loader(
        dataset,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        start=trainer.batch,
        workers=config.workers,
        pin=trainer.device.type == "cuda",
    )
    batches = batches_of(len(dataset), config.batch_size)
    phase = phase_of(config, epoch)
    started, before, rate = time.perf_counter(), trainer.totals.get("seconds", 0.0), 0.0
    bar = tqdm(
        loader,
        desc=f"epoch {epoch + 1}/{config.epochs} {phase.name}",
        initial=trainer.batch,
        total=batches,
        disable=not progress,
        leave=False,
    )
    for images, tags, colours in bar:
        if config.jitter:
            images = change_colours(images.to(trainer.device, non_blocking=True), colours)
        step, steps = epoch * batches + trainer.batch, config.epochs * batches
        rate = set_learning_rate(trainer.optimizer, config, step=step, steps=steps)
        alpha = alpha_at(step, steps, most=config.puzzle_alpha)
        losses = trainer.step(images, tags, phase, step=step, alpha=alpha)
        trainer.batch += 1
        for name, value in losses.items():
            trainer.totals[name] = trainer.totals.get(name, 0.0) + value / batches
        trainer.totals["seconds"] = before + time.perf_counter() - started
        bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()})
        if trainer.batch < batches:  # the end of an epoch is the caller's
            if requests.pending or keeper.due():
                keeper.save(trainer.checkpoint())
            requests.obey()
    seconds = trainer.totals.pop("seconds")
    return {
        "epoch": epoch + 1,
        "phase": phase.name,
        "learning_rate": rate,
        "losses": trainer.totals,
        "seconds": round(seconds, 2),
        "pictures_per_second": round(batches * (loader.batch_size or 1) / seconds, 1),
    }
