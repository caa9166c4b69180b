"""All that a GPU must show, in at most eight minutes: right numbers, every phase and precision, memory, speed.

    make gpu-check                                                 # where there is no GPU it says so, and that is all
    python benchmarks/gpu_check.py --out runs/gpu-check
    python benchmarks/gpu_check.py --device cpu --tiny             # the same code on the CPU, on tiny inputs

After every part its figures are written to OUT/<part>.json, and OUT/table.md anew with card and versions, so that a run
that is cut off still tells. A part that fails is told, and the others go on. Ends with 1 if something was wrong, with 0
if nothing was, or if no GPU was found and none was asked for.
"""

import argparse
import json
import math
import os
import platform
import runpy
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from rsepm_edu.data.creatures import make_creatures
from rsepm_edu.data.voc import VOC_CLASSES
from rsepm_edu.device import resolve_device
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.folding import folded
from rsepm_edu.evaluation.scoring import SeedScores, present_maps, seed_maps
from rsepm_edu.evaluation.seed_options import DEFAULT_OPTIONS, SeedOptions
from rsepm_edu.files import atomic_write_text
from rsepm_edu.methods import random_walk
from rsepm_edu.methods.cam import cam_from_features, normalize_cam, tag_loss
from rsepm_edu.methods.dense_crf import dense_crf
from rsepm_edu.methods.edgepredictmix import edge_predict, edge_regions
from rsepm_edu.methods.pamr import NEIGHBOURS, colour_affinity, pamr, weighted_sum
from rsepm_edu.methods.pamr_kernels import works
from rsepm_edu.methods.puzzle import merge, tile
from rsepm_edu.methods.recurseed import cam_loss, decoder_loss, recur_seed
from rsepm_edu.methods.scg import correlated_map, scg, self_correlation
from rsepm_edu.training.checkpoint import load_checkpoint
from rsepm_edu.training.config import Precision, TrainConfig, preset
from rsepm_edu.training.distributed import replicate
from rsepm_edu.training.loop import Trainer, train
from rsepm_edu.training.memory import gpu_memory
from rsepm_edu.training.mixings import MIXINGS, Mixing
from rsepm_edu.training.phases import Phase

HERE = Path(__file__).parent
LESSON = HERE.parent / "notebooks" / "10_voc_on_a_gpu.ipynb"
CLASSES = ("cat", "dog", "cow")
FULL = Phase(refine=True, mixing="epm")
PHASES = (Phase(), Phase(refine=True), FULL)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
DILATIONS = (1, 2, 4, 8, 12, 24)


class Row(NamedTuple):
    """A figure: what, how much in which unit, what it is held against, and whether it is as it must be (None: told)."""

    what: str
    value: float
    unit: str
    beside: str = ""
    ok: bool | None = None


