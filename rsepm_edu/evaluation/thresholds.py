"""Scoring a seed at every background threshold in one pass over the pixels.

A seed holds class scores without a background. To score it, a constant background score θ is put
beside the K class scores and the arg-max taken (methods of Ahn & Kwak, CVPR 2018, and all that
follow it):

    prediction(θ) = c* if s* > θ else background,   s* = max_c seed_c,   c* = arg max_c seed_c;

ties go to the background, as an arg-max with the background in front decides them. So only c* and
s* of a pixel matter, and of s* only between which two thresholds it lies. One joint count of
(truth, c*, number of thresholds below s*) therefore holds the confusion matrices at all thresholds:
a cumulative sum brings them out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rsepm_edu.evaluation.metrics import Scores, check_num_labels, count_by_truth, scores

THRESHOLDS: tuple[float, ...] = (0.01, 0.02, 0.03, *(round(0.05 * step, 2) for step in range(1, 17)))
"""0.05, 0.10, ..., 0.80, the thresholds the papers sweep, and three below, for maps with a narrow peak: the best of a
sweep that ends too early is no oracle."""

# Interpolation and sums of rounded numbers overshoot 1 a little; a raw map goes far beyond.
_TOLERANCE = 1e-3


class ThresholdSweep:
    """The confusion matrices of a set of seeds at every threshold::

        sweep = ThresholdSweep(num_classes=20)
        for seed, mask in ...:
            sweep.update(seed, mask)
        threshold, result = sweep.best(VOC_CLASSES)   # an ORACLE: see there
        result = sweep.at(0.25, VOC_CLASSES)          # a threshold fixed beforehand: no oracle

    Args:
        num_classes: number of foreground classes K.
        thresholds: increasing background scores in [0, 1).

    Raises:
        ValueError: thresholds that are empty, not increasing or outside [0, 1).
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float] = THRESHOLDS) -> None:
        check_num_labels(num_classes + 1)
        self.num_classes = num_classes
        self.thresholds = checked_thresholds(thresholds)
        self._counts = torch.zeros(num_classes + 1, num_classes, len(self.thresholds) + 1, dtype=torch.int64)

    def update(self, seed: Tensor, target: Tensor, classes: Tensor | None = None) -> None:
        """Add a batch: `seed` B×K×H×W in [0, 1] at the size of the masks `target` B×H×W.

        Classes an image has no tag for must be 0 in its seed. With `classes`, P int64 numbers from 0, the seed has
        these classes alone, B×P×H×W, and the others are 0. A call that raises adds nothing.

        Raises:
            TypeError: a seed that is not floating, a target that is not integer.
            ValueError: shapes that do not fit, scores outside [0, 1] or not a number, or a target
                label that is neither in 0 ... K nor VOID.
        """
        expected = self.num_classes if classes is None else len(classes)
        if seed.ndim == 4 and seed.shape[1] != expected:
            raise ValueError(f"expected a seed of {expected} classes, got {tuple(seed.shape)}")
        counts = _joint_counts(seed, target, self.thresholds, self.num_classes, classes)
        self._counts += counts.cpu()

    def merge(self, other: "ThresholdSweep") -> None:
        """Add what another sweep over the same thresholds has counted, on other pictures."""
        self._counts += other._counts

    @property
    def confusions(self) -> Tensor:
        """int64 T×L×L: one confusion matrix a threshold (rows truth, columns prediction)."""
        return _confusions(self._counts)

    def scores(self, names: Sequence[str], *, classes: Sequence[str] | None = None) -> list[Scores]:
        """One `Scores` a threshold, in the order of `thresholds` (see `metrics.scores`)."""
        return [scores(confusion, names, classes=classes) for confusion in self.confusions]

    def at(self, threshold: float, names: Sequence[str], *, classes: Sequence[str] | None = None) -> Scores:
        """The scores at one threshold of the sweep; no oracle if it was chosen without masks."""
        if threshold not in self.thresholds:
            raise ValueError(f"threshold: expected one of {self.thresholds}, got {threshold}")
        confusion = self.confusions[self.thresholds.index(threshold)]
        return scores(confusion, names, classes=classes)

    def best(self, names: Sequence[str], *, classes: Sequence[str] | None = None) -> tuple[float, Scores]:
        """ORACLE: the threshold of the highest mIoU and the scores there.

        The ground truth picks the threshold, so the result is what the seed could reach, not what
        a method without masks would. Report it as "oracle θ". Equals go to the lowest threshold.
        """
        by_threshold = self.scores(names, classes=classes)
        chosen = max(range(len(by_threshold)), key=lambda index: by_threshold[index].miou)
        return self.thresholds[chosen], by_threshold[chosen]


