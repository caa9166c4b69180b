"""What led to a folder of files: settings beside them in a stage.json, digests of networks and data among these."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_write_text, read_bytes, remove_leftovers
from rsepm_edu.multistage.labelled import RESUMABLE, LabelledConfig

STAGE = "stage.json"


def claim(folder: Path, record: dict[str, Any]) -> Path:
    """Take a folder for the files that some settings lead to.

    Args:
        folder: new, or taken before for the same settings; where it has no files yet, others may take it.
        record: settings by stage.

    Raises:
        UserError: it holds what other settings led to, or files of another kind.
    """
    remove_leftovers(folder)
    path = folder / STAGE
    now = json.loads(json.dumps(record))
    others = folder.is_dir() and any(entry != path for entry in folder.iterdir())
    if path.is_file() and others:
        content = read_bytes(path, "the settings of a stage")
        try:
            before = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: expected the settings of a stage, got: {error}") from error
        if not isinstance(before, dict) or not all(isinstance(settings, dict) for settings in before.values()):
            raise UserError(f"{path}: expected the settings of a stage, by stage, got other JSON")
        for name in [*before, *now]:
            _expect_same(path, name, before.get(name, {}), now.get(name, {}))
        return folder
    if others:
        raise UserError(f"{folder}: expected a new folder or one with a {STAGE}, got other files")
    atomic_write_text(path, json.dumps(now, indent=2) + "\n")
    return folder


def _expect_same(path: Path, stage: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in [*before, *now]:
        if before.get(name) != now.get(name):
            raise UserError(
                f"{path}: expected {stage}.{name} = {before.get(name)!r} as for the files there, "
                f"got {now.get(name)!r} (remove the folder, or choose another one for the run)"
            )


def fingerprint(network: nn.Module) -> str:
    """A short digest of a network's weights and statistics: the same for the same numbers."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def digest(dataset: VocDataset) -> str:
    """Which pictures and tags a data set has: its split, their number, and a digest of names and tags."""
    digest = hashlib.sha256("\n".join(dataset.names).encode())
    digest.update(dataset.tags.to(torch.uint8).numpy().tobytes())
    return f"{dataset.split} {len(dataset)} {digest.hexdigest()[:16]}"


def training_settings(config: LabelledConfig) -> dict[str, Any]:
    """The settings of a training that change what it computes."""
    return {name: value for name, value in asdict(config).items() if name not in RESUMABLE}
