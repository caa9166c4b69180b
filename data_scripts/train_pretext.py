"""Train the small network on its pretext and write the weights that the package ships.

It plays the part that ImageNet plays for larger networks: see rsepm_edu/data/creature_pretext.py. On a GPU it takes a
minute after the drawing, on one core of a processor about fifty. A processor gives the same file each time, with the
same versions of torch and numpy. The package's file was made on an H200 (torch 2.11; tag loss 0.0714 in the last
epoch): a processor draws its batches in another order, and gives other weights.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsepm_edu.data.creature_pretext import PRETEXT_TAGS, draw_close_ups
from rsepm_edu.data.transforms import normalise
from rsepm_edu.device import resolve_device
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path
from rsepm_edu.models.backbone import Backbone
from rsepm_edu.models.backbones import PRETEXT, creatures_backbone

FILE = Path(__file__).parents[1] / "rsepm_edu" / "models" / PRETEXT
BATCH = 96
LEARNING_RATE = 4e-3


def draw(scenes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Close-ups N×3×S×S uint8, four of each scene, and their tags N×T."""
    drawn = [draw_close_ups(seed, index) for index in range(scenes)]
    images = torch.from_numpy(np.concatenate([images for images, _ in drawn])).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(np.concatenate([tags for _, tags in drawn]))


class TagHeads(nn.Module):
    """Two 1×1 convolutions over the last stage: one map's mean is a tag's logit, the other's soft maximum too.

    The mean asks every position of an animal for evidence; the maximum finds a head, which is a few positions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Conv2d(channels, len(PRETEXT_TAGS), 1)
        self.maximum = nn.Conv2d(channels, len(PRETEXT_TAGS), 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(features).mean(dim=(2, 3)), self.maximum(features).flatten(2).logsumexp(dim=2) - math.log(4)


def train(images: Tensor, tags: Tensor, *, epochs: int, seed: int, device: torch.device) -> Backbone:
    """Learn the tags; the backbone is what stays. Prints a line an epoch."""
    torch.manual_seed(seed)
    images, tags = images.to(device), tags.to(device)
    backbone = creatures_backbone()
    heads = TagHeads(backbone.channels[-1])
    network = nn.ModuleList([backbone, heads]).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(epochs):
        start, total = time.monotonic(), torch.zeros((), device=device)
        order = torch.randperm(len(images), device=device)
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            flipped = torch.rand(BATCH, 1, 1, 1, device=device) < 0.5
            batch = torch.where(flipped, images[rows].flip(-1), images[rows])
            votes = heads(backbone(normalise(batch).to(memory_format=torch.channels_last))[-1])
            loss = torch.stack([F.binary_cross_entropy_with_logits(logits, tags[rows]) for logits in votes]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        seconds = time.monotonic() - start
        mean = float(total) / (len(images) // BATCH)
        print(f"epoch {epoch + 1}/{epochs}: tag loss {mean:.4f}, {seconds:.0f} s", flush=True)
    return backbone.cpu()


def save(backbone: Backbone, path: Path) -> None:
    """Write the weights in half precision."""
    state = {
        name: value.half() if value.is_floating_point() else value for name, value in backbone.state_dict().items()
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE, help="file to write (the package's)")
    parser.add_argument("--scenes", type=int, default=20000, help="scenes to draw, four close-ups each (%(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="rounds through them (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same weights (%(default)s)")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU where there is one)")
    options = parser.parse_args()
    try:
        device = resolve_device(options.device)
        if 4 * options.scenes < BATCH or options.epochs < 1:
            raise UserError(
                f"expected at least {BATCH // 4} scenes and one epoch, got {options.scenes}, {options.epochs}"
            )
        images, tags = draw(options.scenes, options.seed)
        save(train(images, tags, epochs=options.epochs, seed=options.seed, device=device), options.out)
    except UserError as error:
        print(f"train_pretext: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
