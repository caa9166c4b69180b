"""What a network says of a batch, made into targets: RecurSeed's maps, and the decoder's map that mixing cuts along."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.labels import VOID
from rsepm_edu.methods.recurseed import Refined, pamr_at, recur_seed
from rsepm_edu.models.network import Outputs
from rsepm_edu.training.config import TrainConfig

SCG_STAGES = slice(2, 4)  # stages 4 and 5, as in Pan et al. 2021


class Batch(NamedTuple):
    """Images B×3×H×W normalised, 0 in padding; tags B×K; inside B×1×H×W, 1 on the picture and 0 in padding.

    present, B×n int64, is what ``present_first`` makes of the tags while they are on the host, where they come from.
    None: which maps are not zero is looked for, and the host waits for a GPU each time.
    """

    images: Tensor
    tags: Tensor
    inside: Tensor
    present: Tensor | None = None


def present_first(tags: Tensor) -> Tensor:
    """The numbers of each picture's classes, the present ones first.

    Args:
        tags: B×K in {0, 1}, on the CPU.

    Returns:
        B×n int64, n as many as the picture with the most tags has.
    """
    return tags.argsort(dim=1, descending=True, stable=True)[:, : int(tags.count_nonzero(dim=1).max())]


def refine(config: TrainConfig, batch: Batch, outputs: Outputs) -> Refined:
    """RecurSeed's maps of a batch from the outputs of a network, nothing of them in padding (see ``recur_seed``)."""
    size = pamr_size(config, batch.images)
    refined = recur_seed(
        batch.images,
        outputs.stages[SCG_STAGES],
        outputs.cam,
        batch.tags,
        size=size,
        certain=config.certain,
        uncertain=config.uncertain,
        first_threshold=config.scg_threshold,
        present=batch.present,
    )
    inside = F.interpolate(batch.inside, size=size)
    mask = refined.pseudo_mask.masked_fill(inside[:, 0] == 0, VOID)
    return refined._replace(rs_map=refined.rs_map * inside, pseudo_mask=mask)


def decoder_maps(config: TrainConfig, batch: Batch, outputs: Outputs, *, pamr: bool) -> Tensor:
    """The decoder's probabilities at the size of the images, absent classes left out: B×(K+1)×H×W; with PAMR, M_dec."""
    assert outputs.seg_logits is not None
    images = batch.images
    allowed = F.pad(batch.tags, (1, 0), value=1)[:, :, None, None] > 0
    maps = outputs.seg_logits.float().masked_fill(~allowed, float("-inf")).softmax(dim=1)
    if pamr:
        channels = None if batch.present is None else F.pad(batch.present + 1, (1, 0))  # and the background, 0
        maps = pamr_at(images, maps, pamr_size(config, images), channels=channels)
    return F.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)


def pamr_size(config: TrainConfig, images: Tensor) -> tuple[int, int]:
    """Height and width at which PAMR works."""
    return max(1, images.shape[2] // config.pamr_stride), max(1, images.shape[3] // config.pamr_stride)
