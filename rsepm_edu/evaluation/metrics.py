"""How good a segmentation is: one integer confusion matrix over a whole set, divided once.

For class c with T true pixels, P predicted pixels and TP of them right, over all pixels that are
not void:

    U = T + P - TP,   IoU = TP / U,   FP = (P - TP) / U,   FN = (T - TP) / U,   IoU + FP + FN = 1.

IoU is PASCAL VOC's measure (Everingham et al., IJCV 2010); FP and FN are the two ways of losing it
as RecurSeed's tables report them (Jo, Yu & Kim 2022): a map that is too large has a high FP, one
that is too small a high FN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsepm_edu.errors import UserError
from rsepm_edu.labels import VOID

BACKGROUND_NAME = "background"


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says. Every number is a fraction in [0, 1], nothing is in percent.

    `miou` is the mean over the classes that occur, background among them; `fp` and `fn` are means
    over the foreground classes that occur (NaN where none does). The three dictionaries hold the
    same by class name, background first; None marks a class that neither truth nor prediction has.
    """

    miou: float
    fp: float
    fn: float
    iou: dict[str, float | None]
    class_fp: dict[str, float | None]
    class_fn: dict[str, float | None]


def confusion_matrix(prediction: Tensor, target: Tensor, num_labels: int) -> Tensor:
    """Count pixels by (truth, prediction): entry [t, p] is how many pixels of label t became p.

    Args:
        prediction: integer labels in 0 ... num_labels - 1, any shape (H×W, B×H×W), any device.
        target: integer labels of the same shape; VOID (255) pixels are left out.
        num_labels: number of labels L, background included (K + 1).

    Returns:
        int64 L×L on the device of `prediction`; matrices of several batches may simply be added.

    Raises:
        TypeError: labels that are not integers.
        ValueError: two shapes, or a label outside 0 ... L - 1 (in `target` other than VOID).
    """
    check_num_labels(num_labels)
    check_integer("prediction", prediction)
    if prediction.shape != target.shape:
        raise ValueError(
            f"expected prediction and target of one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    # Checked everywhere, under void too: a stray 255 in a prediction is a mistake to hear about.
    if prediction.numel():
        low, high = (int(end) for end in torch.aminmax(prediction))
        if low < 0 or high >= num_labels:
            raise ValueError(
                f"prediction: expected labels 0 ... {num_labels - 1}, got label {low if low < 0 else high}"
            )
    return count_by_truth(target, prediction, num_labels=num_labels, num_codes=num_labels)


def count_by_truth(target: Tensor, codes: Tensor, *, num_labels: int, num_codes: int) -> Tensor:
    """Count pixels by (truth, code) for any code 0 ... num_codes - 1 that pixels may carry.

    Args:
        target: integer labels, 0 ... num_labels - 1 or VOID; VOID pixels are left out.
        codes: integers of the same shape, already known to be in range.

    Returns:
        int64, num_labels x num_codes.

    Raises:
        TypeError: labels that are not integers.
        ValueError: a target label that is neither in range nor VOID.
    """
    check_integer("target", target)
    check_num_labels(num_labels)
    expected = f"target: expected labels 0 ... {num_labels - 1} or {VOID} (void)"
    if target.dtype != torch.uint8 and target.numel():
        low, high = (int(end) for end in torch.aminmax(target))
        if low < 0 or high > VOID:
            raise ValueError(f"{expected}, got label {low if low < 0 else high}")
    # A row for every label a byte can hold: void and wrong labels are then found among a few
    # thousand counts, not among the pixels.
    joint = target.long() * num_codes + codes.long()
    counts = torch.bincount(joint.flatten(), minlength=(VOID + 1) * num_codes)
    counts = counts.reshape(VOID + 1, num_codes)
    outside = counts[num_labels:VOID].sum(dim=1)
    if bool(outside.any()):
        raise ValueError(f"{expected}, got label {num_labels + int(outside.nonzero()[0, 0])}")
    return counts[:num_labels]


def check_integer(name: str, labels: Tensor) -> None:
    """Raise TypeError unless `labels` holds integers (a bool mask is no label map)."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name}: expected integer labels, got {labels.dtype}")


def check_num_labels(num_labels: int) -> None:
    """Raise ValueError unless labels 0 ... num_labels - 1 stay clear of VOID."""
    if not 1 <= num_labels <= VOID:
        raise ValueError(f"num_labels: expected 1 ... {VOID}, got {num_labels}")


def scores(confusion: Tensor, names: Sequence[str], *, classes: Sequence[str] | None = None) -> Scores:
    """IoU, FP and FN of every class and their means, from a confusion matrix (formulas above).

    Classes with U = 0 have no value and are left out of every mean; they never count as 1.

    Args:
        confusion: integer (K+1)×(K+1), rows truth, columns prediction, label 0 background.
        names: the K foreground classes in label order (background is not among them).
        classes: restricts the means to these foreground classes; background always stays in the
            mean of IoU. The pixels of other classes still count: as errors of the chosen ones.

    Raises:
        TypeError: a confusion matrix that is not integer.
        ValueError: wrong shape, negative counts, repeated names, no pixel at all.
        UserError: `classes` empty, repeated, or naming an unknown class.
    """
    names = tuple(names)
    if len(set(names)) != len(names) or BACKGROUND_NAME in names:
        raise ValueError(f"names: expected different foreground classes without {BACKGROUND_NAME!r}, got {names}")
    labels = len(names) + 1
    if tuple(confusion.shape) != (labels, labels):
        raise ValueError(
            f"confusion: expected {labels}x{labels} for {len(names)} foreground classes, got {tuple(confusion.shape)}"
        )
    check_integer("confusion", confusion)
    counts = confusion.cpu().long()
    if bool((counts < 0).any()):
        raise ValueError(f"confusion: expected counts, got {int(counts.min())}")
    if int(counts.sum()) == 0:
        raise ValueError("confusion: expected at least one pixel that is not void, got none")

    iou: dict[str, float | None] = {}
    class_fp: dict[str, float | None] = {}
    class_fn: dict[str, float | None] = {}
    for label in _chosen_labels(names, classes):
        right = int(counts[label, label])
        true, predicted = int(counts[label].sum()), int(counts[:, label].sum())
        union = true + predicted - right
        name = names[label - 1] if label else BACKGROUND_NAME
        iou[name] = right / union if union else None
        class_fp[name] = (predicted - right) / union if union else None
        class_fn[name] = (true - right) / union if union else None
    return Scores(
        miou=_mean(iou),
        fp=_mean(class_fp, foreground_only=True),
        fn=_mean(class_fn, foreground_only=True),
        iou=iou,
        class_fp=class_fp,
        class_fn=class_fn,
    )


def _chosen_labels(names: tuple[str, ...], classes: Sequence[str] | None) -> list[int]:
    """Labels to score, background first, then the chosen classes in label order."""
    if classes is None:
        return list(range(len(names) + 1))
    if isinstance(classes, str) or not classes or len(set(classes)) != len(classes):
        raise UserError(f"classes: expected a list of different class names, got {classes!r}")
    for name in classes:
        if name not in names:
            raise UserError(f"classes: expected some of {', '.join(names)}; got {name!r}")
    return [0] + [label for label, name in enumerate(names, start=1) if name in classes]


def _mean(by_class: dict[str, float | None], *, foreground_only: bool = False) -> float:
    values = [
        value
        for name, value in by_class.items()
        if value is not None and not (foreground_only and name == BACKGROUND_NAME)
    ]
    return sum(values) / len(values) if values else float("nan")
