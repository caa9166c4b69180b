"""What a GPU is given in a training step: operations that it has to start, and bytes that they read and write.

Counted without a GPU, so that it can be said beforehand what one will show: a part cannot take less than its launches
need on the host, nor less than its bytes need to pass through memory. Launches are counted in a real step of a preset
on the CPU, on few small pictures, since their number does not go with the size; bytes of the network at full size on
the meta device. PAMR and EdgePredict go the way that they go on a GPU, each of their kernels as one operation.

    python benchmarks/launches.py --out results/benchmarks/launches.json
"""

import argparse
import json
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from step_parts import FULL, parts_of_a_step
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rsepm_edu.data.voc import VOC_CLASSES
from rsepm_edu.files import atomic_write_text
from rsepm_edu.methods import edge_kernels, edgepredictmix, pamr, pamr_kernels, random_walk
from rsepm_edu.training.checkpoint import network_from_config
from rsepm_edu.training.config import TrainConfig, preset
from rsepm_edu.training.loop import Trainer

PRESETS: dict[str, dict[str, Any]] = {"voc-sample-gpu": {}, "voc-gpu": {"batch_size": 32}}
LAUNCH = 6e-6
"""Seconds that the host needs for an operation: 4 to 8 µs with torch's eager mode."""
BANDWIDTH = 4.26e12
"""Bytes a second that an H200 copies (measured)."""


KERNELS: tuple[tuple[ModuleType, str, int], ...] = (
    (pamr_kernels, "_affinity_kernel", 1),
    (pamr_kernels, "_sum_kernel", 2),
    (edge_kernels, "_blur_kernel", 1),
    (edge_kernels, "_candidates_kernel", 1),
    (edge_kernels, "_unite_kernel", 0),
    (edge_kernels, "_climb_kernel", 0),
    (edge_kernels, "_mark_kernel", 2),
    (edge_kernels, "_free_kernel", 3),
    (edge_kernels, "_name_kernel", 3),
)
"""Where each kernel is, its name, and which of its arguments it writes."""


class Counted(TorchDispatchMode):
    """Operations that compute, and the bytes of all tensors they take and give, by the part that is going on."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = ["the rest"]
        self.launches: dict[str, int] = defaultdict(int)
        self.moved: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name() and "detach" not in func.name():
            self.launches[self.parts[-1]] += 1
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.moved[self.parts[-1]] += sum(tensor.nbytes for tensor in tensors)
        return result

    @contextmanager
    def watch(self, name: str, owner: Any, attribute: str) -> Iterator[None]:
        """Count all that a function does under a name."""
        original: Callable[..., Any] = getattr(owner, attribute)

        def counted(*args: Any, **settings: Any) -> Any:
            self.parts.append(name)
            try:
                return original(*args, **settings)
            finally:
                self.parts.pop()

        with patch.object(owner, attribute, counted):
            yield


class OneOperation:
    """In the place of a kernel: an operation that writes zeros where it writes."""

    def __init__(self, written: int) -> None:
        self.written = written

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        """The launch on a grid."""
        return lambda *given, **settings: given[self.written].zero_()


def as_on_a_gpu() -> ExitStack:
    """PAMR and EdgePredict by their kernels, with an operation in the place of each."""
    stack = ExitStack()
    for method in (pamr, edgepredictmix):
        stack.enter_context(patch.object(method, "kernels_agree", lambda device: True))
    sizes = SimpleNamespace(cdiv=lambda a, b: -(-a // b), next_power_of_2=lambda n: 1 << (n - 1).bit_length())
    for module in (pamr_kernels, edge_kernels):
        stack.enter_context(patch.object(module, "triton", sizes))
    for module, name, written in KERNELS:
        stack.enter_context(patch.object(module, name, OneOperation(written), create=True))
    return stack


def launches_of_a_step(config: TrainConfig) -> dict[str, int]:
    """Launches of each part of a step with all on; of the backward pass as many as autograd runs."""
    config = replace(config, batch_size=2, size=96, accumulate=1, precision="fp32", pamr_stride=2)
    trainer = Trainer(config, VOC_CLASSES, torch.device("cpu"))
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tags = torch.zeros(2, len(VOC_CLASSES))
    tags[:, :2] = 1
    for group in trainer.optimizer.param_groups:  # as on a GPU: many weights an operation
        group["fused" if config.optimizer == "adamw" else "foreach"] = True
    trainer.step(images, tags, FULL, step=0)
    with ExitStack() as stack, Counted() as counted:
        stack.enter_context(as_on_a_gpu())
        for name, owner, attribute in parts_of_a_step(trainer):
            stack.enter_context(counted.watch(name, owner, attribute))
        trainer.step(images, tags, FULL, step=1)
    return dict(counted.launches)


def bytes_of_the_network(config: TrainConfig, precision: torch.dtype) -> dict[str, int]:
    """Bytes that a step's passes of the network move at full size: three forward, two of them backward."""
    with torch.device("meta"):
        network = network_from_config(config, VOC_CLASSES).to(precision)
        images = torch.empty(config.batch_size, 3, config.size, config.size, dtype=precision)
        with Counted() as counted:
            outputs = network(images)
            counted.parts.append("backward")
            (outputs.cam.sum() + outputs.seg_logits.sum()).backward()
    return {"network forward": 3 * counted.moved["the rest"], "backward": 2 * counted.moved["backward"]}


def launches_of_a_walk(steps: int = 256) -> dict[str, int]:
    """Launches of a random walk in both forms."""
    seed, edge = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16) ** 3
    found = {}
    for name, form in (("shift by shift", "_steps_shift_by_shift"), ("as on a GPU", "_steps_of_few_launches")):
        chosen = getattr(random_walk, form)
        with patch.object(random_walk, "_steps_shift_by_shift", chosen), Counted() as counted:
            random_walk.propagate(seed, edge, steps=steps)
        found[name] = sum(counted.launches.values())
    return found


def report(name: str, config: TrainConfig) -> dict[str, Any]:
    """Count a preset's step, print and return it."""
    launches, moved = launches_of_a_step(config), bytes_of_the_network(config, torch.bfloat16)
    print(f"{name}, {config.batch_size} x {config.size}²: {sum(launches.values())} launches a step")
    parts = {}
    for part, count in launches.items():
        host, memory = count * LAUNCH * 1e3, moved.get(part, 0) / BANDWIDTH * 1e3
        parts[part] = {"launches": count, "gigabytes": round(moved.get(part, 0) / 1e9, 1)}
        print(f"  {part:22} {count:6} launches, at least {host:6.1f} ms of the host", end="")
        print(f"; {moved[part] / 1e9:6.1f} GB, at least {memory:6.1f} ms of memory" if part in moved else "")
    return {"preset": name, "batch": config.batch_size, "size": config.size, "parts": parts}


def main() -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description="Launches and bytes of a training step.")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    cases = [report(name, preset(name, weights="none", **changes)) for name, changes in PRESETS.items()]
    walk = launches_of_a_walk()
    print(f"random walk of 256 steps: {walk}")
    figures = {
        "cases": cases,
        "random_walk": walk,
        "microseconds_a_launch": LAUNCH * 1e6,
        "terabytes_a_second": BANDWIDTH / 1e12,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if arguments.out:
        atomic_write_text(arguments.out, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
