"""Train the small network on its pretext and write the weights that the package ships.

It plays the part that ImageNet plays for larger networks: see rsepm_edu/data/creature_pretext.py. Minutes on one core.
The same command gives the same file, with the same versions of torch and numpy.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from rsepm_edu.data.creature_pretext import PRETEXT_TAGS, draw_pretext_picture
from rsepm_edu.data.transforms import normalise
from rsepm_edu.errors import UserError
from rsepm_edu.files import atomic_path
from rsepm_edu.models.backbone import Backbone
from rsepm_edu.models.backbones import creatures_backbone

SIZE = 96
BATCH = 32
LEARNING_RATE = 3e-3


def draw(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures N×3×S×S uint8 and their tags."""
    pictures = [draw_pretext_picture(seed, index, SIZE) for index in range(count)]
    images = torch.from_numpy(np.stack([image for image, _ in pictures])).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.stack([tags for _, tags in pictures]))


def train(images: Tensor, tags: Tensor, *, epochs: int, seed: int) -> Backbone:
    """Learn the tags; the backbone is what stays. Prints a line an epoch."""
    torch.manual_seed(seed)
    backbone = creatures_backbone()
    head = nn.Conv2d(backbone.channels[-1], len(PRETEXT_TAGS), 1)
    network = nn.ModuleList([backbone, head]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    transform = v2.Compose([v2.RandomResizedCrop(SIZE, scale=(0.5, 1.0), antialias=True), v2.RandomHorizontalFlip()])
    for epoch in range(epochs):
        start, total = time.monotonic(), 0.0
        order = torch.randperm(len(images))
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            batch = torch.stack([transform(images[row]) for row in rows.tolist()])
            features = backbone(normalise(batch).to(memory_format=torch.channels_last))[-1]
            votes = head(features)  # the mean alone would not find a head, which is a few positions
            loss = F.binary_cross_entropy_with_logits(votes.mean(dim=(2, 3)), tags[rows])
            loss = loss + F.binary_cross_entropy_with_logits(votes.flatten(2).topk(8, 2).values.mean(2), tags[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.monotonic() - start
        print(f"epoch {epoch + 1}/{epochs}: tag loss {total / (len(images) // BATCH):.4f}, {seconds:.0f} s", flush=True)
    return backbone


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
    parser.add_argument("--out", type=Path, default=Path("creatures-pretext.pt"), help="file to write")
    parser.add_argument("--pictures", type=int, default=6000, help="pictures to draw (%(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="rounds through them (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same weights (%(default)s)")
    options = parser.parse_args()
    try:
        if options.pictures < BATCH or options.epochs < 1:
            raise UserError(
                f"expected at least {BATCH} pictures and one epoch, got {options.pictures}, {options.epochs}"
            )
        images, tags = draw(options.pictures, options.seed)
        save(train(images, tags, epochs=options.epochs, seed=options.seed), options.out)
    except UserError as error:
        print(f"train_pretext: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
