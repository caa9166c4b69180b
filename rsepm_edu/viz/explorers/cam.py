"""Explore a CAM: choose a class, move the threshold, see the mask change."""

from collections.abc import Sequence

import ipywidgets
import numpy as np

from rsepm_edu.viz.explorers.explorer import EXTRA, MISSED, RIGHT, Explorer, View, enlarge, outline
from rsepm_edu.viz.panels import Array, judge, overlay, picture, verdict


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
        image: uint8 3×H×W.
        cam: float K×H×W in [0, 1] (normalised by the caller), of the image's size.
        names: the K class names. Classes whose map is zero everywhere are not offered.
        truth: labels H×W (0 background, k + 1 for class k, 255 void); colours right, superfluous
            and missed pixels and shows the picture's IoU, FP and FN for the chosen class.
        threshold: where the slider starts, 0 to 1.

    Raises:
        ValueError: sizes differ, a map leaves [0, 1], or every map is zero.
    """
    return CamExplorer(image, cam, names, truth=truth, threshold=threshold)


class CamExplorer(Explorer):
    """What `cam_explorer` returns. Controls: `choice` (Dropdown) and `threshold` (FloatSlider)."""

    on_pages = {"choice": None, "threshold": tuple(round(0.05 * i, 2) for i in range(1, 20))}

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
        super().__init__([self.choice, self.threshold])

    def __repr__(self) -> str:
        return f"CamExplorer({self.choice.label}, {self.threshold.value:.2f})"

    def render(self) -> View:
        k, threshold = int(self.choice.value), float(self.threshold.value)
        values = self._maps[k]
        mask = values > threshold
        over = enlarge(overlay(self._image, values, opacity=0.7))
        over[outline(enlarge(mask))] = 255
        tiles = [enlarge(self._image, smooth=True), over]
        captions = ["image", f"{self.choice.label}: map, line at {threshold:.2f}"]
        if self._truth is None:
            tiles.append(enlarge(np.where(mask[..., None], self._image, self._image // 5)))
            captions.append(f"mask: {mask.mean():.0%} of the image")
            return View(tiles, captions)
        right, extra, missed = judge(mask, self._truth, k + 1)
        tiles.append(enlarge(verdict(self._image, mask, self._truth, k + 1)))
        union = int((right | extra | missed).sum())
        iou, fp, fn = (int(part.sum()) / union if union else 0.0 for part in (right, extra, missed))
        captions.append("mask against the truth")
        return View(
            tiles,
            captions,
            [(f"right: IoU {iou:.2f}", RIGHT), (f"FP {fp:.2f}", EXTRA), (f"FN {fn:.2f}", MISSED)],
        )
