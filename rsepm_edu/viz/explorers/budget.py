"""Explore the memory of a training step: crop, batch, parts and precision, beside what a GPU has."""

from collections.abc import Mapping

import ipywidgets
import numpy as np
from PIL import Image, ImageDraw

from rsepm_edu.viz.explorers.explorer import EXTRA, MISSED, RIGHT, Explorer, View, font

SIZES = (192, 256, 320, 384, 448, 512)
BATCHES = (8, 16, 32)
COPIES = 4  # float32 numbers a parameter: weight, gradient, momentum, moving average
PRECISIONS = {"fp32": 4, "fp16 or bf16": 2}  # bytes of an activation
WIDTH, NAMES, LINE, FOOT = 760, 70, 30, 24  # pixels: picture, column of names, a row, axis below
ROOMS = 4  # the axis goes to so many times the GPU's memory
FINER = 2  # pixels a unit of the drawing: it fills the width of a page
GREY, BLACK = (120, 120, 120), (0, 0, 0)


def budget_explorer(parameters: int, saved: Mapping[str, float], *, room: float = 16e9) -> "BudgetExplorer":
    """Explore how much memory a training step needs, phase by phase.

    Counted are the weights with their gradient, momentum and moving average, all float32, and the activations that the
    backward pass waits for; in half precision these take half, and the weights get a second, half as large copy. What
    is not counted: temporary memory of the kernels, and of the teacher's forward pass.

    Args:
        parameters: of the network.
        saved: phase to bytes that are saved for the backward pass, in float32, for each pixel of a picture.
        room: bytes of the GPU.

    Raises:
        ValueError: no phase, or a number that is not above 0.
    """
    return BudgetExplorer(parameters, saved, room=room)


class BudgetExplorer(Explorer):
    """What `budget_explorer` returns.

    Controls: `size` and `batch` (SelectionSlider), `accumulate` (SelectionSlider, the divisors of the batch that are
    powers of two) and `precision` (Dropdown).
    """

    on_pages = {"size": (192, 320, 512), "batch": None, "accumulate": None, "precision": None}

    def __init__(self, parameters: int, saved: Mapping[str, float], *, room: float) -> None:
        if not saved:
            raise ValueError("saved: expected bytes of at least one phase, got none")
        for name, value in {"parameters": parameters, "room": room, **saved}.items():
            if not value > 0:
                raise ValueError(f"{name}: expected a number above 0, got {value}")
        self._parameters, self._saved, self._room = parameters, dict(saved), room
        self.size = ipywidgets.SelectionSlider(options=SIZES, value=512, description="size")
        self.batch = ipywidgets.SelectionSlider(options=BATCHES, value=32, description="batch_size")
        self.accumulate = ipywidgets.SelectionSlider(options=[1], description="accumulate")
        self.precision = ipywidgets.Dropdown(options=list(PRECISIONS), description="precision")
        self._offer()
        self.batch.observe(self._offer, names="value")
        super().__init__([self.size, self.batch, self.accumulate, self.precision])

    def __repr__(self) -> str:
        needed = ", ".join(f"{phase} {sum(parts) / 1e9:.1f} GB" for phase, parts in self.needed().items())
        return (
            f"BudgetExplorer(size {self.size.value}, batch_size {self.batch.value}, accumulate "
            f"{self.accumulate.value}, {self.precision.value}): {needed}"
        )

    def _offer(self, _change: object = None) -> None:
        kept = min(self.accumulate.value, self.batch.value)
        self.accumulate.options = [2**k for k in range(self.batch.value.bit_length())]
        self.accumulate.value = kept

    def needed(self) -> dict[str, tuple[float, float]]:
        """Phase to bytes: of the weights with what belongs to them, and of the activations."""
        wide = PRECISIONS[self.precision.value]
        fixed = self._parameters * (4.0 * COPIES + (wide if wide < 4 else 0))
        pixels = self.batch.value // self.accumulate.value * self.size.value**2
        return {phase: (fixed, pixels * saved * wide / 4) for phase, saved in self._saved.items()}

    def render(self) -> View:
        needed = self.needed()
        height = LINE * len(needed) + FOOT
        image = Image.new("RGB", (FINER * WIDTH, FINER * height), "white")
        draw = ImageDraw.Draw(image)
        end = ROOMS * self._room  # the axis stays, so that two states can be compared

        def place(value: float) -> float:
            return FINER * (NAMES + 8 + min(value, end) / end * (WIDTH - NAMES - 100))

        bottom = FINER * LINE * len(needed)
        for k in range(ROOMS + 1):
            text = f"{k * self._room / 1e9:g} GB"
            draw.text((place(k * self._room), bottom + 4), text, fill=GREY, font=font(12 * FINER), anchor="ma")
        for y, (phase, (fixed, activations)) in enumerate(needed.items()):
            top, foot = FINER * (LINE * y + 5), FINER * (LINE * (y + 1) - 5)
            total = fixed + activations
            draw.text((FINER * NAMES, (top + foot) / 2), phase, fill="black", font=font(12 * FINER), anchor="rm")
            draw.rectangle((place(0), top, place(total), foot), fill=MISSED)
            draw.rectangle((place(0), top, place(fixed), foot), fill="black")
            colour = RIGHT if total <= self._room else EXTRA
            words = f"{total / 1e9:.1f} GB" + ("" if total <= end else " >")
            draw.text((place(total) + 8, (top + foot) / 2), words, fill=colour, font=font(12 * FINER), anchor="lm")
        draw.line([(place(self._room), 0), (place(self._room), bottom)], fill="black", width=FINER)
        caption = f"memory of one training step; the line is the GPU's {self._room / 1e9:g} GB"
        legend = [("weights, gradient, momentum, average", BLACK), ("activations", MISSED)]
        return View([np.array(image)], [caption], legend)
