"""Train the small networks that come with the lessons, and write them into the package.

    python data_scripts/train_checkpoints.py

Two to four minutes on one CPU core. One thread and a fixed seed: the same machine and versions give
the same bytes again. Beside each network a JSON file says how it was made.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from rsepm_edu.course.networks import CREATURES_CAM, save_lesson_network
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_write_text
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import train

FOLDER = Path(__file__).parents[1] / "rsepm_edu" / "course" / "checkpoints"

# Classification alone. Written out, not derived from a preset, so that tuning a preset for other
# purposes leaves the lessons' networks as they are. Small batches: the heads are small, and many
# steps find them earlier. The decoder is made as small as can be; it is neither trained nor kept.
CONFIG = TrainConfig(
    method="cam",
    split="train",
    backbone="creatures",
    weights="none",
    decoder_channels=8,
    decoder_rates=(2,),
    separable=True,
    epochs=25,
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=0.01,
    head_factor=1.0,
    batch_size=16,
    ema_decay=0.99,
    size=96,
    scale=(0.5, 1.0),
    jitter=0.0,
    workers=0,
    precision="fp32",
    panel_every=0,
)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to (the package)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory() as run:
            network = train(
                CONFIG,
                ensure_creatures(),
                run,
                device="cpu",
                on_epoch=lambda _, row: rows.append(row),
            )
    except UserError as error:
        print(f"train_checkpoints: {error}", file=sys.stderr)
        return 2
    path = options.out / f"{CREATURES_CAM}.pt"
    save_lesson_network(path, network, backbone=CONFIG.backbone)
    losses = [round(row["losses"]["tags"], 4) for row in rows]
    record = {
        "command": "python data_scripts/train_checkpoints.py",
        "data": "Creatures: train 1000, size 96, seed 0",
        "config": asdict(CONFIG),
        "versions": {m.__name__: str(m.__version__) for m in (torch, torchvision, np)},
        "loss_by_epoch": losses,
    }
    atomic_write_text(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, last loss {losses[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
