"""Speed of the threshold sweep beside the usual loops over thresholds and classes.

The usual form (AffinityNet, IRNet, SEAM, Puzzle-CAM and their descendants) goes over the picture
once a threshold and three times a class: put the background plane in front, take the arg-max, count
P, T and TP of each class with boolean masks. It is timed in numpy, as those projects ship it, and
word for word in torch. All forms get the same picture and must give the same counts.

    python benchmarks/threshold_sweep.py --out results/benchmarks/threshold_sweep.json
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rsepm_edu.evaluation.thresholds import THRESHOLDS, sweep
from rsepm_edu.files import atomic_write_text
from rsepm_edu.labels import VOID

CLASSES, HEIGHT, WIDTH = 20, 375, 500
TARGET_RATIO = 20.0


def loops_numpy(seed: np.ndarray, target: np.ndarray) -> np.ndarray:
    """P, T and TP of every threshold and label by the usual loops: Tx3xL."""
    counted = target != VOID
    result = np.zeros((len(THRESHOLDS), 3, len(seed) + 1), dtype=np.int64)
    for index, threshold in enumerate(THRESHOLDS):
        background = np.full((1, *target.shape), threshold, dtype=seed.dtype)
        prediction = np.argmax(np.concatenate([background, seed]), axis=0)
        for label in range(len(seed) + 1):
            predicted = (prediction == label) & counted
            true = (target == label) & counted
            result[index, 0, label] = predicted.sum()
            result[index, 1, label] = true.sum()
            result[index, 2, label] = (predicted & true).sum()
    return result


def loops_torch(seed: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The same loops on torch tensors."""
    counted = target != VOID
    result = torch.zeros(len(THRESHOLDS), 3, len(seed) + 1, dtype=torch.int64)
    for index, threshold in enumerate(THRESHOLDS):
        background = torch.full((1, *target.shape), threshold, dtype=seed.dtype)
        prediction = torch.cat([background, seed]).argmax(dim=0)
        for label in range(len(seed) + 1):
            predicted = (prediction == label) & counted
            true = (target == label) & counted
            result[index, 0, label] = predicted.sum()
            result[index, 1, label] = true.sum()
            result[index, 2, label] = (predicted & true).sum()
    return result


def one_pass(seed: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The package's sweep, brought to the same form: Tx3xL."""
    confusions = sweep(seed[None], target[None])
    return torch.stack([confusions.sum(dim=1), confusions.sum(dim=2), confusions.diagonal(dim1=1, dim2=2)], dim=1)


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` calls, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Check that all forms agree, time them, print and write the ratios."""
    parser = argparse.ArgumentParser(description="Threshold sweep: one pass beside loops.")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each form")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    # Coarse scores, so that many lie exactly on a threshold: equality has to hold there as well.
    seed = torch.randint(0, 101, (CLASSES, HEIGHT, WIDTH), generator=generator).float() / 100
    target = torch.randint(0, CLASSES + 1, (HEIGHT, WIDTH), generator=generator)
    target[torch.rand(HEIGHT, WIDTH, generator=generator) < 0.05] = VOID
    target = target.to(torch.uint8)
    seed_array, target_array = seed.numpy(), target.numpy()

    expected = torch.from_numpy(loops_numpy(seed_array, target_array))
    if not torch.equal(expected, loops_torch(seed, target)):
        raise SystemExit("the loops in numpy and in torch disagree")
    if not torch.equal(expected, one_pass(seed, target)):
        raise SystemExit("the one-pass sweep disagrees with the loops")

    times = {
        "one_pass": seconds(lambda: one_pass(seed, target), arguments.repeats),
        "loops_numpy": seconds(lambda: loops_numpy(seed_array, target_array), arguments.repeats),
        "loops_torch": seconds(lambda: loops_torch(seed, target), arguments.repeats),
    }
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: medians[name] / medians["one_pass"] for name in ("loops_numpy", "loops_torch")}

    print(f"{CLASSES + 1} labels, {len(THRESHOLDS)} thresholds, {HEIGHT}x{WIDTH}, one thread")
    print("counts of all three forms are equal")
    for name, median in medians.items():
        low, high = min(times[name]) * 1e3, max(times[name]) * 1e3
        print(f"{name:12} {median * 1e3:9.1f} ms   ({low:.1f} ... {high:.1f})")
    for name, ratio in ratios.items():
        print(f"{name} / one_pass = {ratio:.1f}  (wanted: at least {TARGET_RATIO:g})")

    if arguments.out:
        figures = {
            "labels": CLASSES + 1,
            "thresholds": len(THRESHOLDS),
            "height": HEIGHT,
            "width": WIDTH,
            "threads": 1,
            "repeats": arguments.repeats,
            "median_seconds": {name: round(value, 5) for name, value in medians.items()},
            "ratio": {name: round(value, 1) for name, value in ratios.items()},
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        }
        atomic_write_text(arguments.out, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
