"""Checkpoints: all that a run needs to go on, and a network that is ready to use."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from rsepm_edu.errors import UserError, one_line
from rsepm_edu.files import atomic_path
from rsepm_edu.models.network import SingleStageNetwork, build_network
from rsepm_edu.saved import expect_finite, fill, is_number, kind_of, read_saved
from rsepm_edu.training.config import Settings, TrainConfig
from rsepm_edu.training.phases import Phase
from rsepm_edu.training.progress import learnt_heads, reached_phase

FORMAT = 1

AnySettings = TypeVar("AnySettings", bound=Settings)
AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


@dataclass
class Checkpoint:
    """What a file holds: settings, classes, how far the run is, and the states of network, average and optimiser.

    epoch: epochs done. batch: batches done of the next one. totals: sums of the log over these, by name. source:
    the file it came from, for messages.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    epoch: int
    network: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    batch: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    source: Path = Path("checkpoint")

    @property
    def progress(self) -> tuple[int, int]:
        """Epochs and batches done: the greater, the further."""
        return self.epoch, self.batch

    @property
    def phase(self) -> Phase | None:
        """The phase the run has come to, whatever method it was started with; None before its first step."""
        return reached_phase(self.config, self.progress)

    @property
    def learnt(self) -> tuple[str, ...]:
        """The heads that the run has trained so far, of "cam" and "decoder": readers of networks ask this alone."""
        return learnt_heads(self.config, self.progress)

    def build_network(self) -> SingleStageNetwork:
        """The averaged network, on the CPU, in evaluation mode; its ``learnt`` names the trained heads.

        Raises:
            UserError: nothing was learnt yet.
        """
        if not self.learnt:
            raise UserError(f"{self.source}: expected a trained network, got one before its first step")
        network = restored(
            self.source, lambda: network_from_config(self.config, self.classes, weights="none"), self.ema
        )
        network.learnt = self.learnt
        return network


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint beside ``path`` and rename it: a reader finds the old one or the new one, whole."""
    state = {
        "format": FORMAT,
        "config": json.dumps(asdict(checkpoint.config)),  # plain text, so that weights_only loading is enough
        "classes": list(checkpoint.classes),
        "epoch": checkpoint.epoch,
        "batch": checkpoint.batch,
        "totals": json.dumps(checkpoint.totals),
        "network": checkpoint.network,
        "ema": checkpoint.ema,
        "optimizer": checkpoint.optimizer,
        "scaler": checkpoint.scaler,
    }
    save_state(path, state)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what ``torch.save`` can hold, beside ``path``, and rename it.

    Raises:
        UserError: it cannot be written, on a full disk say; the old file is as it was.
    """
    try:
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch's own archive says "unexpected pos" where a disk is full
        reason = getattr(error, "strerror", None) or "no room on the disk, or no right to write"
        kept = "the one before it is whole" if path.is_file() else "none was saved before"
        raise UserError(f"{path}: expected to write a checkpoint, got: {reason}; {kept}") from error


