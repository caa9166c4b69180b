"""Explore the FP / FN plane: choose a method and a class, move the threshold, see the point move along its curve."""

from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from torch import Tensor

from rsepm_edu.data.voc import Sample
from rsepm_edu.evaluation.thresholds import ThresholdSweep, labels_at
from rsepm_edu.viz.explorers.explorer import EXTRA, MISSED, RIGHT, TILE, Explorer, View, enlarge, font, outline
from rsepm_edu.viz.panels import LINE_COLOURS, Picture, judge, overlay, verdict

FINER = 2  # the plane is drawn this much larger and then reduced, for smooth lines
RADIUS = 6 * FINER
LEFT, FOOT = 32, 28  # pixels of the tile beside and below the axes
GREY, FAINT = (120, 120, 120), (215, 215, 215)


def plane_explorer(
    sweeps: Mapping[str, ThresholdSweep],
    examples: Mapping[str, Sample],
    seeds: Mapping[str, Mapping[str, Tensor]],
    names: Sequence[str],
    *,
    threshold: float = 0.3,
) -> "PlaneExplorer":
    """Explore where methods and thresholds put a class in the plane of FP and FN, beside the mask of one picture.

    Args:
        sweeps: method to its sweep over a set of pictures, all with the same thresholds.
        examples: class to the picture that is shown for it, opened with its mask.
        seeds: method to class to the seed K×H×W in [0, 1] of that class's picture.
        names: the K class names.
        threshold: where the slider starts, one of the sweeps' thresholds.

    Raises:
        ValueError: methods or classes that do not go together, thresholds that differ, or a threshold not among them.
    """
    return PlaneExplorer(sweeps, examples, seeds, names, threshold=threshold)


class PlaneExplorer(Explorer):
    """What `plane_explorer` returns. Controls: `method` and `choice` (Dropdown), `threshold` (SelectionSlider)."""

    charts = (0,)
    on_pages = {"method": None, "threshold": tuple(i / 10 for i in range(1, 10))}

    def __init__(
        self,
        sweeps: Mapping[str, ThresholdSweep],
        examples: Mapping[str, Sample],
        seeds: Mapping[str, Mapping[str, Tensor]],
        names: Sequence[str],
        *,
        threshold: float = 0.3,
    ) -> None:
        thresholds = {sweep.thresholds for sweep in sweeps.values()}
        if len(thresholds) != 1:
            raise ValueError(f"sweeps: expected the same thresholds for all, got {len(thresholds)} different")
        (self._thresholds,) = thresholds
        if threshold not in self._thresholds:
            raise ValueError(f"threshold: expected one of {self._thresholds}, got {threshold}")
        wrong = [name for name in examples if name not in names]
        if wrong or not examples:
            raise ValueError(f"examples: expected some of {tuple(names)}, got {tuple(examples)}")
        if set(seeds) != set(sweeps) or any(set(maps) != set(examples) for maps in seeds.values()):
            raise ValueError(f"seeds: expected {tuple(sweeps)}, each for {tuple(examples)}")
        self._names, self._examples, self._seeds = tuple(names), examples, seeds
        self._curves = {method: _class_curves(sweep, names) for method, sweep in sweeps.items()}
        missing = [name for name in examples for curves in self._curves.values() if name not in curves]
        if missing:
            raise ValueError(f"sweeps: expected pictures of every class of the examples, got none of {missing[0]}")
        self._backgrounds: dict[str, Image.Image] = {}
        self.method = ipywidgets.Dropdown(options=list(sweeps), description="method")
        self.choice = ipywidgets.Dropdown(options=list(examples), description="class")
        self.threshold = ipywidgets.SelectionSlider(
            options=[(f"{value:.2f}", value) for value in self._thresholds], value=threshold, description="threshold"
        )
        super().__init__([self.method, self.choice, self.threshold])

    def __repr__(self) -> str:
        return f"PlaneExplorer({self.method.value}, {self.choice.value}, {self.threshold.value:.2f})"

    @property
    def point(self) -> tuple[float, float]:
        """(FP, FN) of the chosen class, method and threshold over the whole set."""
        fp, fn = self._curves[self.method.value][self.choice.value][self._thresholds.index(self.threshold.value)]
        return float(fp), float(fn)

    def render(self) -> View:
        method, name, threshold = self.method.value, self.choice.value, float(self.threshold.value)
        sample, seed = self._examples[name], self._seeds[method][name]
        label = self._names.index(name) + 1
        mask = (labels_at(seed[None], threshold)[0] == label).numpy()
        over = enlarge(overlay(sample["image"], seed[label - 1], opacity=0.7))
        over[outline(enlarge(mask))] = 255
        fp, fn = self.point
        parts = [int(part.sum()) for part in judge(mask, sample["mask"], label)]
        union = sum(parts)
        own = [part / union if union else 0.0 for part in parts]
        return View(
            [
                self._plane(method, name, (own[1], own[2])),
                _square(over),
                _square(enlarge(verdict(sample["image"], mask, sample["mask"], label))),
            ],
            [
                f"{name}: FP {fp:.2f}, FN {fn:.2f}, IoU {1 - fp - fn:.2f}",
                f"{method}: map, line at {threshold:.2f}",
                "this image's mask (ring in the plane)",
            ],
            [(f"right: IoU {own[0]:.2f}", RIGHT), (f"FP {own[1]:.2f}", EXTRA), (f"FN {own[2]:.2f}", MISSED)],
        )

    def _plane(self, method: str, name: str, own: tuple[float, float]) -> Picture:
        """The curves of all methods for a class, the chosen one in front with its point; a ring at ``own``."""
        if name not in self._backgrounds:
            self._backgrounds[name] = _axes([curves[name] for curves in self._curves.values()])
        image = self._backgrounds[name].copy()
        draw = ImageDraw.Draw(image)
        colour = LINE_COLOURS[list(self._curves).index(method) % len(LINE_COLOURS)]
        curve = self._curves[method][name]
        draw.line([_place(*pair) for pair in curve], fill=colour, width=3 * FINER)
        best = curve[curve.sum(axis=1).argmin()]
        total = float(best.sum())  # the lowest diagonal that the curve touches
        draw.line([_place(0, total), _place(total, 0)], fill=colour, width=FINER)
        for (x, y), fill in ((_place(*own), None), (_place(*self.point), colour)):
            box = (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)
            draw.ellipse(box, fill=fill, outline="black", width=2 * FINER)
        return np.array(image.resize((TILE, TILE), Image.Resampling.LANCZOS))


