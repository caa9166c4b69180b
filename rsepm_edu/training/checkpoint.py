"""Checkpoints: all that a run needs to go on, and a network that is ready to use."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path
from rsepm_edu.models.network import SingleStageNetwork, build_network
from rsepm_edu.training.config import Settings, TrainConfig
from rsepm_edu.training.phases import Phase
from rsepm_edu.training.progress import learnt_heads, reached_phase

FORMAT = 1

AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass
class Checkpoint:
    """What a file holds: settings, classes, how far the run is, and the states of network, average and optimiser.

    epoch: epochs done. batch: batches done of the next one. totals: sums of the log over these, by name.
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
            raise UserError("checkpoint: expected a trained network, got one before its first step")
        network = network_from_config(self.config, self.classes, weights="none")
        network.load_state_dict(self.ema)
        network.learnt = self.learnt
        return network.eval()


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
        UserError: missing, unreadable, or of another format.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a checkpoint, got no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: pickle, zip, runtime, end of file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: expected a whole checkpoint, got: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != file_format:
        raise UserError(f"{path}: expected a checkpoint of rsepm-edu, format {file_format}, got another file")
    return state


def read_config(path: Path, state: dict[str, Any], kind: type[AnySettings]) -> AnySettings:
    """The settings in a state.

    Raises:
        UserError: written by a version with other settings.
    """
    try:
        return kind.from_dict(json.loads(state["config"]))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, with ``weights_only=True``.

    Raises:
        UserError: missing, unreadable, or not a checkpoint of this package.
    """
    path = Path(path)
    state = read_state(path, FORMAT)
    return Checkpoint(
        config=read_config(path, state, TrainConfig),
        classes=tuple(state["classes"]),
        epoch=state["epoch"],
        network=state["network"],
        ema=state["ema"],
        optimizer=state["optimizer"],
        scaler=state["scaler"],
        batch=state.get("batch", 0),  # older files were only written after an epoch
        totals=json.loads(state.get("totals", "{}")),
    )


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
