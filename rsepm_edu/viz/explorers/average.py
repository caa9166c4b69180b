"""Explore the moving average: how fast a noisy weight learns, how long its average remembers."""

import ipywidgets
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from rsepm_edu.viz.explorers.explorer import EXTRA, RIGHT, TILE, Explorer, View, font
from rsepm_edu.viz.panels import Picture

Values = npt.NDArray[np.float64]

RATES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
POWERS = (0.0, 0.9, 2.0)
DECAYS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
WIDTH = round(1.5 * TILE)
FINER = 2  # drawn this much larger and then reduced, for smooth lines
LEFT, FOOT, TOP = 40, 20, 10  # pixels of a tile outside of its axes
GREY, BLUE = (140, 140, 140), (86, 180, 233)


def average_explorer(
    *, start: float = -1.0, target: float = 1.0, noise: float = 1.0, steps: int = 200, seed: int = 0
) -> "AverageExplorer":
    """Explore one weight that learns from noisy gradients, and the moving average that follows it.

    The weight goes down the slope of (w − target)² / 2, of which it only sees w − target + noise · (a normal number).

    Args:
        start, target: where the weight starts, and where it should go.
        noise: standard deviation of a gradient.
        steps: of the run, at least 8.
        seed: of the noise.

    Raises:
        ValueError: fewer than 8 steps, negative noise, or a start on the target.
    """
    return AverageExplorer(start=start, target=target, noise=noise, steps=steps, seed=seed)


class AverageExplorer(Explorer):
    """What `average_explorer` returns.

    Controls: `rate` and `decay` (SelectionSlider), `power` (Dropdown) and `early` (Checkbox: the average follows faster
    in the first steps, by min(decay, (1 + step) / (10 + step))).
    """

    charts = (0, 1)
    on_pages = {
        "rate": (0.05, 0.2, 0.5),
        "power": (0.0, 0.9),
        "decay": (0.0, 0.9, 0.999),
        "early": None,
    }

    def __init__(self, *, start: float, target: float, noise: float, steps: int, seed: int) -> None:
        if steps < 8:
            raise ValueError(f"steps: expected at least 8, got {steps}")
        if noise < 0:
            raise ValueError(f"noise: expected 0 or more, got {noise}")
        if start == target:
            raise ValueError(f"start: expected another place than the target, got {start}")
        self._start, self._target = start, target
        self._noise = noise * np.random.default_rng(seed).standard_normal(steps)
        self.rate = ipywidgets.SelectionSlider(
            options=[(f"{value:g}", value) for value in RATES], value=0.2, description="rate"
        )
        self.power = ipywidgets.Dropdown(
            options=[("0 (constant)" if not value else f"{value:g}", value) for value in POWERS],
            value=0.0,
            description="power",
        )
        self.decay = ipywidgets.SelectionSlider(
            options=[(f"{value:g}", value) for value in DECAYS], value=0.95, description="decay"
        )
        self.early = ipywidgets.Checkbox(value=True, description="fast start")
        super().__init__([self.rate, self.power, self.decay, self.early])

    def __repr__(self) -> str:
        start = "fast start" if self.early.value else "plain start"
        return (
            f"AverageExplorer(rate {self.rate.label}, power {self.power.label}, decay {self.decay.label}, {start}): "
            f"off by {self.off(self.weights()):.2f}, average by {self.off(self.averages()):.2f}"
        )

    def rates(self) -> Values:
        """The learning rate of every step: rate × (1 − step / steps) ^ power."""
        count = len(self._noise)
        return np.asarray(self.rate.value * (1 - np.arange(count) / count) ** self.power.value, dtype=np.float64)

    def weights(self) -> Values:
        """The weight after every step."""
        weight, path = self._start, []
        for rate, noise in zip(self.rates(), self._noise, strict=True):
            weight -= rate * (weight - self._target + noise)
            path.append(weight)
        return np.array(path)

    def averages(self) -> Values:
        """Its moving average after every step."""
        average, path = self._start, []
        for step, weight in enumerate(self.weights()):
            keep = min(self.decay.value, (1 + step) / (10 + step)) if self.early.value else self.decay.value
            average = keep * average + (1 - keep) * weight
            path.append(average)
        return np.array(path)

    def off(self, path: Values) -> float:
        """How far a path is from the target over its last quarter: the root of the mean square."""
        last = path[-(len(path) // 4) :]
        return float(np.sqrt(((last - self._target) ** 2).mean()))

    def render(self) -> View:
        rates, weights, averages = self.rates(), self.weights(), self.averages()
        middle, half = (self._start + self._target) / 2, abs(self._target - self._start)
        span = (middle - 1.25 * half, middle + 1.25 * half)
        tiles = [
            _chart({BLUE: rates}, (0.0, max(RATES)), line=None),
            _chart({EXTRA: weights, RIGHT: averages}, span, line=self._target),
        ]
        captions = [f"learning rate, step 0 to {len(rates)}", "the weight and its average; grey: where it should be"]
        legend = [
            (f"weight: off by {self.off(weights):.2f}", EXTRA),
            (f"average: off by {self.off(averages):.2f}", RIGHT),
        ]
        return View(tiles, captions, legend)


def _chart(paths: dict[tuple[int, int, int], Values], span: tuple[float, float], *, line: float | None) -> Picture:
    """Paths over the steps, cut off where they leave the span; a grey line across at a value."""
    image = Image.new("RGB", (FINER * WIDTH, FINER * TILE), "white")
    draw = ImageDraw.Draw(image)
    left, right, top, foot = FINER * LEFT, FINER * (WIDTH - 4), FINER * TOP, FINER * (TILE - FOOT)
    low, high = span

    def place(value: float) -> float:
        return foot - (min(max(value, low), high) - low) / (high - low) * (foot - top)

    for value in (low, (low + high) / 2, high):
        draw.text((left - 8, place(value)), f"{value:g}", fill=GREY, font=font(13 * FINER), anchor="rm")
    if line is not None:
        draw.line([(left, place(line)), (right, place(line))], fill=GREY, width=FINER)
    for colour, path in paths.items():
        across = np.linspace(left, right, len(path))
        draw.line([(x, place(y)) for x, y in zip(across, path, strict=True)], fill=colour, width=2 * FINER)
    draw.line([(left, top), (left, foot), (right, foot)], fill="black", width=FINER)
    return np.array(image.resize((WIDTH, TILE), Image.Resampling.LANCZOS))