@dataclass(frozen=True)
class Check:
    """Where and how: the device, whether inputs are tiny, and a folder that goes when the check ends."""

    device: torch.device
    tiny: bool
    scratch: Path

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def seconds(self, work: Callable[[], object]) -> float:
        """Of the clock, the median of some calls after two that do not count."""
        taken = []
        for call in range(3 if self.tiny else 12):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            if call >= 2:
                taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def wait(self) -> None:
        """Until the GPU has done all that it was given."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def peak(self, what: str, work: Callable[[], object], wanted: float) -> Iterator[Row]:
        """What a call takes at its height beyond what was there before it, in GB; nothing on the CPU."""
        if not self.cuda:
            return
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        taken = (torch.cuda.max_memory_allocated(self.device) - before) / 1e9
        yield Row(f"{what}: memory", taken, "GB", f"wanted {wanted:g}", taken <= wanted)


# right numbers


def methods(check: Check) -> Iterator[Row]:
    """Each method on the device beside the same in float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    side, classes = (20, 3) if check.tiny else (64, 20)

    def smooth(*shape: int) -> Tensor:
        coarse = torch.rand(*shape, 5, 5, generator=generator, dtype=torch.float64)
        return F.interpolate(coarse, (side, side), mode="bilinear")

    images = (smooth(2, 3) + 0.1 * torch.rand(2, 3, side, side, generator=generator)).clamp(0, 1)
    cam, features = smooth(2, classes) - 0.3, smooth(2, 32) - 0.5
    tags = torch.zeros(2, classes, dtype=torch.float64)
    tags[:, 1], tags[1, 2] = 1, 1
    maps = (6 * smooth(2, classes + 1)).masked_fill(F.pad(tags, (1, 0), value=1)[:, :, None, None] == 0, -math.inf)
    maps = maps.softmax(dim=1)
    weight = torch.randn(classes, 32, generator=generator, dtype=torch.float64)
    mask = edge_predict(maps, tags)
    cases: dict[str, tuple[float, Callable[..., Tensor], tuple[Tensor, ...]]] = {
        "CAM": (1e-4, lambda f, w: normalize_cam(cam_from_features(f, w)), (features, weight)),
        "PAMR": (1e-5, pamr, (images, cam.relu())),
        "SCG": (2e-2, lambda f, c, t: scg(f, normalize_cam(c, t), t), (features, cam, tags)),
        "RecurSeed": (2e-2, lambda i, f, c, t: recur_seed(i, f, c, t).rs_map, (images, features, cam, tags)),
        "EdgePredict": (0.005, lambda m, t: (edge_predict(m, t).cpu() != mask).double().mean(), (maps, tags)),
        "puzzle tiles": (1e-6, lambda i: merge(tile(i), size=(side, side)), (images,)),
        "dense CRF": (1e-3, lambda i, m: dense_crf(i * 255, m), (images, maps)),
        "walk by edges": (5e-4, random_walk.propagate, (cam.relu(), smooth(2, 1) ** 3)),
        "walk by features": (5e-4, random_walk.propagate_affinity, (cam.relu(), features)),
        "L_cls": (1e-5, lambda c, t: tag_loss(c.mean((2, 3)), t), (cam, tags)),
        "L_rec": (1e-5, lambda c, t: cam_loss(c, normalize_cam(c.roll(1, 3)), t), (cam, tags)),
        "L_seg": (1e-5, lambda m: decoder_loss((m + 1e-3).log(), mask.to(m.device)), (maps,)),
    }
    for name, (allowed, method, inputs) in cases.items():
        exact = method(*inputs)
        found = method(*(tensor.float().to(check.device) for tensor in inputs))
        yield _near(name, found, exact, allowed)
    for name, mixing in MIXINGS.items():

        def mixed(*inputs: Tensor, mix: Any = mixing.mix) -> Tensor:
            result = mix(*inputs, generator=torch.Generator().manual_seed(1))
            return torch.cat([result.images.flatten(), result.tags.flatten()])

        inputs = images, tags, maps
        yield _near(f"mixing: {name}", mixed(*(t.float().to(check.device) for t in inputs)), mixed(*inputs), 2e-2)


def _near(name: str, found: Tensor, exact: Tensor, allowed: float) -> Row:
    # Of pixels on a threshold or an edge the last bit decides: a share of a thousandth may differ by more.
    difference = (found.double().cpu() - exact.double()).abs().flatten()
    worst = float(difference.sort().values[max(0, math.ceil(0.999 * len(difference)) - 1)])
    return Row(name, worst, "difference", f"allowed {allowed:g}", worst <= allowed)


def steps(check: Check) -> Iterator[Row]:
    """A step of each phase and mixing in each precision; its gradient beside the CPU's in float32."""
    side = 32 if check.tiny else 96
    config = _small(side)
    images, tags = _noise(8, side, len(CLASSES))
    for phase in (Phase(puzzle=True), *_mixing_phases(check)):
        method = replace(config, mixing=phase.mixing if phase.mix else "epm")
        wanted, _ = _gradient(method, phase, images, tags, torch.device("cpu"))
        for precision in PRECISIONS:
            found, losses = _gradient(replace(method, precision=precision), phase, images, tags, check.device)
            alike = float(F.cosine_similarity(wanted.double(), found.double(), dim=0))
            least = 0.99 if precision == "fp32" else 0.7  # labels at a threshold turn over
            good = all(map(math.isfinite, losses.values())) and alike >= least
            yield Row(f"{phase.name} in {precision}", alike, "cosine of gradients", f"at least {least}", good)


