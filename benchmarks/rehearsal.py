"""A rehearsal of full size: VOC's 10,582 training pictures, drawn on the spot, through the presets for GPUs.

The pictures have VOC's sizes and about VOC's bytes (JPEG of noise with the spectrum of photographs); their tags are
drawn by lot. Nothing is learnt: what is measured is how fast pictures are read, and on a GPU how fast steps go, how
much memory they take, and how long the device waits for pictures. Without a GPU the arithmetic of a run is counted, and
one step of `voc-t4` is made on the processor.

    python benchmarks/rehearsal.py --out results/benchmarks/rehearsal_loading.json --device cpu    # what needs no GPU
    python benchmarks/rehearsal.py --out results/benchmarks/rehearsal.json --device cuda           # and the presets
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2
from tqdm.auto import tqdm

from rsepm_edu.data.loading import batches_of, epoch_loader
from rsepm_edu.data.transforms import change_colours, draw_colours, training_crop
from rsepm_edu.data.voc import VOC_CLASSES, VocDataset, read_image
from rsepm_edu.files import atomic_write_text
from rsepm_edu.training.config import TrainConfig, preset
from rsepm_edu.training.loop import Trainer, training_dataset
from rsepm_edu.training.memory import gpu_memory, step_memory
from rsepm_edu.training.phases import Phase, phase_of

PICTURES = 10_582  # of trainaug
SIZES = ((500, 375), (500, 375), (500, 375), (500, 333), (375, 500))  # width, height; each as often as it is named
TEXTURES, SIDE = 60, 640
QUALITY = 90  # so that a picture has about 110 KB, the mean of VOC 2012: 1.9 GB for 17,125 pictures
PRESETS: dict[str, dict[str, Any]] = {"voc-t4": {"precision": "fp16"}, "voc-gpu": {}}
"""What is rehearsed on a GPU, and what is set: a T4's precision, on whatever card."""
WARM_UP = 20  # steps of each phase that do not count: eight workers have 16 batches ready when it starts
WANTED = {"loading, pictures a second": 120, "voc-t4, GB": 14.5, "voc-gpu, minutes": 15}


