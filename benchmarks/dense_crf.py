"""Agreement, speed and memory of the dense CRF beside pydensecrf2, on photographs in VOC's layout.

The maps are the masks, void counted as background, with noise and a blur, sharpened by a soft-max; once with the
channels of the classes present and once with all 21. Agreement is the share of pixels with the same arg-max, on
photographs of the size they are stored in. For the
figures each form runs in a process of its own, on one photograph with two objects; the least of several calls counts,
which other work on the machine disturbs least. Peak memory is that of the first call, less the peak of a process that
only loads the inputs. Beside the seconds by the clock stand those of the processor.

    pip install -e '.[crf-oracle]'
    RSEPM_EDU_VOC_SAMPLE=.../VOC2012 python benchmarks/dense_crf.py --out results/benchmarks/dense_crf.json

On a machine that does other work set OMP_WAIT_POLICY=PASSIVE: else a thread that waits for another spins.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rsepm_edu.files import atomic_write_text
from rsepm_edu.labels import BACKGROUND, VOID
from rsepm_edu.methods.dense_crf import dense_crf

CLASSES = 21
SIZES: dict[str, tuple[int, int] | None] = {"375x500": (375, 500), "as stored": None}
AGREEMENT_WANTED, RATIO_WANTED = 0.98, 1.0
CALLS = 3


def load(folder: Path, name: str, size: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Photograph 1×3×H×W and mask H×W without void, H×W = `size` where one is given."""
    image: Image.Image = Image.open(folder / f"JPEGImages/{name}.jpg").convert("RGB")
    mask: Image.Image = Image.open(folder / f"SegmentationClass/{name}.png")
    if size:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
        mask = mask.resize(size[::-1], Image.Resampling.NEAREST)
    labels = torch.from_numpy(np.array(mask)).long()
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], labels.masked_fill(labels == VOID, BACKGROUND)


def maps_of(mask: Tensor, only_present: bool) -> Tensor:
    """Probabilities 1×C×H×W that know roughly where things are; C = 21, or the number of labels in the mask."""
    classes = CLASSES
    if only_present:
        present, mask = mask.unique(return_inverse=True)
        classes = len(present)
    maps = F.one_hot(mask, classes).movedim(-1, 0)[None].float()
    noise = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))
    return (6 * F.avg_pool2d(maps + noise, 31, stride=1, padding=15)).softmax(1)


def by_pydensecrf(image: Tensor, probabilities: Tensor) -> Tensor:
    """The same CRF by pydensecrf2."""
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    _, classes, height, width = probabilities.shape
    field = DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities[0].numpy())))
    field.addPairwiseGaussian(sxy=1, compat=3)
    rgb: npt.NDArray[np.uint8] = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
    field.addPairwiseBilateral(sxy=67, srgb=3, rgbim=rgb, compat=4)
    return torch.from_numpy(np.array(field.inference(10))).view(1, classes, height, width)


FORMS = {"ours": dense_crf, "pydensecrf2": by_pydensecrf}


