import math

import pytest
import torch

from rsepm_edu.evaluation.maskfree import COARSE, COLOURS, ClassifierSight, ColourInformation, Otsu, Stability
from rsepm_edu.evaluation.thresholds import THRESHOLDS, labels_at

FEW = (0.0, 0.25, 0.5, 0.75)


def scores(*, batch=2, classes=3, size=(6, 7), seed=0):
    """Scores in hundredths, so that many equal a threshold."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 101, (batch, classes, *size), generator=generator) / 100


def pictures(*, batch=2, size=(6, 7), seed=1, kinds=3):
    """Pictures of a few colours each, so that pixels share bins."""
    generator = torch.Generator().manual_seed(seed)
    palette = torch.randint(0, 256, (kinds, 3), generator=generator, dtype=torch.uint8)
    return palette[torch.randint(0, kinds, (batch, *size), generator=generator)].permute(0, 3, 1, 2)


def masks_of(seed, threshold):
    """The foreground of every picture as nested lists."""
    return (labels_at(seed, threshold) > 0).tolist()


# --- colour


def naive_information(mask, picture):
    """Mutual information in bits by its definition, pixel by pixel."""
    height, width = len(mask), len(mask[0])
    pairs, colours, sides = {}, {}, {}
    for y in range(height):
        for x in range(width):
            colour = tuple(int(picture[c, y, x]) * COLOURS // 256 for c in range(3))
            for table, key in ((pairs, (colour, mask[y][x])), (colours, colour), (sides, mask[y][x])):
                table[key] = table.get(key, 0) + 1 / (height * width)
    return sum(p * math.log2(p / (colours[c] * sides[f])) for (c, f), p in pairs.items())


@pytest.mark.parametrize("thresholds", [THRESHOLDS, FEW])
def test_colour_information_is_the_definition(thresholds):
    seed, images = scores(), pictures()
    criterion = ColourInformation(thresholds)
    criterion.update(seed, images)
    expected = [
        sum(naive_information(mask, image) for mask, image in zip(masks_of(seed, t), images, strict=True)) / 2
        for t in thresholds
    ]
    assert criterion.curve.tolist() == pytest.approx(expected, abs=1e-9)
    assert max(expected) > 0.01


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colour_information_of_half_a_picture_of_its_own_colour_is_one_bit(channel):
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    images[:, channel, :, :2] = 200
    seed = torch.full((1, 1, 4, 4), 0.3)
    seed[..., :2] = 0.6
    criterion = ColourInformation()
    criterion.update(seed, images)
    # everything up to 0.25, the object from 0.30 to 0.55, nothing from 0.60 on
    assert criterion.curve.tolist() == pytest.approx([0] * 8 + [1] * 6 + [0] * 5, abs=1e-12)
    assert criterion.best() == (0.30, pytest.approx(1))  # the lowest of equal ones


def test_colour_information_is_nothing_where_colours_say_nothing():
    criterion = ColourInformation()
    criterion.update(scores(), torch.full((2, 3, 6, 7), 90, dtype=torch.uint8))
    assert criterion.curve.tolist() == pytest.approx([0] * len(THRESHOLDS), abs=1e-12)


def test_colour_information_takes_bytes_of_the_seeds_size():
    criterion = ColourInformation()
    with pytest.raises(TypeError, match="images: expected uint8, got torch.float32"):
        criterion.update(scores(), pictures().float())
    with pytest.raises(ValueError, match=r"images: expected Bx3xHxW of the seed \(2, 3, 6, 7\), got \(1, 3, 6, 7\)"):
        criterion.update(scores(), pictures(batch=1))


# --- stability


def naive_kappa(first, second):
    """Cohen's kappa from the four counts of a two by two table."""
    pairs = [pair for rows in zip(first, second, strict=True) for pair in zip(*rows, strict=True)]
    count = {(a, b): pairs.count((a, b)) for a in (False, True) for b in (False, True)}
    total = len(pairs)
    one, other = count[True, True] + count[True, False], count[True, True] + count[False, True]
    chance = (one * other + (total - one) * (total - other)) / total**2
    agreed = (count[True, True] + count[False, False]) / total
    return 0 if chance == 1 else (agreed - chance) / (1 - chance)


@pytest.mark.parametrize("thresholds", [THRESHOLDS, FEW])
def test_stability_is_cohens_kappa(thresholds):
    first, second = scores(classes=1), (scores(classes=1) + scores(classes=1, seed=3)) / 2
    criterion = Stability(thresholds)
    criterion.update(first, second)
    expected = [sum(map(naive_kappa, masks_of(first, t), masks_of(second, t))) / len(first) for t in thresholds]
    assert criterion.curve.tolist() == pytest.approx(expected, abs=1e-6)


def test_stability_gives_nothing_for_all_or_none_and_one_for_the_same_mask():
    seed = torch.full((1, 1, 2, 4), 0.3)
    seed[..., :2] = 0.6
    criterion = Stability()
    criterion.update(seed, seed)
    assert criterion.curve.tolist() == pytest.approx([0] * 8 + [1] * 6 + [0] * 5, abs=1e-9)


