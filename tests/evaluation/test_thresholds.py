import pytest
import torch

from rsepm_edu.evaluation.metrics import confusion_matrix
from rsepm_edu.evaluation.thresholds import THRESHOLDS, ThresholdSweep, labels_at, levels, sweep
from rsepm_edu.labels import VOID

NAMES = ("cat", "dog", "owl")


def random_case(*, batch=2, classes=3, size=(7, 9), seed=0, dtype=torch.float32):
    """Scores in hundredths, so that many equal a threshold and many equal one another."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 101, (batch, classes, *size), generator=generator).to(dtype) / 100
    scores *= torch.randint(0, 2, (batch, classes, 1, 1), generator=generator).to(dtype)
    target = torch.randint(0, classes + 1, (batch, *size), generator=generator)
    target[torch.rand(batch, *size, generator=generator) < 0.1] = VOID
    return scores, target


def naive_confusions(seed, target, thresholds):
    """Every threshold, pixel and class by itself, in Python floats (float64)."""
    limits = torch.tensor(thresholds, dtype=seed.dtype).double().tolist()
    batch, classes, height, width = seed.shape
    values, truth = seed.double().tolist(), target.tolist()
    result = []
    for limit in limits:
        table = [[0] * (classes + 1) for _ in range(classes + 1)]
        for b in range(batch):
            for y in range(height):
                for x in range(width):
                    if truth[b][y][x] == VOID:
                        continue
                    label, highest = 0, limit
                    for c in range(classes):
                        if values[b][c][y][x] > highest:
                            label, highest = c + 1, values[b][c][y][x]
                    table[truth[b][y][x]][label] += 1
        result.append(table)
    return result


def test_thresholds_are_those_of_the_papers_and_three_below():
    expected = "0.01 0.02 0.03 0.05 0.1 0.15 0.2 0.25 0.3 0.35 0.4 0.45 0.5 0.55 0.6 0.65 0.7 0.75 0.8"
    assert [str(threshold) for threshold in THRESHOLDS] == expected.split()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("thresholds", [THRESHOLDS, (0.0,), (0.0, 0.29, 0.3, 0.99)])
def test_sweep_equals_the_naive_loops(dtype, thresholds):
    seed, target = random_case(dtype=dtype)
    confusions = sweep(seed, target, thresholds)
    assert confusions.dtype == torch.int64
    assert confusions.tolist() == naive_confusions(seed, target, thresholds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_sweep_equals_arg_max_with_the_background_in_front(dtype):
    seed, target = random_case(batch=3, classes=5, size=(20, 31), seed=1, dtype=dtype)
    confusions = sweep(seed, target)
    for index, threshold in enumerate(THRESHOLDS):
        background = torch.full_like(seed[:, :1], threshold)
        prediction = torch.cat([background, seed], dim=1).argmax(dim=1)
        assert torch.equal(confusions[index], confusion_matrix(prediction, target, 6))
        assert torch.equal(labels_at(seed, threshold), prediction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_levels_hold_the_masks_of_all_thresholds(dtype):
    seed, _ = random_case(batch=3, classes=5, size=(20, 31), seed=1, dtype=dtype)
    passed = levels(seed)
    for index, threshold in enumerate(THRESHOLDS):
        assert torch.equal(passed > index, labels_at(seed, threshold) > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_score_equal_to_a_threshold_is_background(dtype):
    seed = torch.tensor(THRESHOLDS, dtype=dtype).reshape(1, 1, 1, -1)
    target = torch.ones(1, 1, len(THRESHOLDS), dtype=torch.int64)
    # of 19 scores, each at a threshold, 18, 17, ..., 0 lie strictly above
    assert sweep(seed, target)[:, 1, 1].tolist() == list(range(18, -1, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_next_number_above_a_threshold_is_kept(dtype):
    limits = torch.tensor(THRESHOLDS, dtype=dtype)
    seed = torch.nextafter(limits, torch.ones_like(limits)).reshape(1, 1, 1, -1)
    target = torch.ones(1, 1, len(THRESHOLDS), dtype=torch.int64)
    assert sweep(seed, target)[:, 1, 1].tolist() == list(range(19, 0, -1))


def test_equal_classes_go_to_the_first():
    seed = torch.tensor([0.2, 0.6, 0.6]).reshape(1, 3, 1, 1)
    assert labels_at(seed, 0.5).item() == 2
    assert sweep(seed, torch.full((1, 1, 1), 3), [0.5])[0, 3].tolist() == [0, 0, 1, 0]


def test_absent_classes_never_appear_even_at_threshold_zero():
    assert labels_at(torch.zeros(1, 3, 2, 2), 0.0).tolist() == [[[0, 0], [0, 0]]]


def test_updates_add_up_over_pictures_of_different_sizes():
    cases = [random_case(batch=1, size=size, seed=index) for index, size in enumerate([(5, 4), (3, 8)])]
    total = ThresholdSweep(3)
    for seed, target in cases:
        total.update(seed, target.to(torch.uint8))
    assert torch.equal(total.confusions, sum(sweep(seed, target) for seed, target in cases))
    counted = sum(int((target != VOID).sum()) for _, target in cases)
    assert total.confusions.sum(dim=(1, 2)).tolist() == [counted] * len(THRESHOLDS)


def test_best_is_the_highest_miou_and_at_gives_any():
    # cat fills the left half with 0.6, noise of 0.3 the right half: best from 0.30 to 0.55
    seed = torch.tensor([0.6, 0.6, 0.3, 0.3]).expand(1, 1, 2, 4)
    target = torch.tensor([1, 1, 0, 0]).expand(1, 2, 4)
    result = ThresholdSweep(1)
    result.update(seed, target)
    threshold, best = result.best(["cat"])
    assert threshold == 0.30  # the lowest of the equal ones
    assert (best.miou, best.fp, best.fn) == (1, 0, 0)
    low = result.at(0.25, ["cat"])
    assert (low.miou, low.fp, low.fn) == (0.25, 0.5, 0)
    high = result.at(0.6, ["cat"])
    assert (high.miou, high.fp, high.fn) == (0.25, 0, 1)
    assert [s.miou for s in result.scores(["cat"])] == [0.25] * 8 + [1] * 6 + [0.25] * 5


def test_best_depends_on_the_classes_scored():
    # cat is best kept at 0.2, dog has noise of 0.5 beside it
    seed = torch.zeros(1, 2, 1, 6)
    seed[0, 0, 0, :2] = 0.2
    seed[0, 1, 0, 2:4], seed[0, 1, 0, 4:] = 0.9, 0.5
    target = torch.tensor([1, 1, 2, 2, 0, 0]).reshape(1, 1, 6)
    result = ThresholdSweep(2)
    result.update(seed, target)
    assert result.best(["cat", "dog"], classes=["cat"])[0] < 0.2
    assert result.best(["cat", "dog"], classes=["dog"])[0] == 0.5


def test_a_rejected_update_adds_nothing():
    result = ThresholdSweep(3)
    seed, target = random_case()
    with pytest.raises(ValueError, match="got label 4"):
        result.update(seed, target.masked_fill(target == 3, 4))
    assert result.confusions.sum() == 0


def test_wrong_shapes_and_types_are_named():
    result = ThresholdSweep(3)
    seed, target = random_case()
    with pytest.raises(ValueError, match=r"a seed of 3 classes, got \(2, 2, 7, 9\)"):
        result.update(seed[:, :2], target)
    with pytest.raises(ValueError, match=r"target \(2, 7, 9\) for seed .*, got \(2, 7, 8\)"):
        result.update(seed, target[..., :-1])
    with pytest.raises(ValueError, match=r"a seed BxKxHxW, got \(3, 7, 9\)"):
        result.update(seed[0], target[0])
    with pytest.raises(TypeError, match="a floating seed, got torch.int64"):
        result.update(seed.long(), target)
    with pytest.raises(TypeError, match="target: expected integer labels"):
        result.update(seed, target.float())


@pytest.mark.parametrize("wrong", [1.5, float("nan"), float("inf")])
def test_a_raw_map_is_no_seed(wrong):
    seed, target = random_case()
    seed[0, 1, 2, 3] = wrong
    with pytest.raises(ValueError, match=r"seed scores in \[0, 1\], got .* ... (1.5|nan|inf)$"):
        sweep(seed, target)


def test_a_map_below_zero_everywhere_is_no_seed():
    with pytest.raises(ValueError, match=r"seed scores in \[0, 1\], got -2 ... -2"):
        labels_at(torch.full((1, 2, 3, 3), -2.0), 0.5)


def test_rounding_beyond_one_passes():
    assert labels_at(torch.full((1, 1, 1, 1), 1.000001), 0.5).item() == 1


@pytest.mark.parametrize("wrong", [(), (0.2, 0.1), (0.1, 0.1), (-0.1, 0.5), (0.5, 1.0)])
def test_wrong_thresholds_are_rejected(wrong):
    with pytest.raises(ValueError, match=r"thresholds: expected increasing numbers in \[0, 1\)"):
        ThresholdSweep(3, wrong)


def test_at_knows_only_its_thresholds():
    with pytest.raises(ValueError, match=r"expected one of \(0.1, 0.2\), got 0.15"):
        ThresholdSweep(3, (0.1, 0.2)).at(0.15, NAMES)
