"""Choosing a background threshold without masks: what pictures, tags and maps alone say about it.

A criterion gives a number for every threshold θ of a seed, summed up over a set of pictures; the θ of the highest is
chosen. None of them ever sees a mask, so a score measured with masks at that θ is no oracle. The same number at the
chosen θ ranks checkpoints (``choosing.rank_checkpoints``).

    ColourInformation   how much the colour of a pixel tells about its being foreground
    Stability           do two views of a picture give the same mask?
    ClassifierSight     does the classifier see the class in what the mask keeps, and not in what it leaves?
    Otsu                how far apart are the scores on the two sides of θ?

All look at the foreground as one, as it is where s*, the highest score of a pixel, is above θ (see ``thresholds``);
only ClassifierSight takes the classes one by one. All are our own reading: the papers sweep θ on masks. What each loses
against the oracle's θ was measured on Creatures and on photographs: results/choices. ColourInformation is the default;
the other three each went wrong by more than 10 points of mIoU on one map at least.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from rsepm_edu.evaluation.thresholds import THRESHOLDS, checked_thresholds, labels_at, levels
from rsepm_edu.methods.shapes import expect_maps, expect_tags

COARSE: tuple[float, ...] = tuple(round(0.1 * step, 1) for step in range(1, 9))
"""0.10, 0.20, ..., 0.80: for the criterion that asks the network anew at each of them."""

COLOURS = 8
"""Bins per colour channel: 512 colours."""


class Criterion:
    """A mean over pictures of a number per threshold; the higher the better.

    Args:
        thresholds: increasing background scores in [0, 1).

    Raises:
        ValueError: thresholds that are empty, not increasing or outside [0, 1).
    """

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS) -> None:
        self.thresholds = checked_thresholds(thresholds)
        self._total = torch.zeros(len(self.thresholds), dtype=torch.float64)
        self._count = 0

    def _add(self, values: Tensor) -> None:
        """Add values N×T of N pictures (or objects)."""
        self._total += values.sum(dim=0).double().cpu()
        self._count += len(values)

    def merge(self, other: Self) -> None:
        """Add what another of the kind has seen of other pictures."""
        self._total += other._total
        self._count += other._count

    @property
    def curve(self) -> Tensor:
        """float64 T: the mean at each threshold; zeros before the first picture."""
        return self._total / max(1, self._count)

    def best(self) -> tuple[float, float]:
        """The chosen threshold and the criterion there. Equals go to the lowest threshold, as in the oracle's sweep."""
        curve = self.curve
        index = int(curve.argmax())
        return self.thresholds[index], float(curve[index])