def test_stability_of_opposite_masks_is_minus_one():
    seed = torch.tensor([0.9, 0.0]).expand(1, 1, 3, 2)
    criterion = Stability()
    criterion.update(seed, seed.flip(-1))
    assert criterion.curve.tolist() == pytest.approx([-1] * len(THRESHOLDS))


def test_stability_wants_two_seeds_of_one_shape():
    with pytest.raises(ValueError, match=r"two seeds of one shape, got \(2, 3, 6, 7\) and \(1, 3, 6, 7\)"):
        Stability().update(scores(), scores(batch=1))


# --- classifier


def classify(images):
    """Probabilities of three classes: the mean of each colour, an answer that can be worked out by hand."""
    return images.mean(dim=(2, 3))


def test_classifier_sight_is_the_definition():
    seed, images = scores(), torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(2))
    tags = torch.tensor([[1, 0, 1], [0, 1, 0]])
    criterion = ClassifierSight(FEW)
    criterion.update(seed, images, tags, classify)
    expected = []
    for threshold in FEW:
        total = 0.0
        for b, k in ((0, 0), (0, 2), (1, 1)):
            keep = labels_at(seed[b : b + 1], threshold)[0] == k + 1
            inside, outside = images[b].clone(), images[b].clone()
            for c in range(3):
                inside[c][~keep] = images[b, c].mean()
                outside[c][keep] = images[b, c].mean()
            total += float(inside[k].mean() - outside[k].mean() - keep.float().mean())
        expected.append(total / 3)
    assert criterion.curve.tolist() == pytest.approx(expected, abs=1e-6)


def test_classifier_sight_finds_the_object_the_classifier_knows():
    images = torch.zeros(1, 3, 4, 8)
    images[:, 0, :, :2] = 1  # the object: red
    seed = torch.zeros(1, 3, 4, 8)
    seed[:, 0, :, :1], seed[:, 0, :, 1:2], seed[:, 0, :, 2:4] = 0.9, 0.6, 0.35

    def sees_red(views):
        return (4 * views.sub(0.5).relu().mean(dim=(2, 3))).clamp(max=1)

    criterion = ClassifierSight()
    criterion.update(seed, images, torch.tensor([[1, 0, 0]]), sees_red)
    assert criterion.thresholds == COARSE
    assert criterion.best()[0] == 0.40


def test_classifier_sight_leaves_out_pictures_without_tags():
    seed, images = scores(), torch.rand(2, 3, 6, 7)
    tags = torch.tensor([[1, 0, 0], [0, 0, 0]])
    both, one = ClassifierSight(FEW), ClassifierSight(FEW)
    both.update(seed, images, tags, classify)
    one.update(seed[:1], images[:1], tags[:1], classify)
    assert both.curve.tolist() == pytest.approx(one.curve.tolist(), abs=1e-6)
    none = ClassifierSight(FEW)
    none.update(seed[1:], images[1:], tags[1:], classify)
    assert none.curve.tolist() == [0] * 4


def test_classifier_sight_names_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"tags: expected BxK"):
        ClassifierSight().update(scores(), torch.rand(2, 3, 6, 7), torch.ones(2, 2), classify)
    with pytest.raises(ValueError, match=r"images: expected B and HxW of the seed"):
        ClassifierSight().update(scores(), torch.rand(2, 3, 7, 6), torch.ones(2, 3), classify)


# --- Otsu


@pytest.mark.parametrize("thresholds", [THRESHOLDS, FEW])
def test_otsu_is_the_share_of_variance_between_the_sides(thresholds):
    parts = [scores(seed=1), scores(seed=2, size=(3, 5)) ** 3]
    criterion = Otsu(thresholds)
    for part in parts:
        criterion.update(part)
    pooled = torch.cat([part.amax(dim=1).flatten() for part in parts])
    mean, expected = pooled.double().mean(), []
    for threshold in thresholds:
        sides = [side.double() for side in (pooled[pooled > threshold], pooled[pooled <= threshold])]
        between = sum(len(side) * float(side.mean() - mean) ** 2 for side in sides if len(side)) / len(pooled)
        expected.append(between / float(pooled.double().var(correction=0)))
    assert criterion.curve.tolist() == pytest.approx(expected, abs=1e-9)


def test_otsu_says_nothing_where_all_scores_are_equal():
    criterion = Otsu()
    assert criterion.curve.tolist() == [0] * len(THRESHOLDS)
    criterion.update(torch.full((1, 1, 2, 2), 0.5))
    assert criterion.curve.tolist() == [0] * len(THRESHOLDS)


# --- all


@pytest.mark.parametrize("kind", [ColourInformation, Stability, ClassifierSight, Otsu])
def test_thresholds_are_checked(kind):
    with pytest.raises(ValueError, match="thresholds: expected increasing numbers"):
        kind((0.5, 0.2))


def test_a_criterion_is_the_mean_over_pictures_however_they_come():
    seed, images = scores(batch=3), pictures(batch=3)
    together, alone = ColourInformation(), ColourInformation()
    together.update(seed, images)
    for part in range(3):
        alone.update(seed[part : part + 1], images[part : part + 1])
    assert alone.curve.tolist() == pytest.approx(together.curve.tolist(), abs=1e-12)
