"""Explore self-correlation: choose a pixel, see which other positions agree with it."""

from collections.abc import Mapping

import ipywidgets
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods.scg import min_max, self_correlation
from rsepm_edu.viz.explorers.explorer import Explorer, View, enlarge, outline
from rsepm_edu.viz.panels import Array, Picture, overlay, picture


def scg_explorer(
    image: Array,
    stages: Mapping[str, Tensor],
    *,
    truth: Array | None = None,
    pixel: tuple[int, int] | None = None,
    first_threshold: float = 0.50,
) -> "ScgExplorer":
    """Explore the self-correlation of one picture: choose a pixel, see both orders as SCG uses them.

    Args:
        image: uint8 3×H×W.
        stages: name to features C×h×w of that stage, any size.
        truth: labels H×W (0 background, k + 1 for class k, 255 void); outlines the objects and says which share of the
            correlation lies on the label of the chosen pixel.
        pixel: row and column where the sliders start; default: the middle.
        first_threshold: where its slider starts, 0 to 0.95.

    Raises:
        ValueError: no stage, features that are not C×h×w, a truth of another size, or a pixel outside of the picture.
    """
    return ScgExplorer(image, stages, truth=truth, pixel=pixel, first_threshold=first_threshold)


class ScgExplorer(Explorer):
    """What `scg_explorer` returns. Controls: `stage` (Dropdown), `row`, `column`, `threshold` (sliders)."""

    on_pages = {"stage": None, "row": (24, 40, 56, 72), "column": (24, 40, 56, 72)}

    def __init__(
        self,
        image: Array,
        stages: Mapping[str, Tensor],
        *,
        truth: Array | None = None,
        pixel: tuple[int, int] | None = None,
        first_threshold: float = 0.50,
    ) -> None:
        self._image = picture(image)
        height, width = self._image.shape[:2]
        if not stages:
            raise ValueError("stages: expected at least one, got none")
        for name, features in stages.items():
            if features.ndim != 3:
                raise ValueError(f"stages: expected Cxhxw, got {name} of shape {tuple(features.shape)}")
        self._stages = dict(stages)
        self._truth = None if truth is None else np.asarray(truth)
        if self._truth is not None and self._truth.shape != (height, width):
            raise ValueError(f"expected truth {(height, width)}, got {self._truth.shape}")
        row, column = (height // 2, width // 2) if pixel is None else pixel
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(f"pixel: expected a place in {(height, width)}, got {(row, column)}")
        self._known: dict[str, tuple[float, list[npt.NDArray[np.float64]]]] = {}
        self.stage = ipywidgets.Dropdown(options=list(stages), description="features")
        self.row = ipywidgets.IntSlider(value=row, min=0, max=height - 1, description="row")
        self.column = ipywidgets.IntSlider(value=column, min=0, max=width - 1, description="column")
        self.threshold = ipywidgets.FloatSlider(
            value=first_threshold, min=0.0, max=0.95, step=0.05, description="θ₁", continuous_update=False
        )
        super().__init__([self.stage, self.row, self.column, self.threshold])

    def __repr__(self) -> str:
        place = f"row {self.row.value}, column {self.column.value}"
        return f"ScgExplorer({self.stage.value}, {place}, θ₁ = {self.threshold.value:.2f})"

    def render(self) -> View:
        row, column = int(self.row.value), int(self.column.value)
        size = self._image.shape[:2]
        h, w = self._stages[str(self.stage.value)].shape[1:]
        # Position by position, each a block of pixels: nothing is smoothed over.
        rows, columns = np.arange(size[0]) * h // size[0], np.arange(size[1]) * w // size[1]
        chosen = (rows[:, None] == rows[row]) & (columns[None, :] == columns[column])
        tiles, captions = [self._tile(self._image, chosen)], ["the chosen position"]
        for name, correlation in zip(("first order", "second order"), self._orders(), strict=True):
            values = correlation[:, rows[row] * w + columns[column]].reshape(h, w)[np.ix_(rows, columns)]
            tiles.append(self._tile(overlay(self._image, values, opacity=0.75), chosen))
            captions.append(name + self._share(values, row, column))
        return View(tiles, captions)

    def _orders(self) -> list[npt.NDArray[np.float64]]:
        """Both correlations of the chosen stage, columns in [0, 1]; kept until the threshold changes."""
        stage, threshold = str(self.stage.value), float(self.threshold.value)
        known = self._known.get(stage)
        if known is None or known[0] != threshold:
            features = self._stages[stage][None].detach().float()
            with torch.no_grad():
                orders = self_correlation(features, first_threshold=threshold)
                known = threshold, [min_max(order, dim=1)[0].cpu().double().numpy() for order in orders]
            self._known[stage] = known
        return known[1]

    def _share(self, values: npt.NDArray[np.float64], row: int, column: int) -> str:
        if self._truth is None or self._truth[row, column] == VOID:
            return ""
        counted = float(values[self._truth != VOID].sum())
        if counted == 0:
            return ": agrees with nothing"
        return f": {float(values[self._truth == self._truth[row, column]].sum()) / counted:.0%} on the same label"

    def _tile(self, shown: Picture, chosen: npt.NDArray[np.bool_]) -> Picture:
        tile = enlarge(shown, smooth=shown is self._image)
        if self._truth is not None:
            objects = (self._truth != 0) & (self._truth != VOID)
            tile[outline(enlarge(objects))] = 200
        square = enlarge(chosen)
        for colour, mask in ((0, square), (255, square & ~outline(square))):
            tile[outline(mask)] = colour
        return tile