def sweep(seed: Tensor, target: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> Tensor:
    """Confusion matrices of one batch at all thresholds: `ThresholdSweep` without the state.

    Args:
        seed: B×K×H×W, scores in [0, 1] at the size of the masks.
        target: integer B×H×W, labels 0 ... K or VOID.

    Returns:
        int64 T×(K+1)×(K+1), rows truth, columns prediction.
    """
    return _confusions(_joint_counts(seed, target, checked_thresholds(thresholds), seed.shape[1]))


def labels_at(seed: Tensor, threshold: float) -> Tensor:
    """The label map of a seed at one threshold: c* where s* > θ, else 0 (formula above).

    Args:
        seed: B×K×H×W, scores in [0, 1].

    Returns:
        int64 B×H×W, 0 background, 1 ... K classes.
    """
    best, winner = _best(seed)
    limit = torch.tensor(threshold, dtype=seed.dtype, device=seed.device)
    return torch.where(best > limit, winner + 1, 0)


def levels(seed: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> Tensor:
    """The masks of a seed at every threshold in one map: how many thresholds lie below s*.

    A pixel of level n is foreground at the n lowest thresholds, background at all others.

    Args:
        seed: B×K×H×W, scores in [0, 1].

    Returns:
        int64 B×H×W, 0 ... T.
    """
    best, _ = _best(seed)
    return _passed(best, checked_thresholds(thresholds))


def _passed(best: Tensor, thresholds: tuple[float, ...]) -> Tensor:
    # Both sides of every comparison in the seed's own type, as `seed > θ` would have them: a score
    # that equals a threshold must not pass it. `right=False` counts the thresholds strictly below.
    return torch.bucketize(best, torch.tensor(thresholds, dtype=best.dtype, device=best.device), right=False)


def _joint_counts(
    seed: Tensor, target: Tensor, thresholds: tuple[float, ...], num_classes: int, classes: Tensor | None = None
) -> Tensor:
    """Pixels by truth, best class and number of thresholds below its score: L×K×(T+1)."""
    best, winner = _best(seed)
    winner = winner if classes is None else classes[winner]
    if target.shape != best.shape:
        raise ValueError(f"expected target {tuple(best.shape)} for seed {tuple(seed.shape)}, got {tuple(target.shape)}")
    num_bins = len(thresholds) + 1
    counts = count_by_truth(
        target,
        winner * num_bins + _passed(best, thresholds),
        num_labels=num_classes + 1,
        num_codes=num_classes * num_bins,
    )
    return counts.reshape(num_classes + 1, num_classes, num_bins)


def _confusions(counts: Tensor) -> Tensor:
    """T×L×L from L×K×(T+1): at threshold t a pixel keeps its class if it passed more than t."""
    kept = counts.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    background = counts.sum(dim=(1, 2))[:, None, None] - kept.sum(dim=1, keepdim=True)
    return torch.cat([background, kept], dim=1).permute(2, 0, 1).contiguous()


def _best(seed: Tensor) -> tuple[Tensor, Tensor]:
    """Highest score and its class index (from 0) of every pixel, each B×H×W."""
    if seed.ndim != 4 or seed.numel() == 0:
        raise ValueError(f"expected a seed BxKxHxW, got {tuple(seed.shape)}")
    if not seed.is_floating_point():
        raise TypeError(f"expected a floating seed, got {seed.dtype}")
    num_classes = seed.shape[1]
    check_num_labels(num_classes + 1)  # so that a class fits a byte below
    best = seed.amax(dim=1, keepdim=True)
    low, high = (float(end) for end in torch.aminmax(best))
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # NaN fails both
        raise ValueError(f"expected seed scores in [0, 1], got {low:g} ... {high:g}")
    # The first class that reaches the maximum, as arg-max has it. On a CPU this takes half the time
    # of `seed.max(dim=1)`: maxima without indices run on vector units, and bytes are small.
    from_last = torch.arange(num_classes, 0, -1, dtype=torch.uint8, device=seed.device)
    winner = num_classes - ((seed == best) * from_last[:, None, None]).amax(dim=1).long()
    return best.squeeze(1), winner


def checked_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """The thresholds as a tuple; ValueError unless there are some, increasing, in [0, 1)."""
    values = tuple(float(threshold) for threshold in thresholds)
    increasing = all(low < high for low, high in zip(values, values[1:], strict=False))
    if not values or not increasing or not (values[0] >= 0 and values[-1] < 1):
        raise ValueError(f"thresholds: expected increasing numbers in [0, 1), got {values}")
    return values
