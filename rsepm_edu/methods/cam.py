"""Class activation maps: where a classifier that has only seen tags looks.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

Three things that are easily mixed up are kept apart here: the *raw score* (``cam_from_features``, any sign, any
scale, its spatial mean is the tag logit), the *normalised map* (``normalize_cam``, in [0, 1], what thresholds and
losses see), and the *picture* (``rsepm_edu.viz``, colours for the eye).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.methods.shapes import expect_maps, expect_tags


def cam_from_features(features: Tensor, weight: Tensor) -> Tensor:
    """Raw class activation maps M_k(u) = w_k · F(u) (Zhou et al. 2016, eq. 2).

    The same as a bias-free 1×1 convolution, so that the spatial mean of M_k is the logit of tag k.

    Args:
        features: B×C×h×w, the features of the last stage.
        weight: K×C (a linear layer's) or K×C×1×1 (a 1×1 convolution's).

    Returns:
        B×K×h×w raw scores, any sign and scale.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(features=features)
    channels = features.shape[1]
    if weight.ndim not in (2, 4) or weight.shape[1:] not in ((channels,), (channels, 1, 1)):
        raise ValueError(f"weight: expected KxC or KxCx1x1, C = {channels}, got shape {tuple(weight.shape)}")
    return torch.einsum("bchw,kc->bkhw", features, weight.flatten(1))


def normalize_cam(cam: Tensor, tags: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Normalised maps ReLU(M_k) / (max_u ReLU(M_k(u)) + eps), zero for absent tags.

    Args:
        cam: B×K×h×w raw scores.
        tags: B×K in {0, 1}; None keeps every class.
        eps: keeps a map that is zero everywhere zero.

    Returns:
        B×K×h×w in [0, 1].

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(cam=cam)
    positive = cam.relu()
    seed = positive / (positive.amax(dim=(2, 3), keepdim=True) + eps)
    if tags is None:
        return seed
    expect_tags(tags, cam)
    return seed * tags[:, :, None, None].to(seed.dtype)


def tag_loss(tag_logits: Tensor, tags: Tensor) -> Tensor:
    """L_cls: multi-label soft margin loss, the mean over pictures and classes of the binary cross entropy.

    Args:
        tag_logits: B×K, any dtype; computed in float32 or better.
        tags: B×K in [0, 1]; a fraction, as some mixing methods leave it, is the probability to be learnt.

    Returns:
        A scalar ≥ 0.
    """
    exact = torch.promote_types(tag_logits.dtype, torch.float32)
    return F.multilabel_soft_margin_loss(tag_logits.to(exact), tags.to(exact))
