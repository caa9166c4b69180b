"""Draw README's first picture: images, and what the lessons' network makes of them after RecurSeed.

The first validation images with one, two and three kinds of creatures are shown, whatever comes out; nothing is chosen
by its result.
"""

import argparse
from pathlib import Path

import torch

from rsepm_edu.course.networks import CREATURES_RS, load_lesson_network
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.palette import colourise
from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.training.config import preset
from rsepm_edu.training.targets import Batch, decoder_maps, refine
from rsepm_edu.viz.panels import heat, panel

OUT = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "method_at_work.png"
COLUMNS = ["image", "CAM", "RecurSeed's target", "network's mask", "true mask"]


@torch.no_grad()
def main() -> None:
    """Images and tags go in; the true mask is drawn beside the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the file (default: the one that README shows)")
    options = parser.parse_args()
    network, config = load_lesson_network(CREATURES_RS), preset("creatures-cpu")
    pictures = VocDataset(ensure_creatures(), "val", masks=True)
    kinds = pictures.tags.sum(dim=1)
    samples = [pictures[int((kinds == count).nonzero()[0])] for count in (1, 2, 3)]
    images = normalise(torch.stack([sample["image"] for sample in samples]))
    tags = torch.stack([sample["tags"] for sample in samples])
    outputs = network(images)
    cams = normalize_cam(outputs.cam, tags).amax(dim=1)
    targets = refine(config, Batch(images, tags, torch.ones_like(images[:, :1])), outputs).rs_map.amax(dim=1)
    masks = decoder_maps(config, images, tags, outputs, pamr=True).argmax(dim=1)
    rows = [
        [sample["image"], heat(cam), heat(target), colourise(mask), colourise(sample["mask"])]
        for sample, cam, target, mask in zip(samples, cams, targets, masks, strict=True)
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    panel(rows, COLUMNS, size=1.6).savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    main()
