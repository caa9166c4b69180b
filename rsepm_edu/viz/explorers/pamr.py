"""Explore PAMR: more iterations, a longer reach, another sigma, and what the mask becomes."""

from collections.abc import Sequence

import ipywidgets
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.methods.pamr import pamr
from rsepm_edu.viz.explorers.explorer import EXTRA, MISSED, RIGHT, Explorer, View, enlarge, outline
from rsepm_edu.viz.panels import Array, judge, overlay, picture, verdict

REACHES: dict[str, tuple[int, ...]] = {
    "1": (1,),
    "1, 2": (1, 2),
    "1, 2, 4": (1, 2, 4),
    "1, 2, 4, 8": (1, 2, 4, 8),
    "1, 2, 4, 8, 12, 24": (1, 2, 4, 8, 12, 24),
    "only 12, 24": (12, 24),
}
COLOURS = (RIGHT, EXTRA, MISSED)
SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0)
MOST_ITERATIONS = 30
LONGEST = 128
"""Larger pictures are made this long on their longer side, so that a change answers at once on two cores."""


def pamr_explorer(
    image: Array,
    cam: Array,
    names: Sequence[str],
    *,
    truth: Array | None = None,
    threshold: float = 0.3,
) -> "PamrExplorer":
    """Explore what PAMR makes of the maps of one picture.

    Args:
        image: uint8 3×H×W.
        cam: float K×H×W in [0, 1] (normalised by the caller), of the image's size.
        names: the K class names. Classes whose map is zero everywhere are not offered.
        truth: labels H×W (0 background, k + 1 for class k, 255 void); colours right, superfluous
            and missed pixels and shows the picture's IoU, FP and FN for the chosen class.
        threshold: of both masks, before and after PAMR, 0 to 1.

    Raises:
        ValueError: sizes differ, a map leaves [0, 1], or every map is zero.
    """
    return PamrExplorer(image, cam, names, truth=truth, threshold=threshold)


class PamrExplorer(Explorer):
    """What `pamr_explorer` returns.

    Controls: `choice` (Dropdown of classes), `iterations` (IntSlider), `reach` (Dropdown of dilations) and `sigma`
    (Dropdown). A state once computed is kept, and more iterations go on from it.
    """

    on_pages = {"choice": None, "iterations": (0, 1, 5, 30), "reach": ("1", "only 12, 24"), "sigma": (1.0,)}

    def __init__(
        self,
        image: Array,
        cam: Array,
        names: Sequence[str],
        *,
        truth: Array | None = None,
        threshold: float = 0.3,
    ) -> None:
        full = picture(image)
        maps = torch.as_tensor(np.asarray(cam, dtype=np.float32))
        if len(maps) != len(names):
            raise ValueError(f"expected {len(names)} maps, one a name, got {len(maps)}")
        for values in maps:
            overlay(full, values)  # rejects wrong sizes and values before a slider moves
        labels = None if truth is None else np.asarray(truth, dtype=np.uint8)
        if labels is not None and labels.shape != full.shape[:2]:
            raise ValueError(f"expected truth {full.shape[:2]}, got {labels.shape}")
        offered = [(name, k) for k, name in enumerate(names) if maps[k].any()]
        if not offered:
            raise ValueError("expected a map that is not zero everywhere, got none")
        scale = min(1.0, LONGEST / max(full.shape[:2]))
        height, width = (max(1, round(side * scale)) for side in full.shape[:2])
        self._image = np.array(Image.fromarray(full).resize((width, height), Image.Resampling.BOX))
        self._truth = None
        if labels is not None:
            self._truth = np.array(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
        self._pixels = torch.from_numpy(self._image / 255).permute(2, 0, 1)[None].float()
        self._start = F.interpolate(maps[None], (height, width), mode="bilinear", align_corners=False, antialias=True)
        self._states: dict[tuple[str, float], dict[int, Tensor]] = {}
        self._threshold = threshold
        self.choice = ipywidgets.Dropdown(options=offered, description="class")
        self.iterations = ipywidgets.IntSlider(value=10, min=0, max=MOST_ITERATIONS, description="iterations")
        self.reach = ipywidgets.Dropdown(options=list(REACHES), value="1, 2, 4, 8, 12, 24", description="dilations")
        self.sigma = ipywidgets.Dropdown(options=[(f"{s:g}", s) for s in SIGMAS], value=0.1, description="sigma")
        super().__init__([self.choice, self.iterations, self.reach, self.sigma])

    def __repr__(self) -> str:
        return (
            f"PamrExplorer({self.choice.label}, {self.iterations.value} iterations, "
            f"dilations {self.reach.value}, sigma {self.sigma.label})"
        )

    def refined(self) -> Tensor:
        """1×K×h×w: the maps after PAMR with the controls as they are, not yet stretched."""
        states = self._states.setdefault((self.reach.value, self.sigma.value), {0: self._start})
        wanted = int(self.iterations.value)
        if wanted not in states:
            done = max(n for n in states if n < wanted)
            states[wanted] = pamr(
                self._pixels,
                states[done],
                dilations=REACHES[self.reach.value],
                iterations=wanted - done,
                sigma=self.sigma.value,
            )
        return states[wanted]

    def render(self) -> View:
        k, threshold = int(self.choice.value), self._threshold
        before, refined = self._start[0, k], self.refined()[0, k]
        after = normalize_cam(refined[None, None])[0, 0]
        tiles = [enlarge(self._image, smooth=True), self._map(before), self._map(after)]
        captions = [
            f"image, {self._image.shape[1]}x{self._image.shape[0]}",
            f"{self.choice.label}: before, line at {threshold:.2f}",
            f"after, maximum {refined.max():.2f} stretched to 1",
        ]
        masks = [values.numpy() > threshold for values in (before, after)]
        if self._truth is None:
            tiles.append(enlarge(np.where(masks[1][..., None], self._image, self._image // 5)))
            return View(tiles, [*captions, f"mask: {masks[0].mean():.0%} of the image, now {masks[1].mean():.0%}"])
        tiles.append(enlarge(verdict(self._image, masks[1], self._truth, k + 1)))
        was, now = (_iou_fp_fn(judge(mask, self._truth, k + 1)) for mask in masks)
        captions.append("before: IoU {:.2f}, FP {:.2f}, FN {:.2f}".format(*was))
        texts = ("now: IoU {:.2f}", "FP {:.2f}", "FN {:.2f}")
        legend = [(text.format(share), colour) for text, share, colour in zip(texts, now, COLOURS, strict=True)]
        return View(tiles, captions, legend)

    def _map(self, values: Tensor) -> npt.NDArray[np.uint8]:
        over: npt.NDArray[np.uint8] = enlarge(overlay(self._image, values, opacity=0.7))
        over[outline(enlarge(values.numpy() > self._threshold))] = 255
        return over


def _iou_fp_fn(parts: Sequence[npt.NDArray[np.bool_]]) -> list[float]:
    counts = [int(part.sum()) for part in parts]
    union = max(1, sum(counts))
    return [count / union for count in counts]