def read_state(path: Path, file_format: int | str) -> dict[str, Any]:
    """Read what was saved with that "format" onto the CPU, with ``weights_only=True``.

    Raises:
        UserError: missing, damaged, or of another format.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a checkpoint, got no such file")
    state = read_saved(path, "a whole checkpoint")
    found = state.get("format") if isinstance(state, dict) else None
    if type(found) is not type(file_format) or found != file_format:
        raise UserError(f"{path}: expected a checkpoint of rsepm-edu, format {file_format}, got another file")
    return state


def entry(path: Path, state: dict[str, Any], name: str, kind: type) -> Any:
    """What a state holds under a name.

    Raises:
        UserError: nothing, or something of another kind.
    """
    value = state.get(name)
    if type(value) is not kind and not (kind is dict and isinstance(value, dict)):
        raise UserError(f"{path}: expected a checkpoint with {name} ({kind.__name__}), got {kind_of(value)}")
    return value


def read_json(path: Path, state: dict[str, Any], name: str, kind: type) -> Any:
    """What a state holds as JSON under a name.

    Raises:
        UserError: no JSON, or something of another kind.
    """
    text = entry(path, state, name, str)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected a checkpoint with {name} in JSON, got: {one_line(error)}") from error
    if type(value) is not kind:
        raise UserError(f"{path}: expected a checkpoint with {name} ({kind.__name__}), got {kind_of(value)}")
    return value


def read_config(path: Path, state: dict[str, Any], kind: type[AnySettings]) -> AnySettings:
    """The settings in a state.

    Raises:
        UserError: damaged, or written by a version with other settings.
    """
    values = read_json(path, state, "config", dict)
    for name, default in kind().to_dict().items():
        if name in values and not _alike(values[name], default):
            raise UserError(f"{path}: expected {name} like {default!r}, got {kind_of(values[name])}")
    try:
        return kind.from_dict(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _alike(value: Any, default: Any) -> bool:
    """Whether a value from JSON is of the kind of a setting's default; a whole number will do for any other."""
    if isinstance(default, tuple):
        return isinstance(value, list) and all(_alike(item, default[0]) for item in value)
    if isinstance(default, float):
        return is_number(value)
    return type(value) is type(default)


def read_classes_of(path: Path, state: dict[str, Any]) -> tuple[str, ...]:
    """The names of the classes in a state.

    Raises:
        UserError: they are not different names.
    """
    classes = entry(path, state, "classes", list)
    if not classes or not all(isinstance(name, str) and name for name in classes) or len(set(classes)) < len(classes):
        raise UserError(f"{path}: expected a checkpoint with different names of classes, got {classes!r:.80}")
    return tuple(classes)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, with ``weights_only=True``.

    Raises:
        UserError: missing, damaged, with numbers that are not finite, or not a checkpoint of this package.
    """
    path = Path(path)
    state = {"batch": 0, "totals": "{}"} | read_state(path, FORMAT)  # older files were only written after an epoch
    config = read_config(path, state, TrainConfig)
    epoch, batch = entry(path, state, "epoch", int), entry(path, state, "batch", int)
    if not (0 <= epoch <= config.epochs and batch >= 0):
        raise UserError(f"{path}: expected 0 to {config.epochs} epochs done and a batch, got {epoch} and {batch}")
    totals = read_json(path, state, "totals", dict)
    if not all(is_number(value) for value in totals.values()):
        raise UserError(f"{path}: expected a checkpoint with totals that are numbers, got {totals!r:.80}")
    parts = {name: entry(path, state, name, dict) for name in ("network", "ema", "optimizer", "scaler")}
    expect_finite(parts, path)
    classes = read_classes_of(path, state)
    return Checkpoint(config=config, classes=classes, epoch=epoch, batch=batch, totals=totals, source=path, **parts)


def restored(path: Path, build: Callable[[], AnyNetwork], weights: Any) -> AnyNetwork:
    """A network as the settings of a file have it, filled with the weights of the file, in evaluation mode.

    Raises:
        UserError: it cannot be built, or the weights are not its own.
    """
    try:
        network = build()
    except Exception as error:  # torch's own for sizes out of range: runtime, value, type, memory errors
        raise UserError(f"{path}: expected settings of a network, got: {one_line(error)}") from error
    fill(network, weights, path)
    return network.eval()


def network_from_config(
    config: TrainConfig, classes: tuple[str, ...], *, weights: str | None = None
) -> SingleStageNetwork:
    """The network of a run, with the weights it starts from or those named by ``weights``."""
    return build_network(
        config.backbone,
        classes,
        output_stride=config.output_stride,
        weights=config.weights if weights is None else weights,
        decoder_channels=config.decoder_channels,
        decoder_rates=config.decoder_rates,
        separable=config.separable,
    )


def load_network(path: str | Path) -> SingleStageNetwork:
    """The averaged network of a checkpoint, on the CPU, in evaluation mode; its ``learnt`` names the trained heads.

    Raises:
        UserError: see ``load_checkpoint``; or nothing was learnt yet.
    """
    return load_checkpoint(path).build_network()
