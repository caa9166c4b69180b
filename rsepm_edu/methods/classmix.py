"""ClassMix: half of the predicted classes of one picture on another, cut along the prediction as it is.

Olsson et al., "ClassMix: Segmentation-Based Data Augmentation for Semi-Supervised Learning", WACV 2021; its
interface and what it shares with other methods are in ``methods.mixing``. EdgePredictMix pastes
all classes, along refined masks.

Our reading:
    * background is not among the classes that are drawn; half is rounded up;
    * the pseudo mask is the same arg-max, so that it has no void.
"""

import torch
from torch import Tensor

from rsepm_edu.device import sent
from rsepm_edu.methods.mixing import Mixed, choose_half, expect_mixing, label_counts, partners, paste_classes


def class_mix(
    images: Tensor,
    tags: Tensor,
    maps: Tensor,
    *,
    generator: torch.Generator,
    min_visible: float = 0.1,
) -> Mixed:
    """Paste half of each picture's predicted classes, cut along the arg-max, on its partner (Olsson et al. 2021).

    The arg-max is taken as it comes, and is the pseudo mask as well: no void. Of equal probabilities the first class
    wins. Tags as in ``paste_classes``.

    Args:
        images, tags, maps, generator: see ``methods.mixing``.
        min_visible: see ``paste_classes``.

    Returns:
        ``Mixed`` with tags in {0, 1}.

    Raises:
        ValueError, TypeError: shapes or dtypes do not go together.
    """
    expect_mixing(images, tags, maps)
    masks = maps.argmax(dim=1)
    below = sent(partners(len(images), generator=generator), images.device)
    shown = label_counts(masks)[:, 1 : tags.shape[1] + 1] > 0
    chosen = choose_half(shown, generator=generator)
    batch = Mixed.unmixed(images, tags, masks)
    return paste_classes(batch, batch.rows(below), chosen, min_visible=min_visible)
