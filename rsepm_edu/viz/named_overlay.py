"""A picture with its labels laid over it and their names written into it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rsepm_edu.data.palette import colourise
from rsepm_edu.viz.panels import Array, overlay


def named_overlay(image: Array, labels: Array, class_names: Sequence[str]) -> Image.Image:
    """``overlay`` of a mask, with the names of the classes in it at its upper left, each behind a square of its colour.

    Args:
        image: uint8 3×H×W or H×W×3.
        labels: integer H×W, 0 background, 1 … K.
        class_names: the K names.

    Raises:
        ValueError: sizes differ. TypeError: the image is not uint8.
    """
    drawn = Image.fromarray(overlay(image, labels))
    pen, font, line = ImageDraw.Draw(drawn), ImageFont.load_default(), 14
    there = [int(label) for label in np.unique(np.asarray(labels)) if 0 < label <= len(class_names)]
    for row, label in enumerate(there):
        top = 2 + row * line
        colour = tuple(int(part) for part in colourise(np.array([[label]]))[0, 0])
        name = class_names[label - 1].encode("latin-1", "replace").decode("latin-1")  # what the built-in font has
        right = 18 + pen.textlength(name, font=font)
        pen.rectangle((2, top, right, top + line - 1), fill=(255, 255, 255))
        pen.rectangle((4, top + 2, 13, top + line - 4), fill=colour)
        pen.text((16, top + 1), name, fill=(0, 0, 0), font=font)
    return drawn
