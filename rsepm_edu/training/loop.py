"""The training loop: from a folder of pictures with tags to a checkpoint that segments.

Nothing here reads a mask: the data set is opened without them. Only the pictures of a run's state (report.py) show one,
where there is one, for the eye alone.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.loading import batches_of, derive_seed, epoch_loader
from rsepm_edu.data.transforms import change_colours, draw_colours, inside_boxes, normalise, training_crop
from rsepm_edu.data.voc import Sample, VocDataset
from rsepm_edu.device import sent
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_write_text
from rsepm_edu.methods.puzzle import alpha_at
from rsepm_edu.models.network import Outputs, SingleStageNetwork
from rsepm_edu.models.synced_norm import synchronise_batch_norm
from rsepm_edu.processes import World, joined
from rsepm_edu.saved import fill, fill_optimizer, fill_scaler
from rsepm_edu.training.checkpoint import Checkpoint, network_from_config
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.distributed import global_means, replicate, without_exchange
from rsepm_edu.training.interruption import StopRequests
from rsepm_edu.training.keeping import (
    LAST,
    CheckpointWriter,
    Resume,
    find_previous,
    nothing_left_of_a_run_that_never_began,
)
from rsepm_edu.training.memory import memory_advice
from rsepm_edu.training.optimizer import (
    MovingAverage,
    freeze,
    make_optimizer,
    set_learning_rate,
    training_mode,
)
from rsepm_edu.training.phases import Phase, phase_of
from rsepm_edu.training.progress import expect_method_reached
from rsepm_edu.training.report import TrainingLog
from rsepm_edu.training.step import Target, Term, step_terms, teacher_targets
from rsepm_edu.training.targets import Batch, present_first


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
        world: the processes that train together, all with the same arguments; None: this one alone.
    """

    def __init__(
        self, config: TrainConfig, classes: tuple[str, ...], device: torch.device, world: World | None = None
    ) -> None:
        self.config = config
        self.classes = classes
        self.device = device
        self.world = world or World(device)
        self.compute: Callable[..., dict[str, Term]] = self._terms
        torch.manual_seed(derive_seed(config.seed, "weights"))
        with self.world.report_once():
            # Rank 0 alone looks for weights; the others get them from it.
            network = network_from_config(config, classes, weights=None if self.world.is_main else "none")
            if self.world.size > 1:
                synchronise_batch_norm(network, device)
        # Channels last: faster for MobileNetV2 in float32 on one CPU core; not measured on a GPU.
        self.network = network.to(device).to(memory_format=torch.channels_last)
        freeze(self.network, config)
        if self.world.size > 1:
            self.compute = replicate(self.network, self._terms)
        self.average = MovingAverage(self.network, config.ema_decay)
        self.optimizer = make_optimizer(self.network, config)
        self.precision = resolve_precision(config.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.epoch = 0
        self.batch = 0  # of the epoch under way
        self.totals: dict[str, float] = {}  # over these batches: losses by name, and seconds

    def restore(self, checkpoint: Checkpoint, source: str | Path = "checkpoint") -> None:
        """Take over the state of a checkpoint, which came from ``source``.

        Raises:
            UserError: it is the state of another network or optimiser.
        """
        fill(self.network, checkpoint.network, source)
        fill(self.average.network, checkpoint.ema, source)
        fill_optimizer(self.optimizer, checkpoint.optimizer, source)
        fill_scaler(self.scaler, checkpoint.scaler, source)
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

    def step(
        self,
        images: Tensor,
        tags: Tensor,
        phase: Phase,
        *,
        step: int,
        alpha: float = 0.0,
        boxes: Tensor | None = None,
    ) -> dict[str, float]:
        """One optimiser step on a batch of uint8 images, or on this process's share of one.

        Mixing pairs pictures that are in the same share, and part of it; dropout differs from process to process.

        Args:
            images: B×3×S×S uint8; of several processes all give equally many.
            tags: B×K.
            phase: what is on.
            step: number of the step in the whole run, which fixes every random draw in it.
            alpha: weight of Puzzle-CAM's loss in this step, see ``alpha_at``; only its phase asks for it.
            boxes: B×4 int64, where in its crop each picture lies (see ``pad_crop``); None: it fills the crop.

        Returns:
            The weighted loss terms, over the pictures of all processes.

        Raises:
            NotFiniteError: a term or the gradient is infinite or not a number; the weights are untouched.
        """
        torch.manual_seed(derive_seed(self.config.seed, "step", step, *self.world.own))
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "mix", step, *self.world.own))
        training_mode(self.network, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.config.accumulate
        means: dict[str, float] = defaultdict(float)
        if boxes is None:
            boxes = torch.tensor([0, 0, images.shape[2], images.shape[3]]).expand(len(images), 4)
        pieces = list(zip(images.chunk(parts), tags.chunk(parts), boxes.chunk(parts), strict=True))
        terms: list[tuple[str, float]] = []  # of all parts: name, and the part's share of the batch
        told: list[Tensor] = []  # their values
        for number, piece in enumerate(pieces, start=1):
            share = len(piece[0]) / len(images)
            with without_exchange(self.compute, number < len(pieces)):
                losses, values = global_means(self.world, self.compute(*piece, phase, generator, alpha))
                self.scaler.scale(sum(losses.values(), start=torch.zeros(())) * share).backward()
            terms += [(name, share) for name in losses]
            told.append(values)
        self.scaler.unscale_(self.optimizer)
        length = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        *numbers, norm = torch.cat([*told, length[None]]).tolist()  # here alone the host waits for the GPU
        for (name, share), value in zip(terms, numbers, strict=True):
            if not math.isfinite(value):
                raise NotFiniteError(f"loss term {name!r} is {value} at step {step}")
            means[name] += value * share
        if math.isfinite(norm):
            self.optimizer.step()  # as the scaler's own step does, which would wait once more
        elif not self.scaler.is_enabled():  # with it such a step is left out, and its scale made smaller
            raise NotFiniteError(f"the gradient's length is {norm} at step {step}, the losses are finite")
        self.scaler.update()
        self.average.update(self.network, step)
        return dict(means)

    def _terms(
        self, images: Tensor, tags: Tensor, boxes: Tensor, phase: Phase, generator: torch.Generator, alpha: float
    ) -> dict[str, Term]:
        """``step_terms`` of one part of a batch, as it comes from the reader."""
        images, tags, boxes, present = (sent(t, self.device) for t in (images, tags, boxes, present_first(tags)))
        inside = inside_boxes(boxes, (images.shape[2], images.shape[3]))
        images = (normalise(images) * inside).to(memory_format=torch.channels_last)
        teacher = partial(self._forward, self.average.network)

        def targets(batch: Batch) -> list[Target]:
            return teacher_targets(self.config, phase, batch, teacher=teacher, generator=generator)

        student = partial(self._forward, self.network)
        batch = Batch(images, tags, inside, present)
        return step_terms(self.config, phase, batch, student=student, targets=targets, alpha=alpha)

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

    Started by torchrun, all processes train one network, each on its share of every batch (see ``distributed``), and
    rank 0 alone reads weights and checkpoints and writes files.

    Args:
        config: the settings.
        root: data, see ``VocDataset``; masks are not needed and never learnt from.
        out: folder of the run.
        resume: go on from the newest whole last.pt in ``out`` or ``copy_to``; "auto": if there is one. On the CPU the
            result is bit for bit that of a run never stopped, wherever it was stopped.
        copy_to: a second folder that gets every checkpoint and the log, such as one on a mounted drive.
        device: default: the GPU if there is one; of several processes each takes its own.
        progress: show a bar.
        on_start: called before the first step, if there is one left, with the trainer and its data set; of several
            processes on rank 0 alone, so it must not wait for the others.
        on_epoch: called after every epoch with the trainer and the epoch's line of the log, on rank 0 alone.

    Returns:
        The averaged network, in evaluation mode.

    Raises:
        UserError: data, settings or folder do not go together, the epochs end before the method begins, or the device
            has too little memory.
        NotFiniteError: a loss term left the finite numbers; last.pt is the last good state.
        KeyboardInterrupt: it was told to stop; last.pt is the state at that moment.
    """
    with joined(device) as world:
        places = Path(out), None if copy_to is None else Path(copy_to)
        with nothing_left_of_a_run_that_never_began(places[0]) if world.is_main else nullcontext():
            return _train(
                config, root, *places, world, resume=resume, progress=progress, on_start=on_start, on_epoch=on_epoch
            )


def _train(
    config: TrainConfig,
    root: str | Path,
    out: Path,
    second: Path | None,
    world: World,
    *,
    resume: Resume,
    progress: bool,
    on_start: Callable[[Trainer, VocDataset], None] | None,
    on_epoch: Callable[[Trainer, dict[str, Any]], None] | None,
) -> SingleStageNetwork:
    with world.report_once():
        expect_method_reached(config)
        dataset = training_dataset(config, root)
        if len(dataset) < 2:
            raise UserError(f"{root}: expected at least 2 pictures in {config.split}, got {len(dataset)}")
        _expect_equal_shares(config, world, dataset)
    previous = world.from_main(lambda: find_previous(config, dataset.classes, out, second, resume=resume))
    if previous is not None:
        config = replace(config, weights="none")  # they come from the checkpoint
    trainer = Trainer(config, dataset.classes, world.device, world)
    if previous is not None:
        batches = batches_of(len(dataset), config.batch_size)
        if previous.batch > 0 and previous.batch >= batches:
            raise UserError(f"{out / LAST}: expected fewer than {batches} batches of an epoch, got {previous.batch}")
        trainer.restore(previous, out / LAST)
        trainer.config = replace(config, weights=previous.config.weights)
    keeper = log = None
    if world.is_main:
        atomic_write_text(out / "config.json", trainer.config.to_json())
        keeper = CheckpointWriter(out, second, minutes=config.checkpoint_minutes)
        log = TrainingLog(out, trainer, dataset, keep_epochs=trainer.epoch)
    with memory_advice(config, out / LAST), log or nullcontext(), StopRequests() as requests:
        if on_start is not None and world.is_main and trainer.epoch < config.epochs:
            on_start(trainer, dataset)
        while trainer.epoch < config.epochs:
            try:
                row = _run_epoch(trainer, dataset, keeper, requests, progress=progress)
            except NotFiniteError as error:
                raise stopped(error, out / LAST) from None
            trainer.epoch, trainer.batch, trainer.totals = trainer.epoch + 1, 0, {}
            # Before the checkpoint: a line too many is dropped on resume, a missing one never comes.
            if log is not None:
                log.write(row)
            due = trainer.epoch % config.checkpoint_every == 0 or trainer.epoch == config.epochs
            _between_steps(trainer, keeper, requests, due=due)
            if log is not None:
                log.draw(trainer.epoch)
            if on_epoch is not None and world.is_main:
                on_epoch(trainer, row)
    return trainer.average.network


def _expect_equal_shares(config: TrainConfig, world: World, dataset: VocDataset) -> None:
    if world.size > 1 and config.batch_size % (world.size * config.accumulate):
        raise UserError(
            f"batch_size: expected a multiple of processes × accumulate = {world.size} × {config.accumulate}, "
            f"got {config.batch_size}"
        )
    if world.size > 1 and len(dataset) < config.batch_size:
        raise UserError(
            f"{dataset.devkit}: expected at least one batch of {config.batch_size} pictures in {config.split} for "
            f"several processes, got {len(dataset)}"
        )


def _between_steps(
    trainer: Trainer, keeper: CheckpointWriter | None, requests: StopRequests, *, due: bool = False
) -> None:
    """Save the state if it is time; end the run if a process was told to stop, all of them after the same step."""
    stop = trainer.world.any(requests.pending)
    if keeper is not None and (due or stop or keeper.due()):
        keeper.save(trainer.checkpoint())
    if stop:
        trainer.world.any(False)  # one that left earlier would have torchrun kill the others, rank 0 while it saves
        raise KeyboardInterrupt


def training_dataset(config: TrainConfig, root: str | Path) -> VocDataset:
    """The pictures of a run, each a crop (3×S×S uint8), its tags (K), where in the crop the picture lies (4, see
    ``pad_crop``), and its factors for ``change_colours`` (3).

    Raises:
        UserError: see ``VocDataset``.
    """
    transform = training_crop(config.crop, config.size, scale=config.scale)
    return VocDataset(root, config.split, transform=partial(_item, transform, config.jitter))


def _item(
    transform: Callable[[Tensor], tuple[Tensor, Tensor]], jitter: float, sample: Sample
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    image, box = transform(sample["image"])
    return image, sample["tags"], box, draw_colours(jitter)


def _run_epoch(
    trainer: Trainer, dataset: VocDataset, keeper: CheckpointWriter | None, requests: StopRequests, *, progress: bool
) -> dict[str, Any]:
    """The rest of the epoch under way, and its line of the log."""
    config, epoch, world = trainer.config, trainer.epoch, trainer.world
    loader = epoch_loader(
        dataset,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        start=trainer.batch,
        workers=config.workers,
        pin=trainer.device.type == "cuda",
        parts=config.accumulate,
        rank=world.rank,
        processes=world.size,
    )
    batches = batches_of(len(dataset), config.batch_size)
    phase = phase_of(config, epoch)
    started, before, rate = time.perf_counter(), trainer.totals.get("seconds", 0.0), 0.0
    bar = tqdm(
        loader,
        desc=f"epoch {epoch + 1}/{config.epochs} {phase.name}",
        initial=trainer.batch,
        total=batches,
        disable=not (progress and world.is_main),
        leave=False,
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",  # the loss fits 80 columns
    )
    for images, tags, boxes, colours in bar:
        if config.jitter:
            images = change_colours(sent(images, trainer.device), colours)
        step, steps = epoch * batches + trainer.batch, config.epochs * batches
        rate = set_learning_rate(trainer.optimizer, config, step=step, steps=steps)
        alone = min(config.puzzle_start, epoch) * batches  # α begins to grow after these steps
        alpha = alpha_at(step - alone, steps - alone, most=config.puzzle_alpha)
        losses = trainer.step(images, tags, phase, step=step, alpha=alpha, boxes=boxes)
        trainer.batch += 1
        for name, value in losses.items():
            trainer.totals[name] = trainer.totals.get(name, 0.0) + value / batches
        trainer.totals["seconds"] = before + time.perf_counter() - started
        bar.set_postfix(loss=f"{sum(losses.values()):.3f}")  # its terms, too long for a bar, are told after the epoch
        if trainer.batch < batches:  # the end of an epoch is the caller's
            _between_steps(trainer, keeper, requests)
    seconds = trainer.totals.pop("seconds")
    return {
        "epoch": epoch + 1,
        "phase": phase.name,
        "learning_rate": rate,
        "losses": trainer.totals,
        "seconds": round(seconds, 2),
        "pictures_per_second": round(batches * config.batch_size / seconds, 1),
    }
