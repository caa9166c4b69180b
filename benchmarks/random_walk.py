"""Speed and memory of the random walk beside the dense form of the originals and a sparse matrix.

The dense form is written from the method's description: the (h·w)×(h·w) transition matrix, squared 8 times, then
multiplied by the seed. Its work grows with (h·w)³, so it is measured on a small map; what it would take on the large
one is extrapolated, and printed and written as such. The sparse form keeps the matrix as CSR and multiplies the seed
by it 256 times. Each form runs in a process of its own; its peak memory is that of its first call, less the peak of a
process that only loads the inputs. All forms get the same inputs and must give the same numbers. Beside the seconds by
the clock stand those of the processor, which other work on the machine disturbs less; on a busy machine give one
thread, or set OMP_WAIT_POLICY=passive: threads that wait for each other count as work.

    python benchmarks/random_walk.py --out results/benchmarks/random_walk.json
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
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.files import atomic_write_text
from rsepm_edu.methods.random_walk import edge_affinity, pair_offsets, propagate

CLASSES, LARGE, SMALL = 3, 128, 40
RADIUS, BETA, SQUARINGS = 5, 10.0, 8
SECONDS_WANTED, MEGABYTES_WANTED, DIFFERENCE_ALLOWED = 1.5, 300.0, 1e-3


def entries(edge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values of the transition matrix of one picture."""
    side = edge.shape[-1]
    weights = edge_affinity(edge, radius=RADIUS)[0] ** BETA
    index = torch.arange(side * side).view(side, side)
    rows, columns, values = [index.flatten()], [index.flatten()], [torch.ones(side * side)]
    for plane, (dy, dx) in zip(weights, pair_offsets(RADIUS), strict=True):
        start, end = max(0, -dx), side - max(0, dx)
        first = index[: side - dy, start:end].flatten()
        second = first + dy * side + dx
        value = plane[: side - dy, start:end].flatten()
        rows, columns, values = [*rows, first, second], [*columns, second, first], [*values, value, value]
    row, column, value = torch.cat(rows), torch.cat(columns), torch.cat(values)
    total = torch.zeros(side * side).index_add_(0, column, value)
    return row, column, value / total[column]


def finished(seed: Tensor, walked: Tensor) -> Tensor:
    """Maps of the seed's shape, divided by their maximum."""
    return (walked / walked.max()).view_as(seed)


def dense(seed: Tensor, edge: Tensor) -> Tensor:
    """The walk of one picture by squaring the whole matrix."""
    row, column, value = entries(edge)
    size = seed.shape[2] * seed.shape[3]
    matrix = torch.zeros(size, size).index_put_((row, column), value)
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix
    return finished(seed, (seed * (1 - edge)).view(-1, size) @ matrix)


def sparse(seed: Tensor, edge: Tensor) -> Tensor:
    """The walk of one picture by a CSR matrix, transposed, which the seed meets once a step."""
    row, column, value = entries(edge)
    size = seed.shape[2] * seed.shape[3]
    order = (column * size + row).argsort()
    ends = torch.bincount(column, minlength=size).cumsum(0)
    starts = F.pad(ends, (1, 0)).int()  # 32 bits: MKL would convert anything else at every call
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state", UserWarning)
        matrix = torch.sparse_csr_tensor(starts, row[order].int(), value[order], (size, size), check_invariants=True)
    maps = (seed * (1 - edge)).view(-1, size).T.contiguous()
    for _ in range(2**SQUARINGS):
        maps = matrix @ maps
    return finished(seed, maps.T)


def shifts(seed: Tensor, edge: Tensor) -> Tensor:
    """The package's form."""
    return propagate(seed, edge, radius=RADIUS, beta=BETA, steps=2**SQUARINGS)


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"shifts": shifts, "sparse_matrix": sparse, "dense": dense}
CASES = {LARGE: ("shifts", "sparse_matrix"), SMALL: ("shifts", "dense")}
CALLS = {"shifts": 5, "sparse_matrix": 3, "dense": 1}  # the median counts


def inputs(side: int) -> tuple[Tensor, Tensor]:
    """Three maps of blobs, and the edges between patches with some noise."""
    generator = torch.Generator().manual_seed(0)
    seed = F.interpolate(torch.rand(1, CLASSES, 6, 6, generator=generator), size=(side, side), mode="bilinear") ** 2
    patches = F.interpolate(torch.rand(1, 1, 7, 7, generator=generator), size=(side, side))
    step = (patches - patches.roll((1, 1), (2, 3))).abs()
    return seed, (step + 0.1 * torch.rand(1, 1, side, side, generator=generator)).clamp(0, 1)


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts in bytes, Linux in KiB


