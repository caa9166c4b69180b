"""The losses of one training step: classification, RecurSeed and EdgePredictMix put together."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods.edgepredictmix import edge_predict, edge_predict_mix
from rsepm_edu.methods.mixing import Mixed
from rsepm_edu.methods.recurseed import Refined, cam_loss, decoder_loss, recur_seed
from rsepm_edu.models.network import Outputs
from rsepm_edu.training.config import TrainConfig

SCG_STAGES = slice(2, 4)  # stages 4 and 5, as in Pan et al. 2021


@dataclass(frozen=True)
class Phase:
    """Which parts of the method are on in an epoch."""

    refine: bool  # RecurSeed
    mix: bool  # EdgePredictMix

    @property
    def name(self) -> str:
        """For logs: cam, rs or rs+epm."""
        return "rs+epm" if self.mix else "rs" if self.refine else "cam"


def phase_of(config: TrainConfig, epoch: int) -> Phase:
    """The phase of an epoch, counted from 0."""
    refine = config.method != "cam" and epoch >= config.seed_start
    return Phase(refine, refine and config.method == "rs+epm" and epoch >= config.mix_start)


def tag_loss(tag_logits: Tensor, tags: Tensor) -> Tensor:
    """Multi-label soft margin loss: mean over pictures and classes of the binary cross entropy."""
    return F.multilabel_soft_margin_loss(tag_logits.float(), tags)


def refine(config: TrainConfig, images: Tensor, outputs: Outputs, tags: Tensor) -> Refined:
    """RecurSeed's targets for a batch, from the network's own outputs (see ``recur_seed``)."""
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
    """A mixed batch cut along the decoder's own prediction, absent classes left out."""
    allowed = F.pad(tags, (1, 0), value=1)[:, :, None, None] > 0
    logits = seg_logits.float().masked_fill(~allowed, float("-inf"))
    probabilities = F.interpolate(logits.softmax(dim=1), size=images.shape[2:], mode="bilinear", align_corners=False)
    masks = edge_predict(probabilities, tags, certain=config.certain, uncertain=config.uncertain)
    return edge_predict_mix(images, tags, masks, generator=generator)


def class_shares(masks: Tensor, classes: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What a mask says at a coarser size: the share of each class among labelled pixels, and the labelled share.

    Args:
        masks: B×H×W int64.
        classes: K.
        size: (h, w).

    Returns:
        B×K×h×w and B×1×h×w, in [0, 1].
    """
    # Four samples a side within each position are enough, and far cheaper than every pixel of every class.
    step_y, step_x = (max(1, n // (4 * m)) for n, m in zip(masks.shape[1:], size, strict=True))
    masks = masks[:, step_y // 2 :: step_y, step_x // 2 :: step_x]
    labelled = (masks != VOID).float()[:, None]
    planes = torch.stack([(masks == k).float() for k in range(1, classes + 1)], dim=1)
    known = F.adaptive_avg_pool2d(labelled, size)
    return F.adaptive_avg_pool2d(planes, size) / known.clamp(min=1e-6), known


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


def plain_losses(config: TrainConfig, outputs: Outputs, tags: Tensor, refined: Refined | None) -> dict[str, Tensor]:
    """Losses on an unmixed batch, weighted: classification and, with targets, CAM and decoder."""
    losses = {"tags": tag_loss(outputs.tag_logits, tags)}
    if refined is not None:
        assert outputs.seg_logits is not None
        losses["cam"] = config.cam_weight * cam_loss(outputs.cam.float(), refined.seed, tags)
        losses["decoder"] = config.decoder_weight * decoder_loss(outputs.seg_logits.float(), refined.pseudo_mask)
    return losses