def _mixing_phases(check: Check) -> list[Phase]:
    mixings: tuple[Mixing, ...] = ("epm",) if check.tiny else get_args(Mixing)
    return [Phase(), Phase(refine=True), *(Phase(refine=True, mixing=name) for name in mixings if name != "none")]


def _gradient(
    config: TrainConfig, phase: Phase, images: Tensor, tags: Tensor, device: torch.device
) -> tuple[Tensor, dict[str, float]]:
    trainer = _without_dropout(Trainer(config, CLASSES, device))
    losses = trainer.step(images, tags, phase, step=0, alpha=1.0)
    return _flat_gradient(trainer), losses


def _flat_gradient(trainer: Trainer) -> Tensor:
    return torch.cat([p.grad.flatten().float().cpu() for p in trainer.network.parameters() if p.grad is not None])


def _without_dropout(trainer: Trainer) -> Trainer:
    """What it drops differs from device to device."""
    for module in trainer.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return trainer


def _small(side: int) -> TrainConfig:
    return TrainConfig(
        split="train", backbone="creatures", weights="none", separable=True, epochs=4, rs_start=1, mix_start=2,
        learning_rate=0.01, head_factor=1.0, pamr_stride=2, size=side, crop="zoom", scale=(0.5, 1.0), jitter=0.1,
        workers=0, batch_size=8, accumulate=2, decoder_channels=16, decoder_rates=(1, 2), panel_every=0,
        precision="fp32", uncertain=0.3,
    )  # fmt: skip


