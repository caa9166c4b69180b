"""Speed and memory of PAMR beside forms that stack all 48 shifts of all channels.

The stacked forms are written from the method's description. One takes its shifts as the original does, by
convolutions with one-hot kernels, the other as slices of a padded map, which is the quicker way to the same stack.
Each form runs in a process of its own; its peak memory is that of its first call, less the peak of a process that
only loads the inputs. All forms get the same inputs and must give the same numbers. Beside the seconds by the clock
stand those of the processor, which other work on the machine disturbs less.

    python benchmarks/pamr.py --out results/benchmarks/pamr.json
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.files import atomic_write_text
from rsepm_edu.methods.pamr import pamr

CHANNELS, SIZE = 21, 448
DILATIONS, ITERATIONS, SIGMA = (1, 2, 4, 8, 12, 24), 10, 0.1
CASES = {"21 active channels": 21, "3 active channels": 3}
SPEED_WANTED, MEMORY_WANTED, DIFFERENCE_ALLOWED = 5.0, 5.0, 1e-5

Shifts = Callable[[Tensor, bool], Tensor]


def by_convolution(maps: Tensor, centre: bool) -> Tensor:
    """All shifts of BxCxHxW maps as BxCxNxHxW, each by a 3x3 convolution with a single one in its kernel."""
    batch, channels, height, width = maps.shape
    kernels = torch.eye(9).view(9, 1, 3, 3)
    if not centre:
        kernels = kernels[[0, 1, 2, 3, 5, 6, 7, 8]]
    planes = maps.view(batch * channels, 1, height, width)
    shifted = [F.conv2d(F.pad(planes, (d, d, d, d), mode="replicate"), kernels, dilation=d) for d in DILATIONS]
    return torch.cat(shifted, dim=1).view(batch, channels, -1, height, width)


def by_slices(maps: Tensor, centre: bool) -> Tensor:
    """All shifts of BxCxHxW maps as BxCxNxHxW, as slices of a padded copy."""
    height, width = maps.shape[2:]
    shifted = []
    for d in DILATIONS:
        padded = F.pad(maps, (d, d, d, d), mode="replicate")
        for y in (0, d, 2 * d):
            for x in (0, d, 2 * d):
                if centre or (y, x) != (d, d):
                    shifted.append(padded[:, :, y : y + height, x : x + width])
    return torch.stack(shifted, dim=2)


def stacked(shifts: Shifts, image: Tensor, masks: Tensor) -> Tensor:
    """PAMR with every shift of every channel in memory at once."""
    spread = shifts(image, True).std(dim=2, keepdim=True)
    difference = (image.unsqueeze(2) - shifts(image, False)).abs()
    affinity = (-difference / (1e-8 + SIGMA * spread)).mean(dim=1, keepdim=True).softmax(dim=2)
    for _ in range(ITERATIONS):
        masks = (shifts(masks, False) * affinity).sum(dim=2)
    return masks


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "shift_by_shift": pamr,
    "stacked_slices": lambda image, masks: stacked(by_slices, image, masks),
    "stacked_convolutions": lambda image, masks: stacked(by_convolution, image, masks),
}

CALLS = {"shift_by_shift": 5, "stacked_slices": 1, "stacked_convolutions": 1}  # the median counts


def inputs(active: int) -> tuple[Tensor, Tensor]:
    """One picture of coloured patches with noise, and 21 maps of which `active` are not zero."""
    generator = torch.Generator().manual_seed(0)
    patches = F.interpolate(torch.rand(1, 3, 14, 14, generator=generator), size=(SIZE, SIZE))
    image = patches + 0.05 * torch.randn(1, 3, SIZE, SIZE, generator=generator)
    masks = torch.rand(1, CHANNELS, SIZE, SIZE, generator=generator)
    masks[:, torch.randperm(CHANNELS, generator=generator)[active:]] = 0
    return image, masks


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts in bytes, Linux in KiB


@torch.no_grad()
def measure(form: str, active: int, result: Path) -> None:
    """What a child process does: run one form, save what it gives, print its figures as JSON."""
    image, masks = inputs(active)
    figures: dict[str, object] = {"peak_megabytes": peak_megabytes()}
    if form != "inputs":
        seconds, cpu_seconds = [], []
        for call in range(CALLS[form]):
            start, cpu_start = time.perf_counter(), time.process_time()
            refined = FORMS[form](image, masks)
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
            if call == 0:
                figures["peak_megabytes"] = peak_megabytes()
        figures |= {"seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu_seconds)}
        torch.save(refined, result)
    print(json.dumps(figures))


def figures_of(form: str, active: int, threads: int, result: Path) -> dict[str, float]:
    """Run one form in a fresh process."""
    command = [sys.executable, __file__, "--threads", str(threads)]
    command += ["--measure", form, "--active", str(active), "--result", str(result)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure_all(active: int, threads: int, folder: Path) -> dict[str, Any]:
    """The figures of all forms on one case, the peaks less that of the inputs, and the ratios to the package's form."""
    baseline = figures_of("inputs", active, threads, folder / "inputs.pt")["peak_megabytes"]
    table = {form: figures_of(form, active, threads, folder / f"{form}.pt") for form in FORMS}
    for row in table.values():
        row["peak_megabytes"] -= baseline
    ours = table["shift_by_shift"]
    ratios = {
        form: {key: round(row[key] / ours[key], 1) for key in row} for form, row in table.items() if row is not ours
    }
    rounded = {form: {key: round(value, 3) for key, value in row.items()} for form, row in table.items()}
    return {"forms": rounded, "ratios": ratios}


