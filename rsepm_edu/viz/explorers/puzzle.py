"""Explore Puzzle-CAM: cut a picture into tiles, see where their map departs from the whole one, and what it costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import ipywidgets
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from rsepm_edu.data.transforms import normalise
from rsepm_edu.methods.puzzle import merge, pieces, puzzle_loss, tile
from rsepm_edu.viz.explorers.explorer import EXTRA, MISSED, RIGHT, TILE, Explorer, View, enlarge
from rsepm_edu.viz.panels import Array, Picture, heat, overlay, picture

PARTS = (1, 2, 3, 4)
MOST_ALPHA = 4.0
COLOURS, PALE = (RIGHT, MISSED, EXTRA), (235, 235, 235)
CUT = 6  # pixels of a tile between two pieces


class Terms(NamedTuple):
    """Maps K×h×w of one network for one picture, raw, and the three terms of the loss, the last without α."""

    cam: Tensor
    merged: Tensor
    tags: float
    merged_tags: float
    difference: float


def puzzle_explorer(
    image: Array,
    tags: Tensor,
    networks: Mapping[str, Callable[[Tensor], Tensor]],
    names: Sequence[str],
    *,
    parts: int = 2,
    alpha: float = MOST_ALPHA,
) -> "PuzzleExplorer":
    """Explore the map of a picture beside the map of its tiles, and the loss that compares the two.

    Args:
        image: uint8 3×H×W, at least 4 pixels high and wide.
        tags: K in {0, 1}; classes of tag 1 are offered.
        networks: name to a function from normalised images B×3×H×W to raw cams B×K×h×w; each is called once for every
            number of tiles, when the explorer is made.
        names: the K class names.
        parts: tiles a side at the start, 1 to 4.
        alpha: weight of the difference at the start, 0 to 4.

    Raises:
        ValueError: no network, no class, cams or tags that are not of K classes, or a start out of range.
    """
    return PuzzleExplorer(image, tags, networks, names, parts=parts, alpha=alpha)


class PuzzleExplorer(Explorer):
    """What `puzzle_explorer` returns. Controls: `network`, `choice` (Dropdown), `parts`, `alpha` (sliders)."""

    on_pages = {"network": None, "choice": None, "parts": PARTS, "alpha": (0.0, 1.0, 2.0, 4.0)}

    def __init__(
        self,
        image: Array,
        tags: Tensor,
        networks: Mapping[str, Callable[[Tensor], Tensor]],
        names: Sequence[str],
        *,
        parts: int = 2,
        alpha: float = MOST_ALPHA,
    ) -> None:
        self._image = picture(image)
        if not networks:
            raise ValueError("networks: expected at least one, got none")
        if tags.shape != (len(names),) or not tags.any():
            raise ValueError(f"tags: expected {len(names)}, one a name and not all 0, got {tags.tolist()}")
        if parts not in PARTS or not 0 <= alpha <= MOST_ALPHA:
            raise ValueError(f"expected parts 1 to 4 and alpha 0 to 4, got {parts} and {alpha}")
        inputs = normalise(torch.from_numpy(self._image).permute(2, 0, 1)[None])
        self._terms = {(name, n): _terms(look, inputs, tags, n) for name, look in networks.items() for n in PARTS}
        self._longest = max(max(t.tags, t.merged_tags, MOST_ALPHA * t.difference) for t in self._terms.values())
        offered = [(name, k) for k, name in enumerate(names) if tags[k]]
        self.network = ipywidgets.Dropdown(options=list(networks), description="network")
        self.choice = ipywidgets.Dropdown(options=offered, description="class")
        self.parts = ipywidgets.IntSlider(value=parts, min=PARTS[0], max=PARTS[-1], description="tiles a side")
        self.alpha = ipywidgets.FloatSlider(value=alpha, min=0.0, max=MOST_ALPHA, step=0.1, description="α")
        super().__init__([self.network, self.choice, self.parts, self.alpha])

    def __repr__(self) -> str:
        n = self.parts.value
        return f"PuzzleExplorer({self.network.value}, {self.choice.label}, {n}×{n} tiles, α = {self.alpha.value:.1f})"

    def render(self) -> View:
        k, n = int(self.choice.value), int(self.parts.value)
        terms = self._terms[self.network.value, n]
        cam, merged = terms.cam[k], terms.merged[k]
        # One scale for all three: the highest score of either map is 1, negative scores are 0.
        unit = float(torch.maximum(cam, merged).max().clamp(min=1e-5))
        cam, merged = (values.relu() / unit for values in (cam, merged))
        tiles = [
            enlarge(overlay(self._image, self._large(cam))),
            self._cut(enlarge(overlay(self._image, self._large(merged))), n),
            self._cut(enlarge(heat(self._large((cam - merged).abs().clamp(max=1)))), n),
            self._bars(terms, tiles_height=round(TILE * self._image.shape[0] / max(self._image.shape[:2]))),
        ]
        captions = [
            f"{self.choice.label}: the whole image's map",
            f"the map of {n}×{n} tiles",
            "their difference",
            f"this image's loss: {self._total(terms):.2f}",
        ]
        terms_of_loss = zip(self._parts_of_the_loss(terms), COLOURS, strict=True)
        return View(tiles, captions, [(f"{name}: {value:.2f}", colour) for (name, value), colour in terms_of_loss])

    def _large(self, values: Tensor) -> Tensor:
        """Position by position, each a block of pixels: nothing is smoothed over."""
        return F.interpolate(values[None, None], self._image.shape[:2], mode="nearest-exact")[0, 0]

    def _cut(self, shown: Picture, n: int) -> Picture:
        """White lines between the tiles."""
        for axis in (0, 1):
            side = self._image.shape[axis]
            for start, _ in pieces(side, n)[1:]:
                place = round(start * shown.shape[axis] / side)
                line = slice(max(0, place - CUT // 2), place + CUT // 2)
                shown[(line, slice(None)) if axis == 0 else (slice(None), line)] = 255
        return shown

    def _parts_of_the_loss(self, terms: Terms) -> list[tuple[str, float]]:
        alpha = float(self.alpha.value)
        return [
            ("tags, whole image", terms.tags),
            ("tags, tiles", terms.merged_tags),
            (f"α {alpha:.1f} × difference {terms.difference:.2f}", alpha * terms.difference),
        ]

    def _total(self, terms: Terms) -> float:
        return sum(value for _, value in self._parts_of_the_loss(terms))

    def _bars(self, terms: Terms, *, tiles_height: int) -> Picture:
        """The three terms as bars; all networks, tiles and α on one scale."""
        width = TILE * self._image.shape[1] // max(self._image.shape[:2])
        image = Image.new("RGB", (width, tiles_height), "white")
        draw = ImageDraw.Draw(image)
        third = tiles_height // 3
        for i, ((_, value), colour) in enumerate(zip(self._parts_of_the_loss(terms), COLOURS, strict=True)):
            top = i * third + third // 4
            draw.rectangle((8, top, width - 8, top + third // 2), fill=PALE)
            draw.rectangle((8, top, 8 + round((width - 16) * value / self._longest), top + third // 2), fill=colour)
        return np.array(image)


@torch.no_grad()
def _terms(look: Callable[[Tensor], Tensor], images: Tensor, tags: Tensor, parts: int) -> Terms:
    cam = look(images).float().cpu()
    wanted = tags[None].to(cam.dtype)
    if cam.ndim != 4 or cam.shape[:2] != wanted.shape:
        raise ValueError(f"networks: expected cams 1x{len(tags)}xhxw, got shape {tuple(cam.shape)}")
    merged = merge(look(tile(images, parts)).float().cpu(), size=(cam.shape[2], cam.shape[3]), parts=parts)
    losses = [float(F.multilabel_soft_margin_loss(maps.mean(dim=(2, 3)), wanted)) for maps in (cam, merged)]
    return Terms(cam[0], merged[0], losses[0], losses[1], float(puzzle_loss(cam, merged, wanted)))