@torch.no_grad()
def measure(form: str, side: int, result: Path) -> None:
    """What a child process does: run one form, save what it gives, print its figures as JSON."""
    seed, edge = inputs(side)
    figures: dict[str, object] = {"peak_megabytes": peak_megabytes()}
    if form != "inputs":
        seconds, cpu_seconds = [], []
        for call in range(CALLS[form]):
            start, cpu_start = time.perf_counter(), time.process_time()
            walked = FORMS[form](seed, edge)
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
            if call == 0:
                figures["peak_megabytes"] = peak_megabytes()
        figures |= {"seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu_seconds)}
        torch.save(walked, result)
    print(json.dumps(figures))


def figures_of(form: str, side: int, threads: int, result: Path) -> dict[str, float]:
    """Run one form in a fresh process."""
    command = [sys.executable, __file__, "--threads", str(threads)]
    command += ["--measure", form, "--side", str(side), "--result", str(result)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure_all(side: int, threads: int, folder: Path) -> dict[str, Any]:
    """The figures of the forms of one case, the peaks less that of the inputs, and the ratios to the package's form."""
    baseline = figures_of("inputs", side, threads, folder / "inputs.pt")["peak_megabytes"]
    table = {form: figures_of(form, side, threads, folder / f"{form}.pt") for form in CASES[side]}
    for row in table.values():
        row["peak_megabytes"] -= baseline
    ours = table["shifts"]
    ratios = {
        form: {key: round(row[key] / ours[key], 1) for key in ("seconds", "cpu_seconds")}
        for form, row in table.items()
        if row is not ours
    }
    rounded = {form: {key: round(value, 3) for key, value in row.items()} for form, row in table.items()}
    return {"forms": rounded, "ratios": ratios}


def extrapolated(cases: dict[int, dict[str, Any]]) -> dict[str, float]:
    """What the dense form would take on the large map: time by (h·w)³, memory by two matrices of (h·w)² floats."""
    work = (LARGE / SMALL) ** 6
    seconds = cases[SMALL]["forms"]["dense"]["cpu_seconds"] * work
    return {
        "cpu_seconds": round(seconds),
        "ratio_cpu_seconds": round(seconds / cases[LARGE]["forms"]["shifts"]["cpu_seconds"]),
        "megabytes": round(2 * 4 * LARGE**4 / 2**20),
    }


def largest_difference(side: int, folder: Path) -> float:
    """Between the saved results of the package's form and of the others."""
    results = {form: torch.load(folder / f"{form}.pt", weights_only=True) for form in CASES[side]}
    return max(float((results["shifts"] - result).abs().max()) for result in results.values())


def main() -> None:
    """Check that all forms agree, measure them, print and write figures and ratios."""
    parser = argparse.ArgumentParser(description="Random walk: shifts beside a sparse and a dense matrix.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of every form")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--measure", choices=["inputs", *FORMS], help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        measure(arguments.measure, arguments.side, arguments.result)
        return

    print(f"{CLASSES} classes, {2**SQUARINGS} steps, radius {RADIUS}, {arguments.threads} threads", flush=True)
    cases: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {side: Path(temporary, str(side)) for side in CASES}
        for side, folder in folders.items():
            folder.mkdir()
            cases[side] = measure_all(side, arguments.threads, folder)
        # Only now: the peak of a child starts with that of the process that starts it, which therefore stays small.
        for side, folder in folders.items():
            cases[side]["max_difference"] = largest_difference(side, folder)

    for side, case in cases.items():
        print(f"{side}x{side}: largest difference {case['max_difference']:.1e}  (allowed: {DIFFERENCE_ALLOWED:g})")
        for form, row in case["forms"].items():
            print(f"  {form:14}{row['seconds']:8.3f} s {row['cpu_seconds']:8.3f} s (CPU)", end="")
            print(f" {row['peak_megabytes']:8.1f} MiB")
        for form, ratio in case["ratios"].items():
            print(f"  {form} / shifts: time {ratio['seconds']:.1f}, CPU time {ratio['cpu_seconds']:.1f}")
        if not case["max_difference"] < DIFFERENCE_ALLOWED:
            raise SystemExit("the forms disagree")
    large = cases[LARGE]["forms"]["shifts"]
    print(f"shifts on {LARGE}x{LARGE}: wanted at most {SECONDS_WANTED:g} s and {MEGABYTES_WANTED:g} MiB, ", end="")
    print(f"got {large['cpu_seconds']:.3f} s (CPU) and {large['peak_megabytes']:.0f} MiB")
    guess = extrapolated(cases)
    print(f"EXTRAPOLATED, not measured: dense on {LARGE}x{LARGE}: {guess['cpu_seconds']:.0f} s (CPU), ", end="")
    print(f"{guess['ratio_cpu_seconds']:.0f} times as long, {guess['megabytes']:.0f} MiB")

    if arguments.out:
        figures = {
            "classes": CLASSES,
            "steps": 2**SQUARINGS,
            "radius": RADIUS,
            "threads": arguments.threads,
            "cases": {f"{side}x{side}": case for side, case in cases.items()},
            f"extrapolated_dense_{LARGE}x{LARGE}": guess,
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        atomic_write_text(arguments.out, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
