"""Explore the dense CRF and the random walk on one picture: iterations and colours here, steps and beta there."""

from collections.abc import Sequence
from functools import partial

import ipywidgets
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.methods.dense_crf import dense_crf_labels
from rsepm_edu.methods.random_walk import edge_affinity, random_walk
from rsepm_edu.viz.explorers.explorer import EXTRA, MISSED, RIGHT, Explorer, View, enlarge, outline
from rsepm_edu.viz.panels import Array, judge, overlay, picture, verdict

COLOURS = (RIGHT, EXTRA, MISSED)
COLOUR_SIGMAS = (1.0, 2.0, 5.0, 15.0, 50.0)
BETAS = (1.0, 2.0, 5.0, 10.0, 20.0)
STEPS = (0, 1, 4, 16, 64, 256)
MOST_ITERATIONS = 10
LONGEST = 128
"""Larger pictures are made this long on their longer side, and the walk has half of that, so that a change answers at
once on two cores."""


def walk_explorer(
    image: Array,
    seed: Array,
    edge: Array,
    names: Sequence[str],
    truth: Array,
    *,
    before: float = 0.3,
    after: float = 0.25,
) -> "WalkExplorer":
    """Explore what a dense CRF and a random walk make of the seed of one picture, side by side.

    Args:
        image: uint8 3×H×W.
        seed: float K×H×W in [0, 1], of the image's size.
        edge: float h×w in [0, 1], where objects end; of any size.
        names: the K class names. Classes whose map is zero everywhere are not offered.
        truth: labels H×W (0 background, k + 1 for class k, 255 void).
        before: threshold that makes the labels which the CRF refines.
        after: threshold of the walk's result.

    Raises:
        ValueError: sizes differ, a map leaves [0, 1], or every map of the seed is zero.
    """
    return WalkExplorer(image, seed, edge, names, truth, before=before, after=after)


