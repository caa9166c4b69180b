"""One step of training: how far every weight moves, against autograd of a sum of terms that is written out here."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rsepm_edu.data.loading import derive_seed
from rsepm_edu.data.transforms import normalise
from rsepm_edu.labels import VOID
from rsepm_edu.methods.cda import context_decoupling
from rsepm_edu.methods.classmix import class_mix
from rsepm_edu.methods.cutmix import cut_mix
from rsepm_edu.methods.edgepredictmix import edge_predict_and_mix
from rsepm_edu.methods.mixing import Mixed
from rsepm_edu.methods.pamr import pamr
from rsepm_edu.methods.recurseed import recur_seed
from rsepm_edu.methods.saliency_grafting import saliency_grafting
from rsepm_edu.models.network import Outputs, SingleStageNetwork
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.loop import Trainer
from rsepm_edu.training.mixings import Mixing
from rsepm_edu.training.phases import Phase

CLASSES = ("cat", "dog", "cow")
TAGS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
STEP = 3
ALPHA = 2.5
MIXING: dict[str, Callable[..., Mixed]] = {
    "epm": edge_predict_and_mix,
    "classmix": class_mix,
    "cda": context_decoupling,
    "cutmix": cut_mix,
    "saliency-grafting": saliency_grafting,
}
PHASES: dict[str, Phase] = {
    "cam": Phase(),
    "puzzle": Phase(puzzle=True),
    **{"rs" if mixing == "none" else mixing: Phase(refine=True, mixing=mixing) for mixing in get_args(Mixing)},
}


# the targets, by the methods, which have tests of their own


class Targets(NamedTuple):
    """What a batch, plain or mixed, is trained towards."""

    images: Tensor
    tags: Tensor
    cam: Tensor
    cam_weight: Tensor  # of each position
    masks: Tensor
    inside: Tensor  # 1 on the picture, 0 in padding


def small(config: TrainConfig, images: Tensor) -> tuple[int, int]:
    return images.shape[2] // config.pamr_stride, images.shape[3] // config.pamr_stride


def plain_targets(
    config: TrainConfig, images: Tensor, tags: Tensor, inside: Tensor, teacher: Outputs
) -> tuple[Targets, Tensor]:
    """And M_rs at PAMR's size."""
    _, rs_map, masks = recur_seed(
        images,
        (teacher.stages[2], teacher.stages[3]),
        teacher.cam,
        tags,
        size=small(config, images),
        certain=config.certain,
        uncertain=config.uncertain,
        first_threshold=config.scg_threshold,
    )
    step = config.pamr_stride
    for b, y, x in (inside[:, 0, ::step, ::step] == 0).nonzero().tolist():
        rs_map[b, :, y, x], masks[b, y, x] = 0, VOID
    cam = F.avg_pool2d(rs_map, rs_map.shape[2] // teacher.cam.shape[2])
    return Targets(images, tags, cam, F.avg_pool2d(inside, 4), masks, inside), rs_map


def mixed_targets(
    config: TrainConfig, plain: Targets, rs_map: Tensor, teacher: Outputs, generator: torch.Generator
) -> Targets:
    assert teacher.seg_logits is not None
    images, tags = plain.images, plain.tags
    soft = torch.zeros_like(teacher.seg_logits)
    for picture, logits, present in zip(soft, teacher.seg_logits, tags, strict=True):
        labels = [0, *(k + 1 for k in range(len(CLASSES)) if present[k])]
        picture[labels] = logits[labels].softmax(dim=0)
    if config.mixing == "epm":  # works on M_dec, after PAMR
        halved = F.interpolate(images, size=small(config, images), mode="bilinear", antialias=True)
        soft = pamr(halved, F.interpolate(soft, size=halved.shape[2:], mode="bilinear"))
    maps = F.interpolate(soft, size=images.shape[2:], mode="bilinear", align_corners=False)
    filtered = {} if config.mixing == "classmix" else {"certain": config.certain, "uncertain": config.uncertain}
    mixed = MIXING[config.mixing](images, tags, maps, generator=generator, **filtered)
    side, step = images.shape[2], config.pamr_stride
    target, inside = torch.zeros_like(rs_map), torch.zeros_like(plain.inside)
    for b in range(len(images)):
        for y in range(side):
            for x in range(side):
                picture, place = divmod(int(mixed.source[b, y, x]), side * side)
                row, column = divmod(place, side)
                inside[b, 0, y, x] = plain.inside[picture, 0, row, column]
                if (y % step, x % step) == (step // 2, step // 2):  # the middle of a position of M_rs
                    present = mixed.tags[b] > 0
                    target[b, :, y // step, x // step] = rs_map[picture, :, row // step, column // step] * present
    masks = mixed.pseudo_masks.clone()
    masks[inside[:, 0] == 0] = VOID
    cam = F.avg_pool2d(target, target.shape[2] // teacher.cam.shape[2])
    return Targets(mixed.images, mixed.tags, cam, F.avg_pool2d(inside, 4), masks, inside)


# the terms, by their formulas in float64


def inner_mean(cam: Tensor, inside: Tensor) -> Tensor:
    """The mean of each map over the picture, positions that are partly padding counting as much less."""
    share = F.avg_pool2d(inside, inside.shape[2] // cam.shape[2]).double()
    return (cam.double() * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3))


def tag_term(logits: Tensor, tags: Tensor) -> Tensor:
    probability = 1 / (1 + (-logits.double()).exp())
    return -(tags * probability.log() + (1 - tags) * (1 - probability).log()).sum() / logits.numel()


def cam_term(cam: Tensor, targets: Targets) -> Tensor:
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    for b in range(cam.shape[0]):
        weight = targets.cam_weight[b, 0].double()
        for k in range(cam.shape[1]):
            positive = cam[b, k].double().clamp(min=0)
            seed = positive / (positive.max() + 1e-5)
            tag = float(targets.tags[b, k])
            total = total + tag * (weight * (seed - targets.cam[b, k]).abs()).sum()
            count += tag * float(weight.sum())
    return total / max(1.0, count)


def decoder_term(logits: Tensor, masks: Tensor) -> Tensor:
    if logits.shape[2:] != masks.shape[1:]:
        logits = F.interpolate(logits, size=masks.shape[1:], mode="bilinear", align_corners=False)
    logits = logits.double()
    by_label = logits - logits.exp().sum(dim=1, keepdim=True).log()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for label in range(len(CLASSES) + 1):
        there = masks == label
        total = total - by_label[:, label][there].sum()
        count += int(there.sum())
    return total / max(1, count)


def puzzle_terms(network: SingleStageNetwork, images: Tensor, tags: Tensor, cam: Tensor) -> dict[str, Tensor]:
    half, middle = images.shape[2] // 2, cam.shape[2] // 2
    places = [(y, x) for y in (0, 1) for x in (0, 1)]
    quarters = [images[:, :, y * half : (y + 1) * half, x * half : (x + 1) * half] for y, x in places]
    maps = network(torch.cat(quarters), decode=False).cam.double().chunk(4)
    total = torch.zeros((), dtype=torch.float64)
    for (y, x), quarter in zip(places, maps, strict=True):
        whole = cam[:, :, y * middle : (y + 1) * middle, x * middle : (x + 1) * middle]
        total = total + ((whole - quarter).abs() * tags[:, :, None, None]).sum()
    means = torch.stack(maps).mean(dim=(0, 3, 4))
    return {"puzzle_tags": tag_term(means, tags), "puzzle": ALPHA * total / cam.numel()}


def terms_of(
    config: TrainConfig,
    phase: Phase,
    network: SingleStageNetwork,
    teacher: SingleStageNetwork,
    images: Tensor,
    tags: Tensor,
    inside: Tensor,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """All terms of a phase, weighted."""
    outputs = network(images, decode=phase.refine)
    terms = {"tags": tag_term(inner_mean(outputs.cam, inside), tags)}
    if phase.puzzle:
        terms |= puzzle_terms(network, images, tags, outputs.cam)
    if phase.refine:
        with torch.no_grad():
            taught = teacher(images)
        plain, rs_map = plain_targets(config, images, tags, inside, taught)
        assert {0, VOID} < set(plain.masks.unique().tolist()), "the pictures have background, void and a class"
        terms["cam"] = config.cam_weight * cam_term(outputs.cam, plain)
        terms["decoder"] = config.decoder_weight * decoder_term(outputs.seg_logits, plain.masks)
    if phase.mix:
        mixed = mixed_targets(config, plain, rs_map, taught, generator)
        assert not all(any(torch.equal(new, old) for old in images) for new in mixed.images), "something is pasted"
        assert len(mixed.masks.unique()) > 2
        outputs = network(mixed.images)
        terms["mix_tags"] = config.mix_tag_weight * tag_term(inner_mean(outputs.cam, mixed.inside), mixed.tags)
        terms["mix_cam"] = config.mix_cam_weight * cam_term(outputs.cam, mixed)
        terms["mix_decoder"] = config.mix_decoder_weight * decoder_term(outputs.seg_logits, mixed.masks)
    return terms


# the step


def trainer_for(tiny: TrainConfig, phase: Phase, **settings: float) -> Trainer:
    """A trainer whose weights move by exactly their gradient, with an average that is another network."""
    config = replace(
        tiny,
        method="puzzle" if phase.puzzle else "rs",
        mixing=phase.mixing,
        learning_rate=1.0,
        head_factor=1.0,
        bias_factor=1.0,
        momentum=0.0,
        weight_decay=0.0,
        clip_norm=1e6,
        certain=0.6,
        uncertain=0.3,
        cam_weight=2.0,
        decoder_weight=0.7,
        mix_tag_weight=0.6,
        mix_cam_weight=1.7,
        mix_decoder_weight=0.8,
        **settings,
    )
    trainer = Trainer(config, CLASSES, torch.device("cpu"))
    for module in trainer.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    other = Trainer(replace(config, seed=config.seed + 4), CLASSES, torch.device("cpu")).network
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        other.train()(normalise(pictures(4)))  # statistics of these pictures, so that its maps are no plain fields
    other.decoder.refine[-1].weight.data *= 6  # else no label is certain
    trainer.average.network.load_state_dict(other.state_dict())
    return trainer


def pictures(count: int) -> Tensor:
    """Blots of colour with noise on them, 32 pixels a side."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    fine = torch.rand(count, 3, 32, 32, generator=generator)
    return (200 * F.interpolate(coarse, size=(32, 32)) + 55 * fine).to(torch.uint8)


def expect_step(trainer: Trainer, phase: Phase, sizes: tuple[int, ...], boxes: Tensor | None = None) -> None:
    """Make one step on ``sum(sizes)`` pictures and expect that of the sum of terms over parts of these sizes."""
    network, teacher = copy.deepcopy(trainer.network).train(), copy.deepcopy(trainer.average.network).eval()
    images, tags = pictures(sum(sizes)), TAGS[: sum(sizes)]
    generator = torch.Generator().manual_seed(derive_seed(trainer.config.seed, "mix", STEP))
    inside = torch.ones(len(images), 1, 32, 32)
    for plane, (top, left, bottom, right) in zip(inside, [] if boxes is None else boxes.tolist(), strict=False):
        plane.fill_(0)[:, top:bottom, left:right] = 1
    wanted: dict[str, Tensor] = {}
    parts = zip((normalise(images) * inside).split(sizes), tags.split(sizes), inside.split(sizes), strict=True)
    for part_images, part_tags, part_inside in parts:
        terms = terms_of(trainer.config, phase, network, teacher, part_images, part_tags, part_inside, generator)
        for name, term in terms.items():
            wanted[name] = wanted.get(name, torch.zeros(())) + term * len(part_tags) / sum(sizes)

    before = {name: value.detach().clone() for name, value in trainer.network.named_parameters()}
    values = trainer.step(images, tags, phase, step=STEP, alpha=ALPHA, boxes=boxes)
    assert values == pytest.approx({name: float(term.detach()) for name, term in wanted.items()}, rel=1e-4)

    names, weights = zip(*network.named_parameters(), strict=True)
    by_term = [torch.autograd.grad(t, weights, retain_graph=True, materialize_grads=True) for t in wanted.values()]
    gradient = [torch.stack(parts).sum(dim=0) for parts in zip(*by_term, strict=True)]
    whole = length(gradient)
    for name, parts in zip(wanted, by_term, strict=True):
        assert length(parts) > 0.02 * whole, f"{name} pulls: the comparison can miss it"
    moved = {name: before[name] - value.detach() for name, value in trainer.network.named_parameters()}
    assert moved.keys() == set(names)
    for name, own in zip(names, gradient, strict=True):
        distance = float((moved[name] - own).norm())
        assert distance <= 1e-3 * float(own.norm()) + 1e-6 * whole, f"{name}: {distance} of {float(own.norm())}"
        assert phase.refine or bool(own.any()) is not name.startswith("decoder."), name


def length(tensors: list[Tensor] | tuple[Tensor, ...]) -> float:
    return sum(float(tensor.square().sum()) for tensor in tensors) ** 0.5


@pytest.mark.parametrize("name", PHASES)
def test_every_weight_moves_by_the_gradient_of_the_sum_of_terms(tiny: TrainConfig, name: str) -> None:
    trainer = trainer_for(tiny, PHASES[name])
    expect_step(trainer, PHASES[name], (4,))


BOXES = torch.tensor([[0, 0, 32, 32], [4, 0, 28, 32], [0, 6, 32, 30], [8, 8, 26, 24]])


@pytest.mark.parametrize("name", ["cam", "rs", "epm", "cutmix"])
def test_padding_is_left_out_of_means_and_losses(tiny: TrainConfig, name: str) -> None:
    expect_step(trainer_for(tiny, PHASES[name]), PHASES[name], (4,), BOXES)


@pytest.mark.parametrize("name", ["cam", "rs", "epm"])
def test_parts_of_a_batch_add_up_by_their_pictures(tiny: TrainConfig, name: str) -> None:
    trainer = trainer_for(tiny, PHASES[name], accumulate=2)
    expect_step(trainer, PHASES[name], (2, 2))


def test_unequal_parts_count_by_their_pictures(tiny: TrainConfig) -> None:
    expect_step(trainer_for(tiny, PHASES["rs"], accumulate=2), PHASES["rs"], (2, 1))


def test_the_average_follows_by_the_number_of_the_step(tiny: TrainConfig) -> None:
    trainer = Trainer(replace(tiny, ema_decay=0.9), CLASSES, torch.device("cpu"))
    wanted = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    for step in (0, 1, 5, 40, 400):
        trainer.step(pictures(2), TAGS[:2], PHASES["rs"], step=step)
        keep = min(0.9, (1 + step) / (10 + step))
        for name, value in trainer.network.state_dict().items():
            follows = value.is_floating_point()
            wanted[name] = keep * wanted[name].double() + (1 - keep) * value.double() if follows else value.clone()
    integers = 0
    for name, value in trainer.average.network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), wanted[name], rtol=1e-5, atol=1e-7, msg=name)
        else:
            assert int(value) == int(wanted[name]) == 5, name
            integers += 1
    assert integers > 0


class PooledLayouts(TorchDispatchMode):
    """Notes what goes into adaptive average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._adaptive_avg_pool2d.default:
            self.seen.append(args[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", PHASES)
def test_what_is_pooled_lies_in_memory_like_a_new_tensor(tiny: TrainConfig, name: str) -> None:
    """Of others torch's pooling on a GPU (2.11) reads beyond the memory, and the losses are wrong without a word."""
    trainer = trainer_for(tiny, PHASES[name])
    with PooledLayouts() as pooled:
        trainer.step(pictures(4), TAGS, PHASES[name], step=STEP, boxes=BOXES)
    assert pooled.seen
    for tensor in pooled.seen:
        assert tensor.stride() in (
            torch.empty(tensor.shape).stride(),
            torch.empty(tensor.shape, memory_format=torch.channels_last).stride(),
        )