def _noise(count: int, side: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    images = (255 * F.interpolate(coarse, (side, side), mode="bilinear")).to(torch.uint8)
    return images, F.pad(torch.ones(count, 2), (0, classes - 2))


def one_process(check: Check) -> Iterator[Row]:
    """The road of many GPUs with one: NCCL (on the CPU gloo) and DistributedDataParallel."""
    backend, meeting = "cpu:gloo,cuda:nccl" if check.cuda else "gloo", f"file://{check.scratch / 'store'}"
    dist.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
    try:
        ones = torch.ones(3, device=check.device)
        dist.all_reduce(ones)
        yield Row("sum over processes", float(ones.sum()), "", "3", float(ones.sum()) == 3)
        gradients = []
        for spread in (False, True):
            side = 32 if check.tiny else 96
            trainer = _without_dropout(Trainer(_small(side), CLASSES, check.device))
            if spread:
                trainer.compute = replicate(trainer.network, trainer._terms)
            trainer.step(*_noise(8, side, len(CLASSES)), FULL, step=0)
            gradients.append(_flat_gradient(trainer))
        alone, spread_out = gradients
        alike = float(F.cosine_similarity(alone.double(), spread_out.double(), dim=0))
        yield Row("gradient beside that without", alike, "cosine", "at least 0.999", alike >= 0.999)
    finally:
        dist.destroy_process_group()


def resume(check: Check) -> Iterator[Row]:
    """A run that was stopped after an epoch and one that was not: the same weights."""
    root = make_creatures(check.scratch / "creatures", train=16, val=0, size=64, workers=0)
    config = replace(_small(32), epochs=3, precision="auto")

    def stop(trainer: Trainer, row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    places = check.scratch / "straight", check.scratch / "stopped"
    common: dict[str, Any] = {"device": check.device, "progress": False}
    train(config, root, places[0], **common)
    with suppress(KeyboardInterrupt):
        train(config, root, places[1], on_epoch=stop, **common)
    kept = load_checkpoint(places[1] / "last.pt").epoch
    yield Row("epochs kept when stopped", kept, "", "1", kept == 1)
    train(config, root, places[1], resume=True, **common)
    straight, stopped = (load_checkpoint(place / "last.pt").ema for place in places)
    worst = max(float((straight[name].double() - stopped[name].double()).abs().max()) for name in straight)
    yield Row("weights beside those of a run never stopped", worst, "difference", "allowed 0.01", worst <= 0.01)


def lesson(check: Check) -> Iterator[Row]:
    """The cells of lesson 10, without Jupyter; tiny: the first of them. Explorers only where there are widgets."""
    cells = [cell for cell in json.loads(LESSON.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    if find_spec("ipywidgets") is None:
        cells = [cell for cell in cells if not any("viz.explorers" in line for line in cell["source"])]
    cells = cells[: 8 if check.tiny else None]
    names: dict[str, Any] = {"__name__": "lesson"}
    started = time.perf_counter()
    with chdir(check.scratch), redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
        for cell in cells:
            source = "".join(line for line in cell["source"] if not line.lstrip().startswith("%"))
            exec(compile(source, LESSON.name, "exec"), names)
    for value in names.values():
        if isinstance(value, tempfile.TemporaryDirectory):
            value.cleanup()
    yield Row("cells run", len(cells), "", "none failed", True)
    yield Row("time", time.perf_counter() - started, "s")


# memory and speed


def memory(check: Check) -> Iterator[Row]:
    """What is counted beside what a step takes, in every phase and precision."""
    names = ("creatures-cpu",) if check.tiny else ("voc-gpu", "voc-t4", "voc-sample-gpu")
    for name in names:
        config = _timed_preset(check, name)
        classes = CLASSES if check.tiny else VOC_CLASSES
        images, tags = _noise(config.batch_size, config.size, len(classes))
        for precision in PRECISIONS[1:2] if check.tiny else PRECISIONS:
            if check.cuda:
                torch.cuda.empty_cache()
            trainer = Trainer(replace(config, precision=precision), classes, check.device)
            for phase in PHASES:
                yield from _memory_of(check, f"{name} {phase.name} {precision}", trainer, phase, images, tags)
            del trainer


def _memory_of(check: Check, name: str, trainer: Trainer, phase: Phase, images: Tensor, tags: Tensor) -> Iterator[Row]:
    counted = gpu_memory(trainer.config, trainer.network, phase, trainer.precision) / 1e9
    yield Row(f"{name}: counted", counted, "GB")
    if check.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(check.device)
    try:
        for step in range(2):
            trainer.step(images, tags, phase, step=step)
    except torch.OutOfMemoryError:
        yield Row("    is more than this card has", counted, "GB")
        trainer.optimizer.zero_grad(set_to_none=True)
        return
    if check.cuda:
        reserved = torch.cuda.max_memory_reserved(check.device) / 1e9
        beside = counted / reserved - 1
        yield Row("    reserved", reserved, "GB", f"counted {beside:+.1%} of it", -0.02 <= beside <= 0.10)
        yield Row("    allocated", torch.cuda.max_memory_allocated(check.device) / 1e9, "GB")


def _timed_preset(check: Check, name: str) -> TrainConfig:
    config = preset(name, weights="none", workers=0, jitter=0.0)
    return replace(config, batch_size=4, size=64) if check.tiny else config


def rehearsal(check: Check) -> Iterator[Row]:
    """`voc-t4` and `voc-gpu` with pictures as they come from the readers."""
    script = runpy.run_path(str(HERE / "rehearsal.py"))
    pictures, many = (8, 1) if check.tiny else (640, 20)
    root = check.scratch / "voc"
    script["make_set"](root, pictures, progress=False)
    for name, changes in script["PRESETS"].items():
        config = preset(name, weights="none", workers=min(preset(name).workers, os.cpu_count() or 1), **changes)
        if check.tiny:
            small = {"size": 32, "batch_size": 4, "pamr_stride": 2, "workers": 0, "precision": "fp32"}
            config = preset("creatures-cpu", split="trainaug", epochs=3, rs_start=1, mix_start=2, **small)
        with redirect_stdout(StringIO()):
            run = script["rehearse"](name, config, root, steps=many, warm_up=many, device=check.device)
        seconds = 0.0
        epochs = {"cam": config.rs_start, "rs": config.mix_start - config.rs_start}
        for phase, row in run["phases"].items():
            for what, unit in (
                ("pictures_per_second", "a second"),
                ("share_waiting", "of the time"),
                ("gb_reserved", "GB"),
            ):
                if what in row:
                    yield Row(f"{name} {phase}: {what.replace('_', ' ')}", row[what], unit)
            share = epochs.get(phase, config.epochs - config.mix_start)
            seconds += share * script["PICTURES"] / row["pictures_per_second"]
        yield Row(f"{name}: the whole run, {config.epochs} epochs", seconds / 60, "minutes")


def speeds(check: Check) -> Iterator[Row]:
    """Each method that has a faster form, beside its plain one."""
    small = 16 if check.tiny else 1  # sides are divided by it
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(check.device)

    yield Row(
        "PAMR's kernels run here", float(works(check.device)), "", "1 on a GPU", works(check.device) == check.cuda
    )
    for batch, count, side, wanted in ((1, 21, 448, 1.5), (1, 4, 448, 0.8), (32, 3, 128, 1.2)):
        image = rand(min(batch, 32 // small), 3, side // small, side // small)
        masks = rand(len(image), count, side // small, side // small)
        name = f"PAMR {batch}x{count}x{side}²"
        fast, plain = pamr(image, masks), _plain_pamr(image, masks)
        worst = float((fast - plain).abs().max())
        yield Row(f"{name}: beside its plain form", worst, "difference", "allowed 1e-5", worst <= 1e-5)
        yield _time(check, name, partial(pamr, image, masks), wanted)
        yield Row(f"{name}: plain", check.seconds(partial(_plain_pamr, image, masks)) * 1e3, "ms")
        yield from check.peak(name, partial(pamr, image, masks), 0.15)
    side = 64 // (small // 2 or 1)
    for dtype in (torch.float32, torch.bfloat16):
        features = F.interpolate(rand(8, 1024 // small, 8, 8), (side, side)).to(dtype)
        maps, tags = rand(8, 3, side, side), torch.ones(8, 3, device=check.device)
        name = f"SCG 8x1024x64² {str(dtype).removeprefix('torch.')}"
        yield _time(check, name, partial(scg, features, maps, tags), 20)
        yield from check.peak(name, partial(scg, features, maps, tags), 1.2)
    with torch.no_grad():
        plain_time = check.seconds(lambda: _plain_scg(features.float(), maps))
    yield Row("SCG: whole matrices", plain_time * 1e3, "ms")
    seed, edge = rand(1, 3, 128 // small, 128 // small), rand(1, 1, 128 // small, 128 // small) ** 3
    count = 4 if check.tiny else 256
    yield _time(check, "walk 128²x3, 256 steps", lambda: random_walk.propagate(seed, edge, steps=count), 15)
    maps = F.interpolate(rand(32 // small, 1, 32, 32), (512 // small,) * 2, mode="bilinear")[:, 0]
    yield _time(check, "EdgePredict's regions, 32x512²", lambda: edge_regions(maps), 10)


def _time(check: Check, name: str, work: Callable[[], object], wanted: float) -> Row:
    return Row(name, check.seconds(work) * 1e3, "ms", f"wanted {wanted:g} of an H200")


def _plain_pamr(image: Tensor, masks: Tensor) -> Tensor:
    offsets = [(dy * d, dx * d) for d in DILATIONS for dy, dx in NEIGHBOURS]
    affinity = colour_affinity(image, offsets, sigma=0.1)
    for _ in range(10):
        masks = weighted_sum(masks, affinity, offsets)
    return masks


def _plain_scg(features: Tensor, maps: Tensor) -> list[Tensor]:
    flat = maps.flatten(2)
    positive, negative = (flat >= 0.3).float(), (flat <= 0.05).float()
    return [correlated_map(order, positive, negative) for order in self_correlation(features)]


def whole_steps(check: Check) -> Iterator[Row]:
    """A step of the presets, the method's share of it, and how often the host waits for the GPU in it."""
    script = runpy.run_path(str(HERE / "training_step.py"))
    cases: list[tuple[str, dict[str, Any], float]] = [
        ("voc-sample-gpu", {}, 45.0),
        ("voc-gpu", {"batch_size": 32}, 190.0),
    ]
    for name, changes, wanted in cases:
        config = replace(
            _timed_preset(check, "creatures-cpu" if check.tiny else name), **({} if check.tiny else changes)
        )
        trainer = Trainer(config, CLASSES if check.tiny else VOC_CLASSES, check.device)
        images, tags = _noise(config.batch_size, config.size, len(trainer.classes))
        what = f"{name}, {config.batch_size} x {config.size}², {FULL.name}"
        yield _time(check, f"{what}: a step", partial(trainer.step, images, tags, FULL, step=3), wanted)
        if check.cuda:
            yield Row(f"{what}: waits of the host", _waits(trainer, images, tags), "a step", "wanted 1")
        del trainer
        parts = script["measure"](config, steps=2 if check.tiny else 5, device=check.device)
        share = sum(parts[part] for part in script["METHOD"]) / sum(parts.values())
        yield Row(f"{what}: the method's share", share, "of the time", "wanted 0.12")
        for part, milliseconds in parts.items():
            yield Row(f"    {part}", milliseconds, "ms")


def _waits(trainer: Trainer, images: Tensor, tags: Tensor) -> int:
    """Calls in a step that make the host wait for the GPU, as torch tells them."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            trainer.step(images, tags, FULL, step=4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in told)


def scoring(check: Check) -> Iterator[Row]:
    """Photographs of 500x375 at four scales with mirror images, all rows."""
    config = _timed_preset(check, "creatures-cpu" if check.tiny else "voc-sample-gpu")
    trainer = Trainer(config, VOC_CLASSES, check.device)
    size, count = ((30, 40), 1) if check.tiny else ((375, 500), 8)
    images = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0)).to(check.device)
    tags = F.pad(torch.ones(count, 2), (0, 18)).to(check.device)
    masks = torch.zeros(count, *size, dtype=torch.uint8, device=check.device)
    options = SeedOptions(scales=(1.0, 0.5)) if check.tiny else DEFAULT_OPTIONS

    plain = trainer.average.network
    light = folded(plain)

    def score() -> None:
        present, seeds, labels = present_maps(light, images, tags, options)
        SeedScores(VOC_CLASSES).update(seeds, labels, masks, present)

    def score_plainly() -> None:
        for image, tag, mask in zip(images, tags, masks, strict=True):
            seeds, labels = seed_maps(plain, image[None], tag[None], options)
            SeedScores(VOC_CLASSES).update(seeds, labels, mask[None])

    yield Row("photographs scored", count / check.seconds(score), "a second", "wanted 25 of an H200")
    yield Row("one by one, all classes, batch norms", count / check.seconds(score_plainly), "a second")
    fast, slow = present_maps(light, images, tags, options)[1], seed_maps(plain, images, tags, options)[0]
    ours, theirs = (torch.cat([maps[name].flatten() for name in fast]).cpu() for maps in (fast, _first(slow, 2)))
    yield _near("maps beside those", ours, theirs, 0.02)


def _first(maps: dict[str, Tensor], classes: int) -> dict[str, Tensor]:
    return {name: planes[:, :classes] for name, planes in maps.items()}


PARTS: dict[str, Callable[[Check], Iterator[Row]]] = {
    "methods": methods,
    "steps": steps,
    "speeds": speeds,
    "whole_steps": whole_steps,
    "memory": memory,
    "rehearsal": rehearsal,
    "scoring": scoring,
    "resume": resume,
    "one_process": one_process,
    "lesson": lesson,
}


# telling it


def versions(device: torch.device) -> dict[str, str]:
    """The card and all that may change a figure."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "card": f"{card.name}, {card.total_memory / 1e9:.1f} GB",
            "capability": f"{card.major}.{card.minor}",
            "CUDA": str(torch.version.cuda),
            "cuDNN": str(torch.backends.cudnn.version()),
        }
    return {"card": platform.machine()} | found | {"cores": str(os.cpu_count())}


def run_part(name: str, check: Check) -> dict[str, Any]:
    """The figures of a part as they go to its file; those it had until it failed, where it fails."""
    rows: list[Row] = []
    error, started = None, time.perf_counter()
    try:
        for row in PARTS[name](check):
            rows.append(row)
    except Exception as found:  # whatever it is, it is told and the other parts go on
        error = f"{type(found).__name__}: {str(found).splitlines()[0] if str(found) else ''}"
        traceback.print_exc()
    return {
        "part": name,
        "rows": [row._asdict() for row in rows],
        "error": error,
        "ok": error is None and all(row.ok is not False for row in rows),
        "seconds": round(time.perf_counter() - started, 1),
    }


def table(found: dict[str, str], parts: list[dict[str, Any]], left: list[str]) -> str:
    """All parts so far as Markdown."""
    lines = ["# What a GPU shows", "", ", ".join(f"{name} {value}" for name, value in found.items()) + ".", ""]
    for part in parts:
        state = "as it must be" if part["ok"] else f"FAILED ({part['error'] or 'see below'})"
        lines += [
            f"## {part['part']}: {state}, {part['seconds']} s",
            "",
            "| what | | | beside | |",
            "|---|---:|---|---|---|",
        ]
        marks = {True: "ok", False: "WRONG", None: ""}
        for row in part["rows"]:
            lines.append(
                f"| {row['what']} | {row['value']:.4g} | {row['unit']} | {row['beside']} | {marks[row['ok']]} |"
            )
        lines.append("")
    if left:
        lines += [f"Not run: {', '.join(left)}.", ""]
    return "\n".join(lines)


def run(check: Check, out: Path, names: list[str], *, minutes: float) -> bool:
    """Run parts and write them to a folder, each when it is done; none is begun when the time is up.

    Returns:
        Whether all was as it must be; what was not run counts as wrong.
    """
    until = time.monotonic() + 60 * minutes
    found, done = versions(check.device), []
    for name in names:
        if time.monotonic() > until:
            break
        part = run_part(name, check)
        done.append(part)
        atomic_write_text(out / f"{name}.json", json.dumps({"versions": found, **part}, indent=2) + "\n")
        atomic_write_text(out / "table.md", table(found, done, names[len(done) :]))
        print(
            f"{name}: {'ok' if part['ok'] else 'WRONG'}, {part['seconds']} s {part['error'] or ''}".rstrip(), flush=True
        )
    return len(done) == len(names) and all(part["ok"] for part in done)


def main(arguments: list[str] | None = None) -> int:
    """Run the check as it is asked for.

    Returns:
        0: all was right, or there is no GPU and none was asked for; 1: something was wrong; 2: a wrong argument.
    """
    parser = argparse.ArgumentParser(description="Check all that needs a GPU.")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"), help="folder of the figures")
    parser.add_argument("--device", help="cuda, or cpu for a rehearsal (default: the GPU, nothing where there is none)")
    parser.add_argument("--tiny", action="store_true", help="tiny inputs: whether it runs, not how fast")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, comma between")
    parser.add_argument("--minutes", type=float, default=8.0, help="no part is begun after them")
    given = parser.parse_args(arguments)
    if given.device is None and not torch.cuda.is_available():
        print(f"gpu-check: no GPU that torch {torch.__version__} can use: nothing was checked")
        return 0
    try:
        device = resolve_device(given.device)
        names = given.parts.split(",")
        if unknown := [name for name in names if name not in PARTS]:
            raise UserError(f"parts: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
    except UserError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="gpu-check.") as scratch:
        right = run(Check(device, given.tiny, Path(scratch)), given.out.resolve(), names, minutes=given.minutes)
    print(f"figures: {given.out}")
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
