"""The small trained networks that come with the lessons, so that each lesson starts at once."""

import io
import json
import os
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path
from rsepm_edu.models.network import SingleStageNetwork, build_network
from rsepm_edu.saved import read_saved
from rsepm_edu.training.config import TrainConfig

CREATURES_CAM = "creatures_cam"
"""Trained on the tags of Creatures, for classification alone (train_checkpoints.py)."""

CREATURES_RANDOM_START = "creatures_random_start"
"""Trained as creatures_cam, but from random weights and not from the pretext's."""

CREATURES_PUZZLE = "creatures_puzzle"
"""creatures_cam, and eight more epochs with Puzzle-CAM's losses."""

CREATURES_RS = "creatures_rs"
"""creatures_cam, and eight epochs of RecurSeed; its decoder is trained, too."""

CREATURES_EPM = "creatures_epm"
"""creatures_rs, and four more epochs with EdgePredictMix."""


def save_lesson_network(
    path: str | os.PathLike[str],
    network: SingleStageNetwork,
    *,
    backbone: str,
    decoder: TrainConfig | None = None,
) -> None:
    """Write a network in float16.

    Args:
        path: file to write.
        network: trained.
        backbone: see ``build_backbone``.
        decoder: the settings that its decoder was made with; None: it was not trained and is left out.
    """
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
        if decoder is not None or not name.startswith("decoder.")
    }
    saved: dict[str, Any] = {"backbone": backbone, "classes": list(network.classes), "state": state}
    if decoder is not None:
        saved["decoder"] = {
            "decoder_channels": decoder.decoder_channels,
            "decoder_rates": list(decoder.decoder_rates),
            "separable": decoder.separable,
        }
    # Through memory: written to a file, torch's archive would hold the name of the temporary file.
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_lesson_network(name: str = CREATURES_CAM) -> SingleStageNetwork:
    """A network that comes with the package, on the CPU, in evaluation mode.

    All but `creatures_rs` and `creatures_epm` know tags only: call them with `decode=False`, their decoder was never
    trained (their `learnt` says so, and what asks for its maps is refused).

    Raises:
        UserError: the package holds no network of that name.
    """
    resource = files("rsepm_edu.course") / "checkpoints" / f"{name}.pt"
    if not resource.is_file():
        raise UserError(f"name: expected a network that comes with the lessons, got {name!r}")
    with as_file(resource) as path:
        return _read(path)


def load_lesson_record(name: str = CREATURES_CAM) -> dict[str, Any]:
    """How a network that comes with the package was made: command, settings, versions, losses by epoch.

    Raises:
        UserError: the package holds no network of that name.
    """
    resource = files("rsepm_edu.course") / "checkpoints" / f"{name}.json"
    if not resource.is_file():
        raise UserError(f"name: expected a network that comes with the lessons, got {name!r}")
    record: dict[str, Any] = json.loads(resource.read_text("utf-8"))
    return record


def _read(path: Path) -> SingleStageNetwork:
    saved = read_saved(path, "a network of the lessons")
    decoder = saved.get("decoder", {})
    if decoder:
        decoder["decoder_rates"] = tuple(decoder["decoder_rates"])
    network = build_network(saved["backbone"], saved["classes"], **decoder)
    keys = network.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in saved["state"].items()},
        strict=False,
    )
    wrong = [key for key in keys.missing_keys if decoder or not key.startswith("decoder.")]
    if wrong or keys.unexpected_keys:
        raise RuntimeError(f"{path}: made for another network: {[*wrong, *keys.unexpected_keys]}")
    network.learnt = ("cam", "decoder") if decoder else ("cam",)
    return network.eval()