class WalkExplorer(Explorer):
    """What `walk_explorer` returns.

    Controls: `choice` (Dropdown of classes); `iterations` (IntSlider) and `colour_sigma` (Dropdown) of the CRF; `steps`
    (SelectionSlider) and `beta` (Dropdown) of the walk. What was computed once is kept; more steps go on from fewer.
    """

    on_pages = {
        "choice": None,
        "iterations": (0, 1, 2, 5, 10),
        "colour_sigma": (1.0, 50.0),
        "steps": None,
        "beta": (1.0,),
    }

    def __init__(
        self,
        image: Array,
        seed: Array,
        edge: Array,
        names: Sequence[str],
        truth: Array,
        *,
        before: float = 0.3,
        after: float = 0.25,
    ) -> None:
        full = picture(image)
        maps = torch.as_tensor(np.asarray(seed, dtype=np.float32))
        boundary = torch.as_tensor(np.asarray(edge, dtype=np.float32))
        labels = np.asarray(truth, dtype=np.uint8)
        if len(maps) != len(names):
            raise ValueError(f"expected {len(names)} maps, one a name, got {len(maps)}")
        for values in maps:
            overlay(full, values)  # rejects wrong sizes and values before a slider moves
        if boundary.ndim != 2 or not (boundary.min() >= 0 and boundary.max() <= 1):
            raise ValueError(f"expected an edge map HxW in [0, 1], got shape {tuple(boundary.shape)}")
        if labels.shape != full.shape[:2]:
            raise ValueError(f"expected truth {full.shape[:2]}, got {labels.shape}")
        offered = [(name, k) for k, name in enumerate(names) if maps[k].any()]
        if not offered:
            raise ValueError("expected a map that is not zero everywhere, got none")
        scale = min(1.0, LONGEST / max(full.shape[:2]))
        size = height, width = [max(1, round(side * scale)) for side in full.shape[:2]]
        half = [max(1, side // 2) for side in size]
        resize = partial(F.interpolate, mode="bilinear", antialias=True)
        self._image = np.array(Image.fromarray(full).resize((width, height), Image.Resampling.BOX))
        self._truth = np.array(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
        self._pixels = torch.from_numpy(self._image).permute(2, 0, 1)[None]
        self._labels = labels_at(resize(maps[None], size), before)
        small_edge = resize(boundary[None, None], half).clamp(0, 1)
        self._affinity = edge_affinity(small_edge)
        self._start = resize(maps[None], half) * (1 - small_edge)
        self._refined: dict[tuple[int, float], Tensor] = {}
        self._walked: dict[float, dict[int, Tensor]] = {}
        self._after = after
        self.choice = ipywidgets.Dropdown(options=offered, description="class")
        self.iterations = ipywidgets.IntSlider(value=10, min=0, max=MOST_ITERATIONS, description="CRF: times")
        self.colour_sigma = ipywidgets.Dropdown(
            options=[(f"{sigma:g}", sigma) for sigma in COLOUR_SIGMAS], value=5.0, description="CRF: σ rgb"
        )
        self.steps = ipywidgets.SelectionSlider(options=STEPS, value=256, description="walk: steps")
        self.beta = ipywidgets.Dropdown(
            options=[(f"{beta:g}", beta) for beta in BETAS], value=10.0, description="walk: β"
        )
        super().__init__([self.choice, self.iterations, self.colour_sigma, self.steps, self.beta])

    def __repr__(self) -> str:
        return (
            f"WalkExplorer({self.choice.label}; CRF {self.iterations.value} times, sigma {self.colour_sigma.label}; "
            f"walk {self.steps.value} steps, beta {self.beta.label})"
        )

    def refined(self) -> Tensor:
        """1×H×W: the labels after the CRF."""
        state = int(self.iterations.value), float(self.colour_sigma.value)
        if state not in self._refined:
            present, numbered = self._labels.unique(return_inverse=True)  # time grows with the number of labels
            if len(present) > 1:
                numbered = dense_crf_labels(
                    self._pixels, numbered, len(present), iterations=state[0], colour_sigma=state[1]
                )
            self._refined[state] = present[numbered]
        return self._refined[state]

    def walked(self) -> Tensor:
        """1×K×H×W: the seed after the walk, divided by its maximum."""
        states = self._walked.setdefault(float(self.beta.value), {0: self._start})
        wanted = int(self.steps.value)
        if wanted not in states:
            done = max(n for n in states if n < wanted)
            states[wanted] = random_walk(states[done], self._affinity, beta=float(self.beta.value), steps=wanted - done)
        maps = F.interpolate(states[wanted], self._truth.shape, mode="bilinear")
        return maps / maps.max().clamp(min=1e-12)

    def render(self) -> View:
        k = int(self.choice.value)
        by_crf = self.refined()[0].numpy() == k + 1
        walked = self.walked()
        by_walk = labels_at(walked, self._after)[0].numpy() == k + 1
        start = enlarge(self._image, smooth=True)
        start[outline(enlarge(self._labels[0].numpy() == k + 1))] = 255
        over = enlarge(overlay(self._image, walked[0, k].numpy(), opacity=0.7))
        over[outline(enlarge(by_walk))] = 255
        tiles = [start, self._verdict(by_crf, k), over, self._verdict(by_walk, k)]
        was, crf, walk = (self._shares(mask, k) for mask in (self._labels[0].numpy() == k + 1, by_crf, by_walk))
        captions = [
            f"{self.choice.label}: IoU {was[0]:.2f}, FP {was[1]:.2f}, FN {was[2]:.2f}",
            f"CRF: IoU {crf[0]:.2f}, FP {crf[1]:.2f}, FN {crf[2]:.2f}",
            f"map after the walk, line at {self._after:.2f}",
            "walk:",
        ]
        texts = ("IoU {:.2f}", "FP {:.2f}", "FN {:.2f}")
        return View(
            tiles,
            captions,
            [(text.format(share), colour) for text, share, colour in zip(texts, walk, COLOURS, strict=True)],
        )

    def _verdict(self, mask: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.uint8]:
        shown: npt.NDArray[np.uint8] = enlarge(verdict(self._image, mask, self._truth, k + 1))
        return shown

    def _shares(self, mask: npt.NDArray[np.bool_], k: int) -> list[float]:
        counts = [int(part.sum()) for part in judge(mask, self._truth, k + 1)]
        return [count / max(1, sum(counts)) for count in counts]
