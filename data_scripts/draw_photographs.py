"""Draw what three networks make of the photographs in docs/photographs: of all of them, whatever comes out.

The networks are three trainings with the same seed on photographs of VOC, with tags alone: CAM, RecurSeed, RecurSeed
and EdgePredictMix. They are not part of the repository; ``make results-voc-sample-gpu`` trains them.

Every map and every mask becomes a file of its own, so that a page shows four in a row and a phone two.
Afterwards: python data_scripts/put_photographs.py
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from rsepm_edu.data.palette import colourise
from rsepm_edu.data.pictures import read_image
from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VOC_CLASSES
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.scoring import present_maps
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.evaluation.segmenting import look
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.seed_options import seed_options_of
from rsepm_edu.viz.panels import overlay, picture

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ROOT / "docs" / "photographs"
OUT = ROOT / "docs" / "pictures" / "photographs"

TAGS = {
    "dog": "dog",
    "cat": "cat",
    "astronaut": "person",
    "sheep": "sheep",
    "chelsea": "cat",
    "cameraman": "person",
    "car": "car",
    "parrot": "bird",
}
"""The tag of each photograph, in the order of the pages. README shows the first two, lessons the first four. That was
settled before a network had seen them."""

HEADINGS = {
    "photograph": "tag: {tag}",
    "cam": "CAM",
    "target": "M_rs of this CAM",
    "cam_rs": "CAM after RecurSeed",
    "mask_rs": "RS: {tag}",
    "mask_rs_epm": "RS + EPM: {tag}",
}
"""What is drawn of a photograph, and what is written above it."""

WIDE, BAR, LETTERS = 280, 34, 21
"""Pixels of a picture's width, of the bar above it and of its letters; pages show it 175 wide."""

QUALITY = 68
"""Of WebP: the letters are still clean, and all pictures together have 0.3 MB."""


class Networks(NamedTuple):
    """Trained with tags, with RecurSeed, with RS + EPM; and how the first one's maps are made."""

    cam: SingleStageNetwork
    rs: SingleStageNetwork
    rs_epm: SingleStageNetwork
    options: SeedOptions


def load(cam: Path, rs: Path, rs_epm: Path) -> Networks:
    """The networks of three checkpoints.

    Raises:
        UserError: see ``load_checkpoint``; or a network of other classes than VOC's.
    """
    checkpoints = [load_checkpoint(path) for path in (cam, rs, rs_epm)]
    for checkpoint in checkpoints:
        if checkpoint.classes != VOC_CLASSES:
            raise UserError(f"{checkpoint.source}: expected VOC's classes, got {', '.join(checkpoint.classes)}")
    options = seed_options_of(checkpoints[0].config, ("cam",))
    first, second, third = (checkpoint.build_network() for checkpoint in checkpoints)
    return Networks(first, second, third, options)


@torch.no_grad()
def drawn(networks: Networks, image: Tensor, tag: str) -> dict[str, Image.Image]:
    """A photograph, maps and masks by the names of ``HEADINGS``. The tag is given to all networks.

    Args:
        networks: their decoders trained, but for the first.
        image: uint8 3×H×W.
        tag: one of VOC's classes.
    """
    tags = torch.zeros(len(VOC_CLASSES))
    tags[VOC_CLASSES.index(tag)] = 1
    _, maps, _ = present_maps(networks.cam, normalise(image[None]), tags[None], networks.options)
    rs, rs_epm = (look(network, image, tags) for network in (networks.rs, networks.rs_epm))
    assert rs.cam is not None and rs.probabilities is not None and rs_epm.probabilities is not None
    planes = {"cam": maps["cam"], "target": maps["cam+scg+pamr"], "cam_rs": rs.cam}
    masks = {"mask_rs": rs.probabilities, "mask_rs_epm": rs_epm.probabilities}
    shown = {"photograph": Image.fromarray(picture(image))}
    shown |= {name: Image.fromarray(overlay(image, plane[0, 0].clamp(0, 1))) for name, plane in planes.items()}
    label = VOC_CLASSES.index(tag) + 1
    return shown | {name: cut_out(image, label * scores[0].argmax(dim=0)) for name, scores in masks.items()}


def cut_out(image: Tensor, mask: Tensor) -> Image.Image:
    """The photograph, dark where the mask is background, else in the colours of the classes, with a white outline.

    Args:
        image: uint8 3×H×W.
        mask: labels H×W.
    """
    inside = Image.fromarray((mask > 0).numpy()).convert("L")
    bright = Image.blend(Image.fromarray(picture(image)), Image.fromarray(colourise(mask)), 0.45)
    shown = Image.fromarray(picture(image) // 5 * 2)
    shown.paste(bright, mask=inside)
    shown.paste("white", mask=ImageChops.subtract(inside.filter(ImageFilter.MaxFilter(5)), inside))
    return shown


def headed(shown: Image.Image, heading: str) -> Image.Image:
    """A picture below a bar with its heading, which is read on a white page and on a black one."""
    tall = round(shown.height * WIDE / shown.width)
    whole = Image.new("RGB", (WIDE, BAR + tall), "#24292f")
    whole.paste(shown.resize((WIDE, tall), Image.Resampling.LANCZOS), (0, BAR))
    font = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", LETTERS)
    ImageDraw.Draw(whole).text((8, BAR / 2), heading, fill="white", font=font, anchor="lm")
    return whole


def main() -> None:
    """All photographs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, method in (("cam", "tags alone"), ("rs", "RecurSeed"), ("rs-epm", "RecurSeed and EdgePredictMix")):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="CHECKPOINT", help=f"trained with {method}")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder (default: the one whose files pages show)")
    options = parser.parse_args()
    try:
        networks = load(options.cam, options.rs, options.rs_epm)
    except UserError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, tag in TAGS.items():
        for kind, shown in drawn(networks, read_image(PHOTOGRAPHS / f"{name}.jpg"), tag).items():
            file = options.out / f"{name}_{kind}.webp"
            headed(shown, HEADINGS[kind].format(tag=tag)).save(file, quality=QUALITY, method=6)
        print(name)


if __name__ == "__main__":
    main()
