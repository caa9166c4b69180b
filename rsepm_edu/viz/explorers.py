"""Pictures with a slider, for notebooks.

Each explorer draws its picture itself (numpy and Pillow, a few milliseconds) and hands it as PNG to
an `ipywidgets.Image`; nothing is plotted inside an `Output` widget, because that can deadlock when
a notebook runs without a browser. Beside the live view the notebook keeps the PNG of the first
state, so that a page without a kernel (GitHub, a print) still shows a figure.
"""

import base64
import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from rsepm_edu.data.palette import VOID
from rsepm_edu.viz.panels import Array, Picture, overlay, picture

TILE = 250  # pixels of a tile's longer side
GAP, LINE = 8, 20  # pixels between tiles, pixels of one line of text
# Okabe and Ito's colours: they stay apart for colour-blind readers.
RIGHT, EXTRA, MISSED = (0, 158, 115), (213, 94, 0), (86, 180, 233)


def cam_explorer(
    image: Array,
    cam: Array,
    names: Sequence[str],
    *,
    truth: Array | None = None,
    threshold: float = 0.3,
) -> "CamExplorer":
    """Explore the maps of one picture: choose a class, move the threshold, see the mask change.

    Args:
        image: uint8 3xHxW.
        cam: float KxHxW in [0, 1] (normalised by the caller), of the image's size.
        names: the K class names. Classes whose map is zero everywhere are not offered.
        truth: labels HxW (0 background, k + 1 for class k, 255 void); colours right, superfluous
            and missed pixels and shows the picture's IoU, FP and FN for the chosen class.
        threshold: where the slider starts, 0 to 1.

    Raises:
        ValueError: sizes differ, a map leaves [0, 1], or every map is zero.
    """
    return CamExplorer(image, cam, names, truth=truth, threshold=threshold)


class CamExplorer:
    """What `cam_explorer` returns: the last line of a cell shows it.

    `choice` (Dropdown), `threshold` (FloatSlider) and `picture` (Image) are the widgets, `box`
    holds them all.
    """

    def __init__(
        self,
        image: Array,
        cam: Array,
        names: Sequence[str],
        *,
        truth: Array | None = None,
        threshold: float = 0.3,
    ) -> None:
        self._image = picture(image)
        self._maps = [np.asarray(values) for values in cam]
        if len(self._maps) != len(names):
            raise ValueError(f"expected {len(names)} maps, one a name, got {len(self._maps)}")
        for values in self._maps:
            overlay(self._image, values)  # rejects wrong sizes and values before a slider moves
        self._truth = None if truth is None else np.asarray(truth)
        if self._truth is not None and self._truth.shape != self._image.shape[:2]:
            raise ValueError(f"expected truth {self._image.shape[:2]}, got {self._truth.shape}")
        offered = [(name, k) for k, name in enumerate(names) if self._maps[k].any()]
        if not offered:
            raise ValueError("expected a map that is not zero everywhere, got none")
        self.choice = ipywidgets.Dropdown(options=offered, description="class")
        self.threshold = ipywidgets.FloatSlider(value=threshold, min=0.0, max=1.0, step=0.01, description="threshold")
        self.picture = ipywidgets.Image(value=self.png(), format="png")
        self.box = ipywidgets.VBox(
            [ipywidgets.HBox([self.choice, self.threshold]), self.picture],
        )
        for control in (self.choice, self.threshold):
            control.observe(self._update, names="value")

    def png(self) -> bytes:
        """The picture of the present class and threshold."""
        buffer = io.BytesIO()
        self._render().save(buffer, format="PNG")
        return buffer.getvalue()

    def _update(self, _change: object) -> None:
        self.picture.value = self.png()

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        # This object is no widget itself, so the same bundle serves ipywidgets 7 (whose widgets
        # display through `_ipython_display_`) and 8.
        return {
            "text/plain": f"CamExplorer({self.choice.label}, {self.threshold.value:.2f})",
            "image/png": base64.b64encode(self.png()).decode(),
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.box.model_id,
            },
        }

    def _render(self) -> Image.Image:
        k, threshold = int(self.choice.value), float(self.threshold.value)
        values = self._maps[k]
        mask = values > threshold
        over = _enlarge(overlay(self._image, values, opacity=0.7))
        over[_outline(_enlarge(mask))] = 255
        tiles = [_enlarge(self._image, smooth=True), over]
        captions = ["image", f"{self.choice.label}: map, line at {threshold:.2f}"]
        if self._truth is None:
            tiles.append(_enlarge(np.where(mask[..., None], self._image, self._image // 5)))
            captions.append(f"mask: {mask.mean():.0%} of the picture")
            return _compose(tiles, captions)
        counted = self._truth != VOID
        wanted = self._truth == k + 1
        right, extra, missed = (part & counted for part in (mask & wanted, mask & ~wanted, ~mask & wanted))
        shown = (0.35 * self._image + 0.65 * self._image.mean(axis=2, keepdims=True)) * 0.6
        for part, colour in ((right, RIGHT), (extra, EXTRA), (missed, MISSED)):
            shown[part] = 0.25 * shown[part] + 0.75 * np.array(colour)
        tiles.append(_enlarge(shown.astype(np.uint8)))
        union = int((right | extra | missed).sum())
        iou, fp, fn = (int(part.sum()) / union if union else 0.0 for part in (right, extra, missed))
        captions.append("mask against the truth")
        return _compose(
            tiles,
            captions,
            [(f"right: IoU {iou:.2f}", RIGHT), (f"FP {fp:.2f}", EXTRA), (f"FN {fn:.2f}", MISSED)],
        )


def _enlarge(array: npt.NDArray[Any], *, smooth: bool = False) -> npt.NDArray[Any]:
    height, width = array.shape[:2]
    scale = TILE / max(height, width)
    method = Image.Resampling.BICUBIC if smooth or scale < 1 else Image.Resampling.NEAREST
    if array.dtype == bool:
        method = Image.Resampling.NEAREST
    size = (round(width * scale), round(height * scale))
    return np.array(Image.fromarray(array).resize(size, method))


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of the mask with a neighbour (left, right, above, below) outside of it."""
    inside = np.pad(mask, 1, constant_values=True)
    around = (inside[:-2, 1:-1], inside[2:, 1:-1], inside[1:-1, :-2], inside[1:-1, 2:])
    return mask & ~np.logical_and.reduce(around)


def _compose(
    tiles: Sequence[Picture],
    captions: Sequence[str],
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (),
) -> Image.Image:
    height, width = tiles[0].shape[:2]
    lines = 2 if legend else 1
    canvas = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, height + lines * LINE + 2), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left = i * (width + GAP)
        canvas.paste(Image.fromarray(tile), (left, 0))
        draw.text((left, height + 3), caption, fill="black", font=_font())
    x, y = (len(tiles) - 1) * (width + GAP), height + LINE + 3
    for text, colour in legend:
        draw.rectangle((x, y + 3, x + 9, y + 12), fill=colour)
        draw.text((x + 13, y), text, fill="black", font=_font())
        x += 13 + round(draw.textlength(text, font=_font())) + 8
    return canvas


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=13)
