"""Where the time of one RS+EPM training step goes, and how much of it the method itself takes.

A step is the package's own (`Trainer.step`, every part of the method on) on Creatures. Its functions are replaced
by wrappers that time them while the benchmark runs; the time of a part is its own, without the parts inside it. The
method's share is all of SCG, PAMR, EdgePredict and mixing, with the resizing and filtering around them. On the CPU
these are seconds of the processor, on a GPU seconds of the clock.

    python benchmarks/training_step.py --out results/benchmarks/training_step.json
"""

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from step_parts import FULL, parts_of_a_step
from torch import Tensor

from rsepm_edu.data.creatures import CREATURES, draw_picture
from rsepm_edu.data.voc import VOC_CLASSES
from rsepm_edu.files import atomic_write_text
from rsepm_edu.training.config import PRESETS, TrainConfig, preset
from rsepm_edu.training.loop import Trainer

CASES: tuple[dict[str, Any], ...] = (
    {"preset": "creatures-cpu", "batch": 8, "size": 96},
    {"preset": "voc-gpu", "batch": 2, "size": 320},
)
METHOD = ("SCG", "PAMR", "RecurSeed, the rest", "EdgePredict", "pasting", "targets, the rest")
NETWORK = ("network forward", "backward", "optimiser and average", "losses and the rest")
WANTED_SHARE = 0.35


class Stopwatch:
    """Seconds by part, each without the parts called inside it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner = [0.0]  # time spent in parts called by the one that runs, one entry a level

    def now(self) -> float:
        """Seconds of the processor; on a GPU those of the clock, after all work given to it is done."""
        if self.device.type != "cuda":
            return time.process_time()  # other work on the machine disturbs it less
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block under that name."""
        start = self.now()
        self.inner.append(0.0)
        try:
            yield
        finally:
            whole = self.now() - start
            self.seconds[name] += whole - self.inner.pop()
            self.inner[-1] += whole

    @contextmanager
    def watch(self, name: str, owner: Any, attribute: str) -> Iterator[None]:
        """Count every call of `owner.attribute` under that name."""
        original = getattr(owner, attribute)

        def timed(*args: Any, **settings: Any) -> Any:
            with self.part(name):
                return original(*args, **settings)

        setattr(owner, attribute, timed)
        try:
            yield
        finally:
            setattr(owner, attribute, original)


def make_batch(config: TrainConfig, classes: int) -> tuple[Tensor, Tensor]:
    """Creatures at the size of the crop, uint8, and their tags as the first of `classes`."""
    drawn = [draw_picture(0, "train", index, size=min(config.size, 256)) for index in range(config.batch_size)]
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _, _ in drawn])
    images = F.interpolate(images.float(), size=(config.size, config.size), mode="bilinear").to(torch.uint8)
    tags = torch.stack([torch.from_numpy(tags) for _, _, tags in drawn])
    return images, F.pad(tags, (0, classes - tags.shape[1]))


def measure(config: TrainConfig, *, steps: int, device: torch.device) -> dict[str, float]:
    """Milliseconds of each part, median of `steps` steps after two that do not count."""
    classes = CREATURES if config.backbone == "creatures" else VOC_CLASSES
    trainer = Trainer(config, tuple(classes), device)
    images, tags = make_batch(config, len(classes))
    for step in range(2):
        trainer.step(images, tags, FULL, step=step)

    watch = Stopwatch(device)
    rows: list[dict[str, float]] = []
    with ExitStack() as stack:
        for name, owner, attribute in parts_of_a_step(trainer):
            stack.enter_context(watch.watch(name, owner, attribute))
        for step in range(2, 2 + steps):
            watch.seconds.clear()
            with watch.part("losses and the rest"):
                trainer.step(images, tags, FULL, step=step)
            rows.append(dict(watch.seconds))
    missing = set(METHOD + NETWORK) - rows[-1].keys()
    if missing:
        raise SystemExit(f"not called during a step: {', '.join(sorted(missing))}")
    return {name: statistics.median(row[name] for row in rows) * 1e3 for name in (*METHOD, *NETWORK)}


def report(case: dict[str, Any], *, steps: int, device: torch.device) -> dict[str, Any]:
    """Measure one case, print its list, and return its figures."""
    config = preset(case["preset"], weights="none")
    size = case["size"] or config.size
    batch = case["batch"] or config.batch_size
    config = replace(config, size=size, batch_size=batch, accumulate=1)
    milliseconds = measure(config, steps=steps, device=device)
    total = sum(milliseconds.values())
    share = sum(milliseconds[name] for name in METHOD) / total
    print(f"{case['preset']} ({config.backbone}), batch {batch}, {size}x{size}, {device.type}: {total:.0f} ms a step")
    for name, value in milliseconds.items():
        print(f"  {name:22} {value:9.1f} ms {value / total:7.1%}")
    print(f"  SCG + PAMR + EdgePredict + mixing: {share:.1%}  (wanted: at most {WANTED_SHARE:.0%})\n")
    return {
        "preset": case["preset"],
        "backbone": config.backbone,
        "batch": batch,
        "size": size,
        "milliseconds": {name: round(value, 2) for name, value in milliseconds.items()},
        "milliseconds_a_step": round(total, 1),
        "share": round(share, 4),
    }


def main() -> None:
    """Measure the cases asked for, print and write their figures."""
    parser = argparse.ArgumentParser(description="Share of a training step that the method takes.")
    parser.add_argument("--preset", choices=list(PRESETS), help="one preset (default: a small and a large case)")
    parser.add_argument("--batch", type=int, help="pictures a step, with --preset (default: the preset's)")
    parser.add_argument("--size", type=int, help="side of the crop, with --preset (default: the preset's)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    if not arguments.preset and (arguments.batch or arguments.size):
        parser.error("--batch and --size go with --preset")

    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    cases = CASES
    if arguments.preset:
        cases = ({"preset": arguments.preset, "batch": arguments.batch, "size": arguments.size},)
    figures = {
        "cases": [report(case, steps=arguments.steps, device=device) for case in cases],
        "steps": arguments.steps,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": arguments.threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if arguments.out:
        atomic_write_text(arguments.out, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