def make_set(root: Path, count: int, *, progress: bool) -> None:
    """Draw `count` pictures into VOC's layout at `root`, with the lists of the split trainaug; kept if it is there."""
    names = [f"2012_{index:06d}" for index in range(count)]
    split = root / "ImageSets" / "Segmentation" / "trainaug.txt"
    listed = "".join(f"{name}\n" for name in names)
    if split.is_file() and split.read_text("utf-8") == listed:
        return
    generator = np.random.default_rng(0)
    textures = [texture(generator) for _ in range(min(TEXTURES, count))]
    (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
    for name in tqdm(names, desc="pictures", disable=not progress):
        width, height = SIZES[generator.integers(len(SIZES))]
        top, left = generator.integers(SIDE - height + 1), generator.integers(SIDE - width + 1)
        crop = textures[generator.integers(len(textures))][top : top + height, left : left + width]
        Image.fromarray(crop).save(root / "JPEGImages" / f"{name}.jpg", quality=QUALITY)
    present = generator.random((len(VOC_CLASSES), count)) < 1.5 / len(VOC_CLASSES)
    for class_name, row in zip(VOC_CLASSES, present, strict=True):
        lines = "".join(f"{name} {1 if there else -1}\n" for name, there in zip(names, row, strict=True))
        atomic_write_text(root / "ImageSets" / "Main" / f"{class_name}_trainaug.txt", lines)
    atomic_write_text(split, listed)


def texture(generator: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls with the frequency, as in photographs, the three colours much alike: uint8 H×W×3."""
    rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf

    def noise(power: float) -> np.ndarray:
        spectrum = np.fft.rfft2(generator.standard_normal((SIDE, SIDE))) / frequency**power
        field = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
        return field / field.std()

    grey = noise(1.0)
    planes = [grey + 0.4 * noise(1.4) for _ in range(3)]
    return np.clip(np.stack(planes, axis=-1) * 50 + generator.uniform(90, 150), 0, 255).astype(np.uint8)


def parts_of_reading(config: TrainConfig, root: Path, *, pictures: int = 100) -> dict[str, float]:
    """Milliseconds of the processor for one picture, one thread: what a worker does, and what it no longer does."""
    dataset = VocDataset(root, config.split)
    paths = [dataset.image_path(name) for name in dataset.names[:pictures]]
    images = [read_image(path) for path in paths]
    transform = training_crop(config.crop, config.size, scale=config.scale)
    crops = [transform(image)[0] for image in images]
    jitter = v2.ColorJitter(config.jitter, config.jitter, config.jitter)
    batch = torch.stack([crops[index % len(crops)] for index in range(8)])
    colours = torch.stack([draw_colours(config.jitter) for _ in batch])
    return {
        "read": _processor(lambda i: read_image(paths[i]), len(paths)),
        "crop, resize, mirror": _processor(lambda i: transform(images[i]), len(images)),
        "ColorJitter, no longer done by workers": _processor(lambda i: jitter(crops[i]), len(crops)),
        "colours, a batch of 8 on this processor": _processor(lambda i: change_colours(batch, colours), 4) / 8,
    }


def _processor(work: Callable[[int], object], times: int) -> float:
    work(0)
    start = time.process_time()
    for index in range(times):
        work(index)
    return (time.process_time() - start) / times * 1e3


def loading(config: TrainConfig, root: Path, *, workers: int, progress: bool) -> dict[str, float]:
    """Read an epoch and do nothing with it: pictures a second of the clock, and what the processor spent on each."""
    dataset = training_dataset(config, root)
    before, started = _spent(), time.perf_counter()
    loader = epoch_loader(dataset, batch_size=config.batch_size, seed=0, epoch=0, workers=workers)
    pictures = sum(len(images) for images, _, _, _ in tqdm(loader, desc="reading", disable=not progress))
    seconds = time.perf_counter() - started
    del loader  # its workers end, and their time counts from here on
    spent = _spent() - before
    return {
        "workers": workers,
        "pictures": pictures,
        "pictures_per_second": round(pictures / seconds, 1),
        "cpu_milliseconds_a_picture": round(spent / pictures * 1e3, 2),
        "pictures_per_second_of_two_idle_cores": round(2 * pictures / spent, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


def _spent() -> float:
    """Seconds of the processor of this process and of its workers that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def operations(config: TrainConfig, classes: tuple[str, ...]) -> dict[str, Any]:
    """GFLOP of one picture in each phase and PFLOP of the whole run on trainaug: of matrix products and convolutions.

    Counted in steps of two pictures on the CPU, where they take about a minute.
    """
    trainer = Trainer(replace(config, batch_size=2, accumulate=1, precision="fp32"), classes, torch.device("cpu"))
    images = torch.zeros(2, 3, config.size, config.size, dtype=torch.uint8)
    tags = torch.ones(2, len(classes))
    each: dict[str, float] = {}
    whole = 0.0
    for phase, epochs in Counter(phase_of(config, epoch) for epoch in range(config.epochs)).items():
        with FlopCounterMode(display=False) as counter:
            trainer.step(images, tags, phase, step=0)
        of_a_picture = counter.get_total_flops() / 2
        each[phase.name] = float(f"{of_a_picture / 1e9:.5g}")
        whole += of_a_picture * epochs * batches_of(PICTURES, config.batch_size) * config.batch_size
    return {"gflop_a_picture": each, "pflop_of_the_run": float(f"{whole / 1e15:.4g}")}


def full_step(config: TrainConfig, classes: tuple[str, ...]) -> dict[str, Any]:
    """One step of the last phase with one part of a batch, whole, on this processor: is the memory what was counted?"""
    part = replace(config, batch_size=config.batch_size // config.accumulate, accumulate=1, precision="fp32")
    phase = phase_of(part, part.epochs - 1)
    before = _gigabytes("VmRSS")
    trainer = Trainer(part, classes, torch.device("cpu"))
    images = torch.zeros(part.batch_size, 3, part.size, part.size, dtype=torch.uint8)
    started = time.perf_counter()
    trainer.step(images, torch.ones(part.batch_size, len(classes)), phase, step=0)
    seconds = time.perf_counter() - started
    height = _gigabytes("VmHWM")
    counted = {
        str(dtype).removeprefix("torch."): float(f"{step_memory(part, trainer.network, phase, dtype) / 1e9:.3g}")
        for dtype in (torch.float32, torch.float16)
    }
    return {
        "phase": phase.name,
        "pictures": part.batch_size,
        "size": part.size,
        "gb_in_float32": round(height - before, 2),
        "gb_counted": counted,
        "seconds": round(seconds, 1),
    }


def in_a_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The result of a function that is called in a process of its own: its memory is that of nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _gigabytes(name: str) -> float:
    """Of memory that this process holds (VmRSS) or has held at most (VmHWM), as Linux tells it."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(kilobytes) * 1024 / 1e9


def rehearse(
    name: str, config: TrainConfig, root: Path, *, steps: int, device: torch.device, warm_up: int = WARM_UP
) -> dict[str, Any]:
    """Steps of every phase of a preset, with the pictures as they come from its workers."""
    dataset = training_dataset(config, root)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of the preset before
    trainer = Trainer(config, dataset.classes, device)
    epochs = Counter(phase_of(config, epoch) for epoch in range(config.epochs))
    batches = batches_of(len(dataset), config.batch_size)
    phases: dict[str, dict[str, float]] = {}
    seconds = 0.0
    for phase, count in epochs.items():
        row = _steps_of(trainer, dataset, phase, steps=steps, warm_up=warm_up)
        counted = gpu_memory(config, trainer.network, phase, trainer.precision)
        phases[phase.name] = {**row, "gb_counted": round(counted / 1e9, 2)}
        seconds += count * batches * config.batch_size / row["pictures_per_second"]
        print(f"  {name} {phase.name}: {phases[phase.name]}")
    print(f"  {name}: {config.epochs} epochs of {batches} steps would take {seconds / 60:.1f} minutes\n")
    return {
        "preset": name,
        "precision": str(trainer.precision).removeprefix("torch."),
        "batch": config.batch_size,
        "accumulate": config.accumulate,
        "size": config.size,
        "workers": config.workers,
        "phases": phases,
        "minutes_of_the_run": round(seconds / 60, 1),
    }


def _steps_of(trainer: Trainer, dataset: VocDataset, phase: Phase, *, steps: int, warm_up: int) -> dict[str, float]:
    """Pictures a second, share of the time spent waiting for them, and memory at its height, after a warm-up."""
    config, device = trainer.config, trainer.device
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    source = _endless(config, dataset, pin=cuda)
    waited, started = 0.0, time.perf_counter()
    for step in range(warm_up + steps):
        if step == warm_up:
            waited, started = 0.0, time.perf_counter()
        asked = time.perf_counter()
        images, tags, boxes, colours = next(source)
        waited += time.perf_counter() - asked
        if config.jitter:
            images = change_colours(images.to(device, non_blocking=True), colours)
        trainer.step(images, tags, phase, step=step, boxes=boxes)
        if cuda:
            torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    row = {
        "pictures_per_second": round(steps * config.batch_size / seconds, 2),
        "share_waiting": round(waited / seconds, 4),
    }
    if cuda:
        row["gb_allocated"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
        row["gb_reserved"] = round(torch.cuda.max_memory_reserved(device) / 1e9, 2)
    return row


def _endless(config: TrainConfig, dataset: VocDataset, *, pin: bool) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    epoch = 0
    while True:
        settings: dict[str, Any] = {"batch_size": config.batch_size, "seed": 0, "workers": config.workers, "pin": pin}
        yield from epoch_loader(dataset, epoch=epoch, **settings)
        epoch += 1


def main() -> None:
    """Draw the set, measure, print and write the figures."""
    parser = argparse.ArgumentParser(description="A rehearsal of full size on drawn pictures.")
    parser.add_argument("--folder", type=Path, help="keep the pictures there (1.2 GB; default: removed at the end)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="how many")
    parser.add_argument("--workers", type=int, default=2, help="readers of the part that only reads")
    parser.add_argument("--steps", type=int, default=60, help="timed steps of each phase, on a GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu: without GPU")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory(prefix="rehearsal.") as temporary:
        root = arguments.folder or Path(temporary)
        make_set(root, arguments.pictures, progress=not arguments.quiet)
        sizes = [path.stat().st_size for path in (root / "JPEGImages").iterdir()]
        config = preset("voc-t4", weights="none")
        figures: dict[str, Any] = {
            "pictures": len(sizes),
            "mean_kilobytes": round(sum(sizes) / len(sizes) / 1e3, 1),
            "cpu_milliseconds": {name: round(ms, 2) for name, ms in parts_of_reading(config, root).items()},
            "loading": loading(config, root, workers=arguments.workers, progress=not arguments.quiet),
            "runs": [],
        }
        if device.type == "cpu":  # minutes, and the same wherever it is counted
            figures["operations"] = operations(preset("voc-gpu", weights="none"), VOC_CLASSES)
            figures["voc-t4 on this processor"] = in_a_process(full_step, config, VOC_CLASSES)
        print(json.dumps(figures, indent=2))
        if device.type == "cuda":
            for name, changes in PRESETS.items():
                config = replace(preset(name, weights="none"), **changes)
                figures["runs"].append(rehearse(name, config, root, steps=arguments.steps, device=device))
    figures |= {
        "wanted": WANTED,
        "steps": arguments.steps,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if arguments.out:
        atomic_write_text(arguments.out, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