def names_of(folder: Path, count: int) -> list[str]:
    """`count` names all over the list of photographs with a mask."""
    names = (folder / "ImageSets/Segmentation/train.txt").read_text().split()
    return names[:: max(len(names) // count, 1)][:count]


def agreement(folder: Path, count: int, only_present: bool) -> dict[str, float]:
    """Mean and least share of pixels with the same label, and how many pixels pydensecrf2 moved at all."""

    def shares() -> Iterator[tuple[float, float]]:
        for name in names_of(folder, count):
            image, mask = load(folder, name, None)
            maps = maps_of(mask, only_present)
            ours, theirs = (form(image, maps).argmax(1) for form in FORMS.values())
            yield float((ours == theirs).float().mean()), float((maps.argmax(1) != theirs).float().mean())

    same, moved = zip(*shares(), strict=True)
    return {
        "photographs": len(same),
        "mean": round(sum(same) / len(same), 5),
        "least": round(min(same), 5),
        "pixels_moved": round(sum(moved) / len(moved), 5),
    }


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts in bytes, Linux in KiB


def measure(folder: Path, form: str, size: str, only_present: bool) -> None:
    """What a child process does: run one form and print its figures as JSON."""
    for name in names_of(folder, 1000):
        image, mask = load(folder, name, SIZES[size])
        if len(mask.unique()) == 3:
            break
    maps = maps_of(mask, only_present)
    figures = {"peak_megabytes": peak_megabytes()}
    if form != "inputs":
        seconds, cpu_seconds = [], []
        for call in range(CALLS):
            start, cpu_start = time.perf_counter(), time.process_time()
            FORMS[form](image, maps)
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
            if call == 0:
                figures["peak_megabytes"] = peak_megabytes()
        figures |= {"seconds": min(seconds), "cpu_seconds": min(cpu_seconds)}
    print(json.dumps(figures))


def figures_of(folder: Path, form: str, size: str, only_present: bool, threads: int) -> dict[str, float]:
    """Run one form in a fresh process."""
    command = [sys.executable, __file__, "--sample", str(folder), "--threads", str(threads)]
    command += ["--measure", form, "--size", size] + ["--only-present"] * only_present
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure_all(folder: Path, size: str, only_present: bool, threads: int) -> dict[str, Any]:
    """The figures of both forms, the peaks less that of the inputs, and the ratios: less than 1 is for ours."""
    baseline = figures_of(folder, "inputs", size, only_present, threads)["peak_megabytes"]
    table = {form: figures_of(folder, form, size, only_present, threads) for form in FORMS}
    for row in table.values():
        row["peak_megabytes"] -= baseline
    ratios = {key: round(value / table["pydensecrf2"][key], 2) for key, value in table["ours"].items()}
    return {form: {key: round(value, 3) for key, value in row.items()} for form, row in table.items()} | {
        "ratios": ratios
    }


def main() -> None:
    """Measure agreement and figures, print and write them."""
    parser = argparse.ArgumentParser(description="Dense CRF: ours beside pydensecrf2.")
    parser.add_argument("--sample", type=Path, default=os.environ.get("RSEPM_EDU_VOC_SAMPLE"), help="a VOC2012 folder")
    parser.add_argument("--photographs", type=int, default=50, help="how many for the agreement; 0: leave it out")
    parser.add_argument(
        "--threads", type=int, nargs="*", default=[1, 2], help="CPU threads, one run for each; none: no figures"
    )
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--measure", choices=["inputs", *FORMS], help=argparse.SUPPRESS)
    parser.add_argument("--size", choices=list(SIZES), help=argparse.SUPPRESS)
    parser.add_argument("--only-present", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.sample or not importlib.util.find_spec("pydensecrf"):
        print("benchmarks/dense_crf.py: skipped; it needs pydensecrf2 and RSEPM_EDU_VOC_SAMPLE")
        return
    if arguments.measure:
        torch.set_num_threads(arguments.threads[0])
        measure(arguments.sample, arguments.measure, arguments.size, arguments.only_present)
        return

    cases: dict[str, dict[str, Any]] = {}
    # Figures first: the peak of a child starts with that of the process that starts it, which therefore stays small.
    for size in SIZES if arguments.threads else ():
        for only_present in (False, True):
            case = cases.setdefault(f"{size}, {'3 labels present' if only_present else f'{CLASSES} classes'}", {})
            for threads in arguments.threads:
                table = case[f"threads {threads}"] = measure_all(arguments.sample, size, only_present, threads)
                print(f"{list(cases)[-1]}, {threads} threads: ours / pydensecrf2 (wanted: at most {RATIO_WANTED:g})")
                for key, ratio in table["ratios"].items():
                    print(f"  {key:15}{table['ours'][key]:9.3f} /{table['pydensecrf2'][key]:9.3f} ={ratio:6.2f}")
                sys.stdout.flush()
    agreements: dict[str, dict[str, float]] = {}
    for only_present in (False, True) if arguments.photographs else ():
        name = "classes present" if only_present else f"{CLASSES} classes"
        row = agreements[name] = agreement(arguments.sample, arguments.photographs, only_present)
        print(f"{name}: {row} (wanted: a mean of at least {AGREEMENT_WANTED:g})", flush=True)

    if arguments.out:
        figures = {
            "iterations": 10,
            "figures": cases,
            "agreement": agreements,
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        atomic_write_text(arguments.out, json.dumps(figures, indent=2) + "\n")
    if any(row["mean"] < AGREEMENT_WANTED for row in agreements.values()):
        raise SystemExit("the forms disagree")


if __name__ == "__main__":
    main()
