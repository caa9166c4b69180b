"""Boundary IoU (Cheng et al., CVPR 2021): the IoU of what lies near the boundaries alone.

A large object can be cut out badly and still have a high IoU, most of its pixels being far inside. So from the pixels G
of a class in the truth and P in the prediction only those within a distance d of their own mask's outline are kept:

    boundary IoU = |G_d ∩ P_d| / |G_d ∪ P_d|,   G_d = G without its erosion by d,   P_d likewise.

As in the authors' code the erosion is by a square of 2d + 1 pixels, a picture's border is an outline, and d is 2 % of
the picture's diagonal. A pixel is in the band of its class exactly if its square holds another label or leaves the
picture: the highest label in it is not the lowest. So two max-pools serve all classes at once.

Our reading of void, of which the paper says nothing: under void the truth takes the prediction's label before the bands
are made, and void pixels count nowhere. So a prediction that is right wherever the truth says anything has exactly 1,
and the ring of void around VOC's objects gives no outline to a prediction that has none there.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.metrics import check_integer, check_num_labels
from rsepm_edu.labels import VOID

RATIO = 0.02
"""Distance from the outline as a share of the picture's diagonal (the paper's choice)."""


def boundary_distance(size: tuple[int, int], ratio: float = RATIO) -> int:
    """The distance d in pixels for pictures of height × width: at least 1.

    Raises:
        UserError: a ratio that is not above 0 and at most 1.
    """
    if not 0 < ratio <= 1:
        raise UserError(f"ratio: expected a share of the diagonal above 0 and at most 1, got {ratio}")
    return max(1, round(ratio * math.hypot(*size)))


def boundary_bands(labels: Tensor, distance: int) -> Tensor:
    """Which pixels are within a distance of the outline of their own label's mask.

    Args:
        labels: integers B×H×W, no void.
        distance: d in pixels, the larger of the two directions' counting.

    Returns:
        bool B×H×W.
    """
    # Outside the picture is a label of its own. float32 holds labels exactly, and pools run on it everywhere.
    padded = F.pad(labels.float()[:, None], [distance] * 4, value=-1.0)
    # A square's maximum is that of its columns' maxima.
    both = torch.cat([padded, -padded], dim=1)
    both = F.max_pool2d(F.max_pool2d(both, (2 * distance + 1, 1), stride=1), (1, 2 * distance + 1), stride=1)
    return both[:, 0] != -both[:, 1]


def boundary_counts(prediction: Tensor, target: Tensor, num_labels: int, *, ratio: float = RATIO) -> Tensor:
    """Count the pixels of each label's two bands, and those in both.

    Args:
        prediction: integer labels B×H×W in 0 … L - 1.
        target: integer labels B×H×W in 0 … L - 1, or VOID.
        num_labels: number of labels L, background included.
        ratio: distance as a share of the diagonal.

    Returns:
        int64 L×3 on the CPU: |G_d|, |P_d|, |G_d ∩ P_d|. Those of several batches may simply be added.

    Raises:
        TypeError: labels that are not integers.
        ValueError: two shapes, not B×H×W, or a label out of range.
        UserError: see ``boundary_distance``.
    """
    check_num_labels(num_labels)
    check_integer("prediction", prediction)
    check_integer("target", target)
    if prediction.ndim != 3 or prediction.shape != target.shape:
        raise ValueError(
            f"expected prediction and target BxHxW, got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    prediction, target = prediction.long(), target.long()
    void = target == VOID
    truth = torch.where(void, prediction, target)
    for name, labels in (("prediction", prediction), ("target", truth)):
        low, high = (int(end) for end in torch.aminmax(labels)) if labels.numel() else (0, 0)
        if low < 0 or high >= num_labels:
            raise ValueError(f"{name}: expected labels 0 ... {num_labels - 1}, got {low} ... {high}")
    distance = boundary_distance((target.shape[1], target.shape[2]), ratio)
    of_truth, of_prediction = (boundary_bands(labels, distance) & ~void for labels in (truth, prediction))
    in_both = of_truth & of_prediction & (truth == prediction)

    def count(labels: Tensor, where: Tensor) -> Tensor:
        return torch.bincount(labels[where], minlength=num_labels)

    counts = [count(truth, of_truth), count(prediction, of_prediction), count(truth, in_both)]
    return torch.stack(counts, dim=1).cpu()


def boundary_iou(counts: Tensor, names: Sequence[str]) -> dict[str, float | None]:
    """Boundary IoU of every label, from the counts of a whole set divided once.

    Args:
        counts: int64 L×3, see ``boundary_counts``.
        names: of the L labels in order, background among them.

    Returns:
        Fractions in [0, 1] by name; None where neither truth nor prediction has the label.

    Raises:
        ValueError: counts that are not L×3.
    """
    if tuple(counts.shape) != (len(names), 3):
        raise ValueError(f"counts: expected {len(names)}x3 for {len(names)} labels, got {tuple(counts.shape)}")
    result: dict[str, float | None] = {}
    for name, (true, predicted, both) in zip(names, counts.tolist(), strict=True):
        union = true + predicted - both
        result[name] = both / union if union else None
    return result