def largest_difference(folder: Path) -> float:
    """Between the saved results of the package's form and of the others."""
    results = {form: torch.load(folder / f"{form}.pt", weights_only=True) for form in FORMS}
    return max(float((results["shift_by_shift"] - result).abs().max()) for result in results.values())


def main() -> None:
    """Check that all forms agree, measure them, print and write the ratios."""
    parser = argparse.ArgumentParser(description="PAMR: shift by shift beside all shifts stacked.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of every form")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--measure", choices=["inputs", *FORMS], help=argparse.SUPPRESS)
    parser.add_argument("--active", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        measure(arguments.measure, arguments.active, arguments.result)
        return

    print(f"{SIZE}x{SIZE}, {CHANNELS} channels, {ITERATIONS} iterations, {arguments.threads} threads", flush=True)
    cases: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary, str(active)) for name, active in CASES.items()}
        for name, active in CASES.items():
            folders[name].mkdir()
            cases[name] = measure_all(active, arguments.threads, folders[name])
        # Only now: the peak of a child starts with that of the process that starts it, which therefore stays small.
        for name, folder in folders.items():
            cases[name]["max_difference"] = largest_difference(folder)

    for name, case in cases.items():
        print(f"{name}: largest difference {case['max_difference']:.1e}  (allowed: {DIFFERENCE_ALLOWED:g})")
        for form, row in case["forms"].items():
            print(f"  {form:22}", end="")
            print(f"{row['seconds']:8.3f} s {row['cpu_seconds']:8.3f} s (CPU) {row['peak_megabytes']:8.1f} MiB")
        for form, ratio in case["ratios"].items():
            print(
                f"  {form} / shift_by_shift: time {ratio['seconds']:.1f}, CPU time {ratio['cpu_seconds']:.1f}", end=""
            )
            print(f" (wanted: at least {SPEED_WANTED:g}), memory {ratio['peak_megabytes']:.1f}", end="")
            print(f" (wanted: at least {MEMORY_WANTED:g})")
        if not case["max_difference"] < DIFFERENCE_ALLOWED:
            raise SystemExit("the forms disagree")

    if arguments.out:
        figures = {
            "channels": CHANNELS,
            "height": SIZE,
            "width": SIZE,
            "iterations": ITERATIONS,
            "threads": arguments.threads,
            "cases": cases,
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        atomic_write_text(arguments.out, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
