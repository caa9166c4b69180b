"""The losses of one training step: classification, Puzzle-CAM, RecurSeed and mixing put together."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods.cda import context_decoupling
from rsepm_edu.methods.classmix import class_mix
from rsepm_edu.methods.cutmix import cut_mix
from rsepm_edu.methods.edgepredictmix import epm
from rsepm_edu.methods.mixing import Mixed
from rsepm_edu.methods.puzzle import puzzle_loss
from rsepm_edu.methods.recurseed import Refined, cam_loss, class_shares, decoder_loss, hold_seed, recur_seed
from rsepm_edu.methods.saliency_grafting import saliency_grafting
from rsepm_edu.models.network import Outputs
from rsepm_edu.training.config import WITHOUT_DECODER, Mixing, TrainConfig, method_name

SCG_STAGES = slice(2, 4)  # stages 4 and 5, as in Pan et al. 2021

MIXERS: dict[Mixing, Callable[..., Mixed]] = {
    "edgepredictmix": epm,
    "classmix": class_mix,
    "cda": context_decoupling,
    "cutmix": cut_mix,
    "saliency-grafting": saliency_grafting,
}
"""The mixing methods by their names in the settings; their interface is that of ``methods.mixing``."""


@dataclass(frozen=True)
class Phase:
    """Which parts of the method are on in an epoch."""

    refine: bool  # RecurSeed
    mix: bool  # EdgePredictMix, or what takes its place
    puzzle: bool = False  # Puzzle-CAM
    mixing: Mixing = "edgepredictmix"  # how, where mix is on

    @property
    def name(self) -> str:
        """For logs: the method so far, see ``method_name``."""
        if self.mix:
            return method_name("rs+epm", self.mixing)
        return "rs" if self.refine else "puzzle" if self.puzzle else "cam"


def phase_of(config: TrainConfig, epoch: int) -> Phase:
    """The phase of an epoch, counted from 0."""
    refine = config.method not in WITHOUT_DECODER and epoch >= config.seed_start
    if refine and config.method == "rs+epm" and epoch >= config.mix_start:
        return Phase(refine=True, mix=True, mixing=config.mixing)
    return Phase(refine, mix=False, puzzle=config.method == "puzzle")


def tag_loss(tag_logits: Tensor, tags: Tensor) -> Tensor:
    """Multi-label soft margin loss: mean over pictures and classes of the binary cross entropy; tags in [0, 1]."""
    return F.multilabel_soft_margin_loss(tag_logits.float(), tags)


def refine(config: TrainConfig, images: Tensor, outputs: Outputs, tags: Tensor) -> Refined:
    """RecurSeed's targets for a batch, from the outputs of the averaged network (see ``recur_seed``)."""
    stride = config.pamr_stride
    size = (max(1, images.shape[2] // stride), max(1, images.shape[3] // stride))
    return recur_seed(
        images,
        tuple(stage.detach() for stage in outputs.stages[SCG_STAGES]),
        outputs.cam.detach(),
        tags,
        size=size,
        certain=config.certain,
        uncertain=config.uncertain,
        first_threshold=config.scg_threshold,
    )


@torch.no_grad()
def mix(
    config: TrainConfig,
    images: Tensor,
    tags: Tensor,
    seg_logits: Tensor,
    *,
    generator: torch.Generator,
) -> Mixed:
    """A mixed batch, by the prediction of the averaged network's decoder with absent classes left out."""
    allowed = F.pad(tags, (1, 0), value=1)[:, :, None, None] > 0
    logits = seg_logits.float().masked_fill(~allowed, float("-inf"))
    probabilities = F.interpolate(logits.softmax(dim=1), size=images.shape[2:], mode="bilinear", align_corners=False)
    thresholds = {"certain": config.certain, "uncertain": config.uncertain}
    if config.mixing == "classmix":  # goes by the arg-max alone
        thresholds = {}
    return MIXERS[config.mixing](images, tags, probabilities, generator=generator, **thresholds)


def mixed_losses(config: TrainConfig, outputs: Outputs, mixed: Mixed) -> dict[str, Tensor]:
    """Losses on a mixed batch, weighted: classification, CAM against the mask, decoder against the mask."""
    assert outputs.seg_logits is not None
    size = (outputs.cam.shape[2], outputs.cam.shape[3])
    shares, known = class_shares(mixed.pseudo_masks, mixed.tags.shape[1], size)
    return {
        "mix_tags": config.mix_tag_weight * tag_loss(outputs.tag_logits, mixed.tags),
        "mix_cam": config.mix_cam_weight * cam_loss(outputs.cam.float(), shares, mixed.tags, known),
        "mix_decoder": config.mix_decoder_weight * decoder_loss(outputs.seg_logits.float(), mixed.pseudo_masks),
    }


def mean_counts(tags: Tensor, masks: Tensor, outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Over how much two losses of a batch are means: Σ n of ``cam_loss``, and the labelled pixels of ``decoder_loss``.

    Args:
        tags: B×K in [0, 1].
        masks: B×H×W, those that the losses are given.
        outputs: of the network, for the size of its CAM.

    Returns:
        Two scalars ≥ 0.
    """
    _, known = class_shares(masks, 1, (outputs.cam.shape[2], outputs.cam.shape[3]))
    return (tags.sum(dim=1) * known.sum(dim=(1, 2, 3))).sum(), (masks != VOID).sum()


def plain_losses(config: TrainConfig, outputs: Outputs, tags: Tensor, refined: Refined | None) -> dict[str, Tensor]:
    """Losses on an unmixed batch, weighted: classification and, with targets, CAM and decoder."""
    losses = {"tags": tag_loss(outputs.tag_logits, tags)}
    if refined is not None:
        assert outputs.seg_logits is not None
        target, known = hold_seed(refined.seed, refined.pseudo_mask)
        losses["cam"] = config.cam_weight * cam_loss(outputs.cam.float(), target, tags, known)
        losses["decoder"] = config.decoder_weight * decoder_loss(outputs.seg_logits.float(), refined.pseudo_mask)
    return losses


def puzzle_losses(outputs: Outputs, merged_cam: Tensor, tags: Tensor, *, alpha: float) -> dict[str, Tensor]:
    """Losses of Puzzle-CAM: classification by the means of M and of M^re, and α · L_re."""
    return {
        "tags": tag_loss(outputs.tag_logits, tags),
        "puzzle_tags": tag_loss(merged_cam.mean(dim=(2, 3)), tags),
        "puzzle": alpha * puzzle_loss(outputs.cam, merged_cam, tags),
    }