class ColourInformation(Criterion):
    """How much the colour of a pixel tells about its being foreground: mutual information, in bits.

        I(θ) = Σ_{c, f} p(c, f) log2 [ p(c, f) / (p(c) p(f)) ],   f = [s* > θ],   c = colour in 8×8×8 bins,

    in each picture, then the mean over pictures. In [0, 1]: 0 for a mask that holds everything or nothing, up to 1 for
    half a picture whose colours are all its own. So trivial masks need no extra guard.

    Cost: one histogram a picture for all thresholds, no pass of the network.

    Assumes that an object and its surroundings differ in colour. Fails where they do not, and where the seed's edge is
    not the object's: a seed that covers a coloured part alone, or the class's usual ground too, is praised for it. A
    larger mask is worth more bits, which favours a low θ where colours say little: its θ was below the oracle's in six
    of eight measured maps, above it in none.
    """

    def update(self, seed: Tensor, images: Tensor) -> None:
        """Add a batch: seeds B×K×H×W in [0, 1] and their pictures, uint8 B×3×H×W.

        Raises:
            TypeError: pictures that are not uint8.
            ValueError: shapes that do not go together, or what ``thresholds.levels`` rejects.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"images: expected uint8, got {images.dtype}")
        passed = levels(seed, self.thresholds)
        if images.ndim != 4 or images.shape[1] != 3 or passed.shape != (len(images), *images.shape[2:]):
            raise ValueError(f"images: expected Bx3xHxW of the seed {tuple(seed.shape)}, got {tuple(images.shape)}")
        red, green, blue = (images.long() * COLOURS // 256).unbind(1)
        counts = _histograms((red * COLOURS + green) * COLOURS + blue, passed, COLOURS**3, len(self.thresholds) + 1)
        # Counts are whole numbers, so that what is empty stays exactly 0 until the division.
        colours = counts.sum(dim=2, keepdim=True)
        foreground = _above(counts, dim=2)
        joint = torch.cat([foreground, colours - foreground], dim=1)
        held = foreground.sum(dim=1)
        pixels = passed[0].numel()
        sides = torch.stack([held, pixels - held], dim=1)
        information = _entropy(sides / pixels) + _entropy(colours / pixels) - _entropy(joint / pixels)
        self._add(information.clamp(min=0))  # rounding


class Stability(Criterion):
    """Do two views of a picture, at another scale and mirrored, give the same mask? Cohen's κ, chance taken out.

        κ(θ) = (p_o - p_e) / (1 - p_e),   p_o = share of pixels on which both masks agree,
                                          p_e = the same for masks of these sizes laid at random,

    in each picture, then the mean over pictures. In [-1, 1]; 0 for masks that agree by chance only, and, as a guard,
    where both hold everything or both hold nothing: the plain IoU of two views rises to 1 at θ = 0.

    Cost: two more views of each picture and all that refines their maps, for all thresholds together.

    Assumes that what is wrong in a mask changes with the view and what is right does not. Fails where both views make
    the same mistake (context that goes with the class; a refinement that spreads both in the same way), and at
    plateaus: a mask can be stable at the wrong place. It was: after PAMR the certain middle of an object is as stable
    as the whole (36 points lost on Creatures), and a CAM on photographs was most stable when it was far too large.
    """

    def update(self, first: Tensor, second: Tensor) -> None:
        """Add a batch: the seeds of both views, B×K×H×W in [0, 1], the second turned back and resized to the first.

        Raises:
            ValueError: two shapes, or what ``thresholds.levels`` rejects.
        """
        if first.shape != second.shape:
            raise ValueError(f"expected two seeds of one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
        size = len(self.thresholds) + 1
        passed = levels(first, self.thresholds)
        counts = _histograms(passed, levels(second, self.thresholds), size, size)
        pixels = passed[0].numel()
        both = _above(_above(counts, dim=1), dim=2).diagonal(dim1=1, dim2=2) / pixels
        one, other = _above(counts.sum(dim=2), dim=1) / pixels, _above(counts.sum(dim=1), dim=1) / pixels
        agreed = 1 - one - other + 2 * both
        chance = one * other + (1 - one) * (1 - other)
        trivial = chance == 1
        self._add(torch.where(trivial, 0, (agreed - chance) / torch.where(trivial, 1, 1 - chance)))


class ClassifierSight(Criterion):
    """Does the classifier see the class in what the mask keeps, and no longer in what it leaves?

        S(θ) = p_k(picture with all but the mask painted over) - p_k(picture with the mask painted over) - area(θ),

    for every tag k of every picture, mask and area those of class k, painted with the picture's mean colour; then the
    mean over tags. In [-2, 1]. The area (share of the picture) is the cost that keeps the mask from growing without
    need.

    Cost: two passes of the network for each θ and tag, so a coarse grid of θ.

    Assumes that the classifier knows the whole object. It does not: it is content with the most telling part (that is
    why CAMs are too small), and painted pictures are unlike those it has learnt from. On Creatures it found the
    oracle's θ for two maps and lost 5 and 16 points on the others.
    """

    def __init__(self, thresholds: Sequence[float] = COARSE) -> None:
        super().__init__(thresholds)

    def update(self, seed: Tensor, images: Tensor, tags: Tensor, classify: Callable[[Tensor], Tensor]) -> None:
        """Add a batch.

        Args:
            seed: B×K×H×W in [0, 1].
            images: B×3×H×W, as the classifier takes them.
            tags: B×K in {0, 1}; pictures without any are left out.
            classify: N×3×H×W pictures to N×K probabilities.

        Raises:
            ValueError: shapes that do not go together.
        """
        expect_maps(seed=seed, images=images)
        expect_tags(tags, seed)
        if images.shape[0] != seed.shape[0] or images.shape[2:] != seed.shape[2:]:
            raise ValueError(f"images: expected B and HxW of the seed {tuple(seed.shape)}, got {tuple(images.shape)}")
        picture, label = tags.nonzero(as_tuple=True)
        if len(picture) == 0:
            return
        labels = torch.stack([labels_at(seed, threshold) for threshold in self.thresholds])
        masks = labels[:, picture] == (label + 1)[:, None, None]  # T×P×H×W for P pairs of picture and tag
        plain, paint = images[picture], images.mean(dim=(2, 3), keepdim=True)[picture]
        kept = torch.where(masks[:, :, None], plain, paint)
        left = torch.where(masks[:, :, None], paint, plain)
        probabilities = classify(torch.cat([kept, left]).flatten(0, 1))
        seen, rest = probabilities.unflatten(0, (2, len(self.thresholds), len(label)))[..., range(len(label)), label]
        self._add((seen - rest - masks.float().mean(dim=(2, 3))).T)


class Otsu(Criterion):
    """How far apart are the scores on the two sides of θ (Otsu 1979)? The baseline that needs scores alone.

        η(θ) = w0 w1 (μ1 - μ0)² / σ²,   w shares, μ means of the scores s* at most θ and above it, σ² their variance,

    over the pixels of all pictures together. In [0, 1]; 0 where one side is empty.

    Cost: nothing. Assumes that the scores of objects and of background make two heaps of like width. Fails where the
    heaps overlap or one of them is small: it then cuts in the middle of the larger. It stays near 0.45 whatever the
    map, which was good for most on photographs, and cost 18 points for a map whose objects lie low (CAM + PAMR on
    Creatures).
    """

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS) -> None:
        super().__init__(thresholds)
        self._counts, self._sums = (torch.zeros(len(self.thresholds) + 1, dtype=torch.float64) for _ in range(2))
        self._squares = 0.0

    def update(self, seed: Tensor) -> None:
        """Add a batch of seeds, B×K×H×W in [0, 1]."""
        passed = levels(seed, self.thresholds).flatten()
        best = seed.amax(dim=1).flatten().double()
        size = len(self.thresholds) + 1
        self._counts += torch.bincount(passed, minlength=size).cpu()
        self._sums += torch.bincount(passed, weights=best, minlength=size).cpu()
        self._squares += float(best.square().sum())

    def merge(self, other: Self) -> None:
        self._counts += other._counts
        self._sums += other._sums
        self._squares += other._squares

    @property
    def curve(self) -> Tensor:
        """float64 T: η at each threshold."""
        count, total = self._counts.sum().clamp(min=1), self._sums.sum()
        variance = self._squares / count - (total / count).square()
        above, sum_above = _above(self._counts, dim=0), _above(self._sums, dim=0)
        # w0 w1 (μ1 - μ0)² without a division by an empty side: (S1 - w1 S)² / (w0 w1), S in parts of the whole
        share, mass = above / count, sum_above / count
        gap = (mass - share * total / count).square()
        product = share * (1 - share)
        usable = (product > 0) & (variance > 0)
        return torch.where(usable, gap / torch.where(usable, product * variance, 1), 0)


def _histograms(first: Tensor, second: Tensor, size: int, other: int) -> Tensor:
    """Joint counts B×size×other of two integer maps B×H×W, in float64."""
    batch = torch.arange(len(first), device=first.device)[:, None, None]
    codes = (batch * size + first) * other + second
    counts = torch.bincount(codes.flatten(), minlength=len(first) * size * other)
    return counts.reshape(len(first), size, other).double()


def _above(counts: Tensor, dim: int) -> Tensor:
    """Counts by level (T+1 of them) to counts of the levels above each of the T thresholds, along ``dim``."""
    total = counts.flip(dim).cumsum(dim).flip(dim)
    return total.narrow(dim, 1, counts.shape[dim] - 1)


def _entropy(shares: Tensor) -> Tensor:
    """Entropy over dimension 1 in bits."""
    return -torch.special.xlogy(shares, shares).sum(dim=1) / math.log(2)
