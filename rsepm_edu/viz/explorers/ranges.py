"""Explore tables of results: choose a table and a measure, see every seed, compare with one row seed by seed."""

import math
from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
from PIL import Image, ImageColor, ImageDraw

from rsepm_edu.evaluation.comparison import paired_differences
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.viz.explorers.explorer import Explorer, View, font
from rsepm_edu.viz.panels import LINE_COLOURS

MEASURES = {"mIoU in %": "miou", "FP": "fp", "FN": "fn"}
NOTHING = "nothing"
WIDTH, NAMES, LINE, FOOT = 760, 290, 20, 22  # pixels: picture, column of names, a row, axis below
FINER = 2  # pixels a unit of the drawing: it fills the width of a page


def ranges_explorer(tables: Mapping[str, Sequence[Row]], *, measure: str = "mIoU in %") -> "RangesExplorer":
    """Explore tables of results: points for the seeds with their range, or differences to one row, seed by seed.

    Args:
        tables: name to rows.
        measure: where its control starts: "mIoU in %", "FP" or "FN".

    Raises:
        ValueError: no table, a table without rows, or an unknown measure.
    """
    return RangesExplorer(tables, measure=measure)


class RangesExplorer(Explorer):
    """What `ranges_explorer` returns. Controls: `table`, `measure` and `against` (Dropdowns)."""

    on_pages = {"table": None, "measure": None}

    def __init__(self, tables: Mapping[str, Sequence[Row]], *, measure: str = "mIoU in %") -> None:
        if not tables or not all(tables.values()):
            raise ValueError(f"tables: expected some, with rows, got { {name: len(t) for name, t in tables.items()} }")
        if measure not in MEASURES:
            raise ValueError(f"measure: expected one of {', '.join(MEASURES)}, got {measure!r}")
        self._tables = {name: list(rows) for name, rows in tables.items()}
        self.table = ipywidgets.Dropdown(options=list(tables), description="table")
        self.measure = ipywidgets.Dropdown(options=list(MEASURES), value=measure, description="measure")
        self.against = ipywidgets.Dropdown(description="minus")
        self._offer()
        self.table.observe(self._offer, names="value")
        super().__init__([self.table, self.measure, self.against])

    def __repr__(self) -> str:
        return f"RangesExplorer({self.table.value}, {self.measure.value}, minus {self.against.value})"

    def _offer(self, _change: object = None) -> None:
        kept = self.against.value
        options = [NOTHING, *dict.fromkeys(name_of(row) for row in self._tables[self.table.value])]
        self.against.options = options
        self.against.value = kept if kept in options else NOTHING

    def _seeds(self) -> dict[str, dict[int, float]]:
        """Row to seed to value, for the chosen table and measure; values that are not numbers are left out."""
        found: dict[str, dict[int, float]] = {}
        for row in self._tables[self.table.value]:
            value = float(getattr(row, MEASURES[self.measure.value]))
            if value == value:
                found.setdefault(name_of(row), {})[row.seed] = value
        return found

    def shown(self) -> dict[str, dict[int, float]]:
        """What is drawn: row to seed to value, or to its difference from the row that is chosen."""
        values = self._seeds()
        if self.against.value == NOTHING:
            return values
        reference = values.get(self.against.value, {})
        return {
            name: paired_differences(reference, by_seed)
            for name, by_seed in values.items()
            if name != self.against.value and reference.keys() & by_seed.keys()
        }

    def render(self) -> View:
        shown = self.shown()
        compared = self.against.value != NOTHING
        low, high, step = _axis([v for by_seed in shown.values() for v in by_seed.values()] + [0.0] * compared)
        height = LINE * len(shown) + FOOT
        image = Image.new("RGB", (FINER * WIDTH, FINER * height), "white")
        draw = ImageDraw.Draw(image)

        def place(value: float) -> float:
            return FINER * (NAMES + 12 + (value - low) / (high - low) * (WIDTH - NAMES - 90))

        bottom = FINER * (height - FOOT)
        for k in range(round((high - low) / step) + 1):
            tick = low + k * step
            heavy = compared and abs(tick) < step / 2
            draw.line([(place(tick), 0), (place(tick), bottom)], fill="#888888" if heavy else "#e4e4e4", width=FINER)
            draw.text((place(tick), bottom + 4), f"{tick:.4g}", fill="black", font=font(12 * FINER), anchor="ma")
        solid, pale = ImageColor.getrgb(LINE_COLOURS[0]), (178, 226, 213)
        for y, (name, by_seed) in enumerate(shown.items()):
            middle = FINER * LINE * (y + 0.5)
            draw.text((FINER * NAMES, middle), name, fill="black", font=font(12 * FINER), anchor="rm")
            numbers = list(by_seed.values())
            draw.line([(place(min(numbers)), middle), (place(max(numbers)), middle)], fill=pale, width=FINER * 6)
            mean = place(sum(numbers) / len(numbers))
            draw.line([(mean, middle - FINER * 7), (mean, middle + FINER * 7)], fill=solid, width=FINER * 2)
            for value in numbers:
                x, r = place(value), FINER * 3.5
                draw.ellipse((x - r, middle - r, x + r, middle + r), fill=solid, outline="white")
            if compared:
                above = sum(value > 0 for value in numbers)
                text = f"{above} of {len(numbers)} up"
                draw.text((FINER * (WIDTH - 4), middle), text, fill="black", font=font(12 * FINER), anchor="rm")
        title = f"{self.measure.value}, difference to {self.against.value}" if compared else str(self.measure.value)
        return View([np.array(image)], [f"{title}: a dot a seed, a stroke at the mean"])


def name_of(row: Row) -> str:
    """The method, and in brackets how its threshold was chosen."""
    choice = getattr(row, "choice", "oracle" if row.oracle else "none")
    return f"{row.method} [{choice}]"


def _axis(values: Sequence[float]) -> tuple[float, float, float]:
    """Lowest and highest tick around the values, and the step between ticks: 1, 2 or 5 times a power of ten."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = max(high - low, abs(high) / 100, 1e-6)
    power = 10.0 ** math.floor(math.log10(span / 8))
    step = next(power * factor for factor in (1, 2, 5, 10) if 8.001 * power * factor >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, max(last, first + 1) * step, step
