"""The small trained networks that come with the lessons, so that each lesson starts at once."""

import io
import os
from importlib.resources import as_file, files
from pathlib import Path

import torch

from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path
from rsepm_edu.models.network import SingleStageNetwork, build_network

CREATURES_CAM = "creatures_cam"
"""Trained on the tags of Creatures, for classification alone (train_checkpoints.py)."""


def save_lesson_network(path: str | os.PathLike[str], network: SingleStageNetwork, *, backbone: str) -> None:
    """Write backbone and classifier in float16; the decoder was not trained and is left out."""
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
        if not name.startswith("decoder.")
    }
    # Through memory: written to a file, torch's archive would hold the name of the temporary file.
    buffer = io.BytesIO()
    torch.save({"backbone": backbone, "classes": list(network.classes), "state": state}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_lesson_network(name: str = CREATURES_CAM) -> SingleStageNetwork:
    """A network that comes with the package, on the CPU, in evaluation mode.

    It knows tags only: call it with `decode=False`, its decoder was never trained.

    Raises:
        UserError: the package holds no network of that name.
    """
    resource = files("rsepm_edu.course") / "checkpoints" / f"{name}.pt"
    if not resource.is_file():
        raise UserError(f"name: expected a network that comes with the lessons, got {name!r}")
    with as_file(resource) as path:
        return _read(path)


def _read(path: Path) -> SingleStageNetwork:
    saved = torch.load(path, map_location="cpu", weights_only=True)
    network = build_network(saved["backbone"], saved["classes"])
    keys = network.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in saved["state"].items()},
        strict=False,
    )
    wrong = [key for key in keys.missing_keys if not key.startswith("decoder.")]
    if wrong or keys.unexpected_keys:
        raise RuntimeError(f"{path}: made for another network: {[*wrong, *keys.unexpected_keys]}")
    return network.eval()
