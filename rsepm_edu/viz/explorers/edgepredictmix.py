"""Explore EdgePredict: move CF's thresholds and Canny's levels, see which label the regions between edges get."""

from collections.abc import Sequence

import ipywidgets
import numpy as np
import numpy.typing as npt
import torch

from rsepm_edu.labels import VOID
from rsepm_edu.methods.edgepredictmix import edge_predict, edge_regions
from rsepm_edu.viz.explorers.explorer import EXTRA, MISSED, RIGHT, Explorer, View, enlarge, outline
from rsepm_edu.viz.panels import Array, Picture, judge, overlay, picture, verdict

ZONES = {"object": (230, 159, 0), "not": (60, 60, 60), "uncertain": (190, 190, 190), "edge": (0, 114, 178)}
LEVELS = (0, 10, 20, 30, 50, 70, 100, 150, 200, 300, 400, 500)
"""Of Canny's gradient, of which a whole step from 0 to 1, smoothed, makes 640; closer where the defaults are."""


def edge_predict_explorer(
    image: Array,
    probabilities: Array,
    names: Sequence[str],
    truth: Array,
    *,
    certain: float = 0.55,
    uncertain: float = 0.10,
    low: int = 10,
    high: int = 100,
) -> "EdgePredictExplorer":
    """Explore what EdgePredict makes of the probability map of one class.

    Args:
        image: uint8 3xHxW.
        probabilities: float KxHxW in [0, 1], of the image's size. Classes that are zero everywhere are not offered.
        names: the K class names.
        truth: labels HxW (0 background, k + 1 for class k, 255 void).
        certain, uncertain, low, high: where the sliders start, see `edge_predict`.

    Raises:
        ValueError: sizes differ, a map leaves [0, 1], or every map is zero.
    """
    return EdgePredictExplorer(
        image, probabilities, names, truth, certain=certain, uncertain=uncertain, low=low, high=high
    )


class EdgePredictExplorer(Explorer):
    """What `edge_predict_explorer` returns.

    Controls: `choice` (Dropdown of classes), `thresholds` (FloatRangeSlider: uncertain, certain) and `levels`
    (SelectionRangeSlider: Canny's low and high).
    """

    on_pages = {
        "choice": None,
        "thresholds": tuple((low, high) for low in (0.05, 0.1, 0.3) for high in (0.55, 0.8)),
        "levels": tuple((low, high) for low in (0, 10, 50) for high in (100, 300)),
    }

    def __init__(
        self,
        image: Array,
        probabilities: Array,
        names: Sequence[str],
        truth: Array,
        *,
        certain: float,
        uncertain: float,
        low: int,
        high: int,
    ) -> None:
        self._image, self._truth = picture(image), np.asarray(truth)
        self._maps = torch.as_tensor(np.asarray(probabilities, dtype=np.float32))
        if len(self._maps) != len(names):
            raise ValueError(f"expected {len(names)} maps, one a name, got {len(self._maps)}")
        for values in self._maps:
            overlay(self._image, values)  # rejects wrong sizes and values before a slider moves
        if self._truth.shape != self._image.shape[:2]:
            raise ValueError(f"expected truth {self._image.shape[:2]}, got {self._truth.shape}")
        offered = [(name, k) for k, name in enumerate(names) if self._maps[k].any()]
        if not offered:
            raise ValueError("expected a map that is not zero everywhere, got none")
        self.choice = ipywidgets.Dropdown(options=offered, description="class")
        self.thresholds = ipywidgets.FloatRangeSlider(
            value=(uncertain, certain), min=0.0, max=1.0, step=0.05, description="CF"
        )
        self.levels = ipywidgets.SelectionRangeSlider(
            options=sorted({*LEVELS, low, high}), value=(low, high), description="Canny"
        )
        super().__init__([self.choice, self.thresholds, self.levels])

    def __repr__(self) -> str:
        (uncertain, certain), (low, high) = self.thresholds.value, self.levels.value
        return f"EdgePredictExplorer({self.choice.label}, CF {uncertain:.2f} to {certain:.2f}, Canny {low} to {high})"

    def regions(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Bool HxW: `inside` and `outside` by CF, the `edge`, and what EdgePredict calls `object` and `rest`."""
        (uncertain, certain), (low, high) = self.thresholds.value, self.levels.value
        uncertain = min(uncertain, certain - 1e-6)  # both sliders at one place: object wins
        values = self._maps[int(self.choice.value)][None]
        both = torch.stack([1 - values, values], dim=1)
        labels = edge_predict(
            both, torch.ones(1, 1), certain=certain, uncertain=max(0.0, uncertain), low=low, high=high
        )
        edge = edge_regions(values, low=low, high=high) == 0
        parts = (values >= certain, values <= uncertain, edge, labels == 1, labels == 0)
        names = ("inside", "outside", "edge", "object", "rest")
        return {name: part[0].numpy() for name, part in zip(names, parts, strict=True)}

    def render(self) -> View:
        label, parts = int(self.choice.value) + 1, self.regions()
        tiles = [
            enlarge(overlay(self._image, self._maps[label - 1], opacity=0.75)),
            self._zones(parts["inside"], parts["outside"], parts["edge"]),
            self._zones(parts["object"], parts["rest"], None),
            enlarge(verdict(self._image, parts["object"], self._truth, label)),
        ]
        animal = outline(enlarge(self._truth == label))
        for tile in tiles[:3]:
            tile[animal] = 255
        counted = self._truth != VOID
        cf = (parts["inside"] | parts["outside"])[counted].mean()
        decided = (parts["object"] | parts["rest"])[counted].mean()
        shares = [int(part.sum()) for part in judge(parts["object"], self._truth, label)]
        union = max(1, sum(shares))
        texts = ("IoU {:.2f}", "FP {:.2f}", "FN {:.2f}")
        legend = [
            (text.format(n / union), colour)
            for text, n, colour in zip(texts, shares, (RIGHT, EXTRA, MISSED), strict=True)
        ]
        captions = ["probability", f"CF decides {cf:.0%}; edges blue", f"EP decides {decided:.0%}", "called object"]
        return View(tiles, captions, legend)

    def _zones(
        self, inside: npt.NDArray[np.bool_], outside: npt.NDArray[np.bool_], edge: npt.NDArray[np.bool_] | None
    ) -> Picture:
        shown = np.full((*inside.shape, 3), ZONES["uncertain"], dtype=np.uint8)
        shown[inside], shown[outside] = ZONES["object"], ZONES["not"]
        if edge is not None:
            shown[edge] = ZONES["edge"]
        tile: Picture = enlarge(shown)
        return tile
