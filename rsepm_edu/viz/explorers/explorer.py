"""What all explorers share: controls, tiles that wrap, words as HTML, and a still for pages without a kernel.

Each explorer draws its tiles itself (numpy and Pillow, a few milliseconds) and hands them as PNG to widgets of the kind
`ipywidgets.Image`; nothing is plotted inside an `Output` widget, because that can deadlock when a notebook runs without
a browser. Beside the live view the notebook keeps one PNG of the first state, so that a page without a kernel (GitHub,
a print) still shows a figure.
"""

import base64
import io
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import Any, ClassVar, NamedTuple

import ipywidgets
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rsepm_edu.viz.panels import EXTRA as EXTRA
from rsepm_edu.viz.panels import MISSED as MISSED
from rsepm_edu.viz.panels import RIGHT as RIGHT
from rsepm_edu.viz.panels import Picture, small_png

TILE = 384  # pixels of a tile's longer side: four times a picture of Creatures
GAP, LINE = 16, 34  # pixels of the still: between tiles, of one line of text
ACROSS = 4  # tiles a line of the still

Legend = Sequence[tuple[str, tuple[int, int, int]]]


class View(NamedTuple):
    """Tiles of one size, a caption for each, and coloured words below the last caption."""

    tiles: Sequence[Picture]
    captions: Sequence[str]
    legend: Legend = ()


class Explorer(ABC):
    """Controls above tiles with captions; the last line of a cell shows it.

    A subclass makes its controls and inputs, then calls this constructor last, since the first tiles are drawn in it.
    `pictures` (Image) and `words` (HTML) are the live tiles and their captions, `box` holds everything.

    Args:
        controls: ipywidgets with a `value`; the tiles are drawn anew when one changes.
    """

    on_pages: ClassVar[Mapping[str, Sequence[Any] | None]]
    """The controls that move on pages without a kernel, and the values that they take there; None: all that they offer.
    Every combination is drawn beforehand (see `frames`), so these are few."""
    charts: ClassVar[Sequence[int]] = ()
    """Numbers of the tiles that have words and digits in them: these get a row of their own where a row is narrow."""

    def __init__(self, controls: Sequence[Any]) -> None:
        self.controls = list(controls)
        view = self.render()
        wide = ipywidgets.Layout(width="100%", height="auto")
        self.pictures = [ipywidgets.Image(format="png", layout=wide) for _ in view.tiles]
        self.words = [ipywidgets.HTML(layout=ipywidgets.Layout(width="100%", margin="2px 0")) for _ in view.tiles]
        self._show(view)
        # As many in a row as fit, two on a phone; a chart alone has the whole width.
        share = f"{max(22, 96 // len(view.tiles))}%" if len(view.tiles) <= ACROSS else "22%"
        common = {"flex": f"1 1 {share}", "max_width": "30em" if len(view.tiles) > 1 else "56em", "margin": "2px 4px"}
        least = ["250px" if i in self.charts else "120px" for i in range(len(view.tiles))]
        layouts = [ipywidgets.Layout(min_width=width, **common) for width in least]
        parts = zip(zip(self.pictures, self.words, strict=True), layouts, strict=True)
        tiles = [ipywidgets.VBox(pair, layout=layout) for pair, layout in parts]
        wrapped = ipywidgets.Layout(flex_flow="row wrap", width="100%", align_items="flex-start")
        for control in controls:
            # A slider takes what room there is, and a row of its own where that is little.
            control.style.description_width = "initial"
            if hasattr(control, "readout"):
                control.layout = ipywidgets.Layout(flex="1 1 28em", width="auto", min_width="16em")
            else:
                control.layout = ipywidgets.Layout(flex="0 1 auto", width="auto")
        self.box = ipywidgets.VBox([ipywidgets.HBox(part, layout=wrapped) for part in (list(controls), tiles)])
        for control in controls:
            control.observe(self._update, names="value")

    @abstractmethod
    def render(self) -> View:
        """What is shown in the present state of the controls."""

    @abstractmethod
    def __repr__(self) -> str:
        """The state in one line of text, for pages that show neither widgets nor pictures."""

    def png(self) -> bytes:
        """``render`` as one picture, words and all."""
        return small_png(still(self.render()))

    def _update(self, _change: object) -> None:
        self._show(self.render())

    def _show(self, view: View) -> None:
        for picture, tile in zip(self.pictures, view.tiles, strict=True):
            picture.value = _png(tile)
        for words, caption in zip(self.words, view.captions, strict=True):
            words.value = (
                f"<div style='line-height: 1.35; overflow-wrap: anywhere; white-space: normal'>{escape(caption)}</div>"
            )
        part = "<span style='display: inline-block; margin-right: 0.8em'>"
        self.words[-1].value += " ".join(
            f"{part}<span style='color: rgb{colour}'>■</span> {escape(text)}</span>" for text, colour in view.legend
        )

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


def _png(tile: Picture) -> bytes:
    """As quickly as can be: it is not stored."""
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


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


def still(view: View) -> Image.Image:
    """A view as one picture: tiles in rows, a caption below each, the legend below the last."""
    height, width = view.tiles[0].shape[:2]
    captions = [_fitted(caption, width) for caption in view.captions]
    if view.legend:
        captions[-1] += [""] * len(view.legend)
    lines = max(len(caption) for caption in captions)
    across = min(ACROSS, len(view.tiles))
    rows = -(-len(view.tiles) // across)
    step = height + lines * LINE + GAP
    canvas = Image.new("RGB", (across * (width + GAP) - GAP, rows * step), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (tile, caption) in enumerate(zip(view.tiles, captions, strict=True)):
        left, top = i % across * (width + GAP), i // across * step
        canvas.paste(Image.fromarray(tile), (left, top))
        for line, text in enumerate(caption):
            draw.text((left, top + height + 4 + line * LINE), text, fill="black", font=font(24))
    y = top + height + 4 + (len(captions[-1]) - len(view.legend)) * LINE
    for text, colour in view.legend:
        draw.rectangle((left, y + 8, left + 16, y + 24), fill=colour)
        draw.text((left + 26, y), text, fill="black", font=font(24))
        y += LINE
    return canvas


def _fitted(text: str, width: int) -> list[str]:
    """The text in lines that fit a width in pixels."""
    most = max(8, int(width / (font(24).getlength("n" * 40) / 40)))
    return textwrap.wrap(text, most) or [""]


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Of words in stills and charts; it has Greek letters too."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
