"""One training step: what is learnt from, and the losses.

::

    images ── student ── tag logits, CAM, decoder ── L_cls, L_rec, L_seg
       └───── teacher ── CAM ──── RecurSeed ──────── M_rs, M_seg            (the targets of L_rec and L_seg)
                         decoder ─ PAMR, EP, mix ─── mixed images, their M_rs and M_seg
    mixed images ─ student ─ CAM, decoder ────────── L_rec^mix, L_seg^mix

How a network is run (precision, processes, whose weights) is the caller's: it hands in the forward passes. So training,
the count of its memory and lesson 09 go through the same function.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods.cam import tag_loss
from rsepm_edu.methods.mixing import mix_maps
from rsepm_edu.methods.puzzle import merge, puzzle_loss, tile
from rsepm_edu.methods.recurseed import cam_loss, decoder_loss, rec_counts
from rsepm_edu.models.network import Outputs
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.mixings import MIXINGS
from rsepm_edu.training.phases import Phase
from rsepm_edu.training.targets import Batch, decoder_maps, refine


class Target(NamedTuple):
    """What the network is to say of a batch: M_rs B×K×h×w in [0, 1], 0 in padding; M_seg B×h'×w' int64, void there."""

    batch: Batch
    rs_map: Tensor
    pseudo_mask: Tensor


class Term(NamedTuple):
    """A weighted loss, and over how much (pictures, positions, pixels) it is the mean; both scalars."""

    loss: Tensor
    counted: Tensor


class Forward(Protocol):
    """A network's forward pass."""

    def __call__(self, images: Tensor, *, decode: bool) -> Outputs: ...


MakeTargets = Callable[[Batch], list[Target]]
"""From a batch to the target of the batch itself and, where mixing is on, that of a mixed one."""


def step_terms(
    config: TrainConfig, phase: Phase, batch: Batch, *, student: Forward, targets: MakeTargets, alpha: float = 0.0
) -> dict[str, Term]:
    """All losses of one step, by name and weighted; their sum is what is minimised.

    Args:
        config: weights of the losses.
        phase: what is on.
        batch: to learn from.
        student: the network that learns.
        targets: asked for them where RecurSeed is on, see ``teacher_targets``.
        alpha: weight of Puzzle-CAM's loss, see ``alpha_at``.
    """
    outputs = student(batch.images, decode=phase.refine)
    terms = {"tags": tag_term(outputs.cam, batch)}
    if phase.puzzle:
        size = (outputs.cam.shape[2], outputs.cam.shape[3])
        merged = merge(student(tile(batch.images), decode=False).cam.float(), size=size)
        terms["puzzle_tags"] = tag_term(merged, batch)
        share = inside_share(batch.inside, merged)
        difference = puzzle_loss(outputs.cam.float() * share, merged * share, batch.tags)
        terms["puzzle"] = Term(alpha * difference, terms["tags"].counted)
    if phase.refine:
        plain, *mixed = targets(batch)
        terms["cam"] = rec_term(outputs, plain, config.cam_weight)
        terms["decoder"] = seg_term(outputs, plain, config.decoder_weight)
        for target in mixed:
            outputs = student(target.batch.images, decode=True)
            if config.mix_tag_weight:
                terms["mix_tags"] = tag_term(outputs.cam, target.batch, config.mix_tag_weight)
            terms["mix_cam"] = rec_term(outputs, target, config.mix_cam_weight)
            terms["mix_decoder"] = seg_term(outputs, target, config.mix_decoder_weight)
    return terms


@torch.no_grad()
def teacher_targets(
    config: TrainConfig, phase: Phase, batch: Batch, *, teacher: Forward, generator: torch.Generator
) -> list[Target]:
    """The targets that a network, the averaged one, makes of a batch: RecurSeed's and, with mixing, the mixed ones.

    Of a network that has left the finite numbers the maps are NaN, so that the losses tell.

    Args:
        config: thresholds and sizes.
        phase: with ``refine`` on.
        batch: that is learnt from.
        teacher: the averaged network.
        generator: on the CPU, for mixing.
    """
    images, tags, inside, _ = batch
    outputs = teacher(images, decode=phase.mix)
    refined = refine(config, batch, outputs)
    # SCG and the filters make something of NaN too: the maps then have to be NaN.
    unsound = 0 * outputs.cam.float().sum()
    if outputs.seg_logits is not None:
        unsound += 0 * outputs.seg_logits.float().sum()
    plain = Target(batch, refined.rs_map + unsound, refined.pseudo_mask)
    if not phase.mix:
        return [plain]
    method = MIXINGS[phase.mixing]
    maps = decoder_maps(config, batch, outputs, pamr=method.pamr)
    thresholds = {"certain": config.certain, "uncertain": config.uncertain} if method.thresholds else {}
    mixed = method.mix(images, tags, maps, generator=generator, **thresholds)
    inside = mix_maps(inside, mixed.source)
    visible = (mixed.tags > 0)[:, :, None, None]
    mask = mixed.pseudo_masks.masked_fill(inside[:, 0] == 0, VOID)
    rs_map = mix_maps(plain.rs_map, mixed.source) * visible
    return [plain, Target(Batch(mixed.images, mixed.tags, inside), rs_map, mask)]


def tag_term(cam: Tensor, batch: Batch, weight: float = 1.0) -> Term:
    """L_cls: the tags against the mean of the CAM over the picture, padding left out."""
    share = inside_share(batch.inside, cam)
    logits = (cam.float() * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3)).clamp(min=1e-6)
    return Term(weight * tag_loss(logits, batch.tags), cam.new_full((), len(cam), dtype=torch.float32))


def rec_term(outputs: Outputs, target: Target, weight: float) -> Term:
    """L_rec: the CAM against M_rs all over the picture."""
    cam, tags, share = outputs.cam.float(), target.batch.tags, inside_share(target.batch.inside, outputs.cam)
    return Term(weight * cam_loss(cam, target.rs_map, tags, share), rec_counts(tags, cam, share).sum())


def seg_term(outputs: Outputs, target: Target, weight: float) -> Term:
    """L_seg: the decoder against M_seg wherever that is not void."""
    assert outputs.seg_logits is not None
    count = (target.pseudo_mask != VOID).sum()
    return Term(weight * decoder_loss(outputs.seg_logits.float(), target.pseudo_mask), count)


def inside_share(inside: Tensor, cam: Tensor) -> Tensor:
    """How much of each position of the CAM is picture and not padding: B×1×h×w in [0, 1]."""
    return F.adaptive_avg_pool2d(inside, (cam.shape[2], cam.shape[3]))
