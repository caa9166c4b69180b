"""How fast the explorers of the lessons answer: every control moved, one at a time, with the lessons' own pictures.

Each lesson is run up to its explorer. Timed is what happens between a control's new value and the new picture, PNG
included; the way to the browser and back is not. Wanted: at most 200 ms on two cores.

    python benchmarks/explorers.py --out results/benchmarks/explorers.json
"""

import argparse
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "agg")  # before a lesson imports matplotlib

import ipywidgets
import nbformat
import torch
from IPython.core.interactiveshell import InteractiveShell

from rsepm_edu.files import atomic_write_text
from rsepm_edu.viz.explorers.explorer import Explorer

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
WANTED = 200  # milliseconds
STOPS = 12  # of a slider, at most


def explorer_of(path: Path) -> Explorer:
    """Run a lesson up to the cell whose value is an explorer."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code" or "solution" in cell.metadata.get("tags", []):
            continue
        with redirect_stdout(io.StringIO()):
            done = shell.run_cell(cell.source)
        done.raise_error()
        if isinstance(done.result, Explorer):
            return done.result
    raise SystemExit(f"{path.name}: expected a cell whose value is an explorer, got none")


def values_of(control: Any) -> list[Any]:
    """What a control can be set to; of a slider's values at most `STOPS`."""
    if isinstance(control, ipywidgets.Checkbox):
        return [True, False]
    if isinstance(control, ipywidgets.Dropdown | ipywidgets.SelectionSlider):
        return [option[1] if isinstance(option, tuple) else option for option in control.options]  # (label, value)
    if isinstance(control, ipywidgets.SelectionRangeSlider):
        return [(low, high) for low, high in zip(control.options, control.options[3:], strict=False)]
    count = min(STOPS, round((control.max - control.min) / control.step) + 1)
    kind = int if isinstance(control, ipywidgets.IntSlider | ipywidgets.IntRangeSlider) else float
    values = [kind(control.min + (control.max - control.min) * i / (count - 1)) for i in range(count)]
    if isinstance(control, ipywidgets.IntRangeSlider | ipywidgets.FloatRangeSlider):
        return list(zip(values, values[1:], strict=False))
    return values


def answers(explorer: Explorer) -> Iterator[float]:
    """Milliseconds of each change of one control, the others as they were."""
    for control in explorer.box.children[0].children:
        first = control.value
        for value in [*values_of(control), first]:
            if value == control.value:
                continue
            started = time.perf_counter()
            control.value = value  # draws the picture before it returns
            yield (time.perf_counter() - started) * 1e3


def main() -> None:
    """Time every explorer, print and write the figures."""
    parser = argparse.ArgumentParser(description="How fast the explorers of the lessons answer.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: dict[str, dict[str, float]] = {}
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        explorer = explorer_of(path)
        times = list(answers(explorer))
        rows[f"{path.stem}: {type(explorer).__name__}"] = row = {
            "changes": len(times),
            "median_ms": round(statistics.median(times), 1),
            "longest_ms": round(max(times), 1),
        }
        print(path.stem, row, flush=True)
    figures = {
        "explorers": rows,
        "wanted_ms": WANTED,
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if arguments.out:
        atomic_write_text(arguments.out, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
