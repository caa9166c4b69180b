"""What all explorers share: controls, one picture, and a still for pages without a kernel.

Each explorer draws its picture itself (numpy and Pillow, a few milliseconds) and hands it as PNG to an
`ipywidgets.Image`; nothing is plotted inside an `Output` widget, because that can deadlock when a notebook runs without
a browser. Beside the live view the notebook keeps the PNG of the first state, so that a page without a kernel (GitHub,
a print) still shows a figure.
"""

import base64
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rsepm_edu.viz.panels import EXTRA as EXTRA
from rsepm_edu.viz.panels import MISSED as MISSED
from rsepm_edu.viz.panels import RIGHT as RIGHT
from rsepm_edu.viz.panels import Picture

TILE = 250  # pixels of a tile's longer side
GAP, LINE = 8, 20  # pixels between tiles, pixels of one line of text


class Explorer(ABC):
    """Controls above one picture; the last line of a cell shows it.

    A subclass makes its controls and inputs, then calls this constructor last, since the first picture is drawn in it.
    `picture` (Image) is the live picture, `box` holds everything.

    Args:
        controls: ipywidgets with a `value`; the picture is drawn anew when one changes.
    """

    def __init__(self, controls: Sequence[Any]) -> None:
        self.picture = ipywidgets.Image(value=self.png(), format="png")
        # In a second row where there is no room: side by side they would be made narrower, and a slider lose its track.
        row = ipywidgets.HBox(list(controls), layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.box = ipywidgets.VBox([row, self.picture])
        for control in controls:
            control.observe(self._update, names="value")

    @abstractmethod
    def render(self) -> Image.Image:
        """The picture of the present state of the controls."""

    @abstractmethod
    def __repr__(self) -> str:
        """The state in one line of text, for pages that show neither widgets nor pictures."""

    def png(self) -> bytes:
        """``render`` as PNG."""
        buffer = io.BytesIO()
        self.render().save(buffer, format="PNG")
        return buffer.getvalue()

    def _update(self, _change: object) -> None:
        self.picture.value = self.png()

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        # This object is no widget itself, so the same bundle serves ipywidgets 7 (whose widgets
        # display through `_ipython_display_`) and 8.
        return {
            "text/plain": repr(self),
            "image/png": base64.b64encode(self.png()).decode(),
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.box.model_id,
            },
        }


def enlarge(array: npt.NDArray[Any], *, smooth: bool = False) -> npt.NDArray[Any]:
    """A picture H×W×3 uint8 or a mask H×W bool at a tile's size."""
    height, width = array.shape[:2]
    scale = TILE / max(height, width)
    method = Image.Resampling.BICUBIC if smooth or scale < 1 else Image.Resampling.NEAREST
    if array.dtype == bool:
        method = Image.Resampling.NEAREST
    size = (round(width * scale), round(height * scale))
    return np.array(Image.fromarray(array).resize(size, method))


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of the mask with a neighbour (left, right, above, below) outside of it."""
    inside = np.pad(mask, 1, constant_values=True)
    around = (inside[:-2, 1:-1], inside[2:, 1:-1], inside[1:-1, :-2], inside[1:-1, 2:])
    return mask & ~np.logical_and.reduce(around)


def compose(
    tiles: Sequence[Picture],
    captions: Sequence[str],
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
) -> Image.Image:
    """Tiles of one size in a row, a caption below each, and a legend of coloured words below the last."""
    height, width = tiles[0].shape[:2]
    lines = 2 if legend else 1
    canvas = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, height + lines * LINE + 2), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left = i * (width + GAP)
        canvas.paste(Image.fromarray(tile), (left, 0))
        draw.text((left, height + 3), caption, fill="black", font=font())
    x, y = (len(tiles) - 1) * (width + GAP), height + LINE + 3
    for text, colour in legend:
        draw.rectangle((x, y + 3, x + 9, y + 12), fill=colour)
        draw.text((x + 13, y), text, fill="black", font=font())
        x += 13 + round(draw.textlength(text, font=font())) + 8
    return canvas


@cache
def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Of all words in explorers."""
    return ImageFont.load_default(size=13)