def _class_curves(sweep: ThresholdSweep, names: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Class to its (FP, FN) at every threshold, T×2; a class that never occurs has none."""
    results = sweep.scores(names)
    curves = {}
    for name in names:
        pairs = [(result.class_fp[name], result.class_fn[name]) for result in results]
        if all(value is not None for pair in pairs for value in pair):
            curves[name] = np.array(pairs, dtype=np.float64)
    return curves


def _place(fp: float, fn: float) -> tuple[float, float]:
    """Where a point lies on the finer drawing."""
    width, height = TILE - LEFT - 4, TILE - FOOT - 4
    return FINER * (LEFT + fp * width), FINER * (4 + (1 - fn) * height)


def _axes(curves: Sequence[npt.NDArray[np.float64]]) -> Image.Image:
    """Axes, diagonals of equal IoU, and the curves of all methods in grey."""
    image = Image.new("RGB", (FINER * TILE, FINER * TILE), "white")
    draw = ImageDraw.Draw(image)
    for fifth in range(1, 5):
        total = 1 - fifth / 5
        draw.line([_place(0, total), _place(total, 0)], fill=FAINT, width=FINER)
        x, y = _place(total, 0)
        draw.text((x, y + 2), f"{total:.1f}", fill=GREY, font=font(13 * FINER), anchor="ma")
        x, y = _place(0, total)
        draw.text((x - 4, y), f"{total:.1f}", fill=GREY, font=font(13 * FINER), anchor="rm")
    for curve in curves:
        draw.line([_place(*pair) for pair in curve], fill=(170, 170, 170), width=FINER)
    draw.line([_place(0, 1), _place(1, 0)], fill=GREY, width=FINER)
    draw.line([_place(0, 1), _place(0, 0), _place(1, 0)], fill="black", width=FINER)
    draw.text(_place(0.98, 0), "FP", fill="black", font=font(13 * FINER), anchor="ra")
    x, y = _place(0, 0.98)
    draw.text((x - 4, y), "FN", fill="black", font=font(13 * FINER), anchor="rm")
    return image


def _square(tile: Picture) -> Picture:
    """A tile on a white square, so that it stands beside the plane whatever its shape."""
    square = np.full((TILE, TILE, 3), 255, dtype=np.uint8)
    square[: tile.shape[0], : tile.shape[1]] = tile
    return square
