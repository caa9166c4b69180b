"""Explore a mask's score: move the true mask, let it grow or shrink, see what IoU, FP and FN make of it."""

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image, ImageDraw

from rsepm_edu.labels import VOID
from rsepm_edu.viz.explorers.explorer import EXTRA, MISSED, RIGHT, Explorer, View, enlarge, outline
from rsepm_edu.viz.panels import Array, Judged, Picture, judge, picture, verdict

GREY, PALE = (130, 130, 130), (235, 235, 235)
FARTHEST, WIDEST = 24, 8  # pixels that the mask can be moved, and grown or shrunk


def mask_explorer(
    image: Array, truth: Array, names: Sequence[str], *, right: int = 0, down: int = 0, grow: int = 0
) -> "MaskExplorer":
    """Explore how a mask is scored: take the true mask of a class, move it, let it grow or shrink.

    Args:
        image: uint8 3×H×W.
        truth: labels H×W (0 background, k + 1 for class k, 255 void).
        names: the K class names. Classes that the truth lacks are not offered.
        right, down, grow: where the sliders start, in pixels; negative: left, up, shrink.

    Raises:
        ValueError: sizes differ, a label beyond the names, or a truth without any class.
    """
    return MaskExplorer(image, truth, names, right=right, down=down, grow=grow)


class MaskExplorer(Explorer):
    """What `mask_explorer` returns. Controls: `choice` (Dropdown), `right`, `down` and `grow` (IntSliders)."""

    on_pages = {"choice": None, "right": (-24, -12, 0, 12, 24), "down": (-12, 0, 12), "grow": (-4, 0, 4)}

    def __init__(
        self, image: Array, truth: Array, names: Sequence[str], *, right: int = 0, down: int = 0, grow: int = 0
    ) -> None:
        self._image = picture(image)
        self._truth = np.asarray(truth)
        if self._truth.shape != self._image.shape[:2]:
            raise ValueError(f"expected truth {self._image.shape[:2]}, got {self._truth.shape}")
        found = [int(label) for label in np.unique(self._truth) if label not in (0, VOID)]
        if not found or found[-1] > len(names):
            raise ValueError(f"truth: expected labels 1 to {len(names)}, got {found}")
        self.choice = ipywidgets.Dropdown(options=[(names[label - 1], label) for label in found], description="class")
        self.right = _slider("right", right, FARTHEST)
        self.down = _slider("down", down, FARTHEST)
        self.grow = _slider("grow", grow, WIDEST)
        super().__init__([self.choice, self.right, self.down, self.grow])

    def __repr__(self) -> str:
        moved = f"right {self.right.value}, down {self.down.value}, grow {self.grow.value}"
        return f"MaskExplorer({self.choice.label}, {moved})"

    @property
    def mask(self) -> Judged:
        """The mask as it is now, bool H×W."""
        true = self._truth == self.choice.value
        return grown(shifted(true, int(self.down.value), int(self.right.value)), int(self.grow.value))

    def render(self) -> View:
        label, mask = int(self.choice.value), self.mask
        over = enlarge(self._image, smooth=True)
        over[outline(enlarge(mask))] = 255
        parts = [int(part.sum()) for part in judge(mask, self._truth, label)]
        union = sum(parts)  # at least the true pixels
        counted = int((self._truth != VOID).sum())
        accuracy = 1 - (parts[1] + parts[2]) / counted
        bars = [("pixels right", accuracy, GREY)]
        bars += [
            (name, part / union, colour)
            for name, part, colour in zip(
                ("right: IoU", "superfluous: FP", "missed: FN"), parts, (RIGHT, EXTRA, MISSED), strict=True
            )
        ]
        tiles = [over, enlarge(verdict(self._image, mask, self._truth, label))]
        return View(
            [*tiles, _bars([(share, colour) for _, share, colour in bars], *over.shape[:2])],
            ["your mask, outlined", "right, superfluous, missed", "IoU + FP + FN = 1"],
            [(f"{name} {share:.2f}", colour) for name, share, colour in bars],
        )


def shifted(mask: Judged, down: int, right: int) -> Judged:
    """A mask moved by whole pixels; what leaves the picture is lost, what enters it is empty."""
    reach = max(abs(down), abs(right))
    height, width = mask.shape
    padded = np.pad(mask, reach)
    moved: Judged = padded[reach - down : reach - down + height, reach - right : reach - right + width]
    return moved


def grown(mask: Judged, radius: int) -> Judged:
    """The pixels that lie within a radius of the mask; a negative one takes away what lies that near to the rest."""
    if radius < 0:
        return ~grown(~mask, -radius)
    steps = range(-radius, radius + 1)
    near = [(dy, dx) for dy in steps for dx in steps if dy**2 + dx**2 <= radius**2]
    return np.logical_or.reduce([shifted(mask, dy, dx) for dy, dx in near])


def _slider(name: str, value: int, most: int) -> Any:
    return ipywidgets.IntSlider(value=value, min=-most, max=most, description=name)


def _bars(bars: Sequence[tuple[float, tuple[int, int, int]]], height: int, width: int) -> Picture:
    """Shares as horizontal bars on a tile of that size."""
    tile = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(tile)
    step = height / len(bars)
    for i, (share, colour) in enumerate(bars):
        box = [0, (i + 0.2) * step, width - 1, (i + 0.8) * step]
        draw.rectangle(box, fill=PALE)
        if share > 0:
            draw.rectangle([0, box[1], share * (width - 1), box[3]], fill=colour)
    return np.array(tile)
