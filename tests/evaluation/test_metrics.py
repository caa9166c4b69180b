import math

import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.metrics import confusion_matrix, count_by_truth, scores
from rsepm_edu.labels import VOID

NAMES = ("cat", "dog", "owl")


def random_labels(shape, num_labels, *, seed=0, void=0.0, dtype=torch.int64):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_labels, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < void] = VOID
    return labels.to(dtype)


def naive_confusion(prediction, target, num_labels):
    table = [[0] * num_labels for _ in range(num_labels)]
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != VOID:
            table[t][p] += 1
    return table


def naive_scores(table, foreground):
    """IoU, FP and FN by label, and the three means, straight from the definitions."""
    labels = range(len(table))
    by_label = {}
    for c in labels:
        true = sum(table[c][p] for p in labels)
        predicted = sum(table[t][c] for t in labels)
        right = table[c][c]
        union = true + predicted - right
        if union:
            by_label[c] = (right / union, (predicted - right) / union, (true - right) / union)
    ious = [by_label[c][0] for c in [0, *foreground] if c in by_label]
    fps = [by_label[c][1] for c in foreground if c in by_label]
    fns = [by_label[c][2] for c in foreground if c in by_label]
    return by_label, sum(ious) / len(ious), sum(fps) / len(fps), sum(fns) / len(fns)


@pytest.mark.parametrize("shape", [(17, 23), (3, 9, 11)])
@pytest.mark.parametrize("target_dtype", [torch.uint8, torch.int64])
def test_confusion_equals_double_loop_and_torchmetrics(shape, target_dtype):
    prediction = random_labels(shape, 4, seed=1)
    target = random_labels(shape, 4, seed=2, void=0.2, dtype=target_dtype)
    confusion = confusion_matrix(prediction, target, 4)
    assert confusion.dtype == torch.int64
    assert confusion.tolist() == naive_confusion(prediction, target, 4)
    other = MulticlassConfusionMatrix(num_classes=4, ignore_index=VOID)(prediction, target.long())
    assert torch.equal(confusion, other)


def test_rows_are_truth_and_columns_prediction():
    confusion = confusion_matrix(torch.tensor([[2]]), torch.tensor([[1]]), 3)
    assert confusion.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_confusions_of_parts_add_up_to_the_whole():
    prediction = random_labels((4, 6, 5), 4, seed=3, dtype=torch.uint8)
    target = random_labels((4, 6, 5), 4, seed=4, void=0.1, dtype=torch.uint8)
    parts = [confusion_matrix(p, t, 4) for p, t in zip(prediction, target, strict=True)]
    assert torch.equal(sum(parts), confusion_matrix(prediction, target, 4))


def test_void_alone_counts_nothing():
    target = torch.full((2, 5), VOID, dtype=torch.uint8)
    assert confusion_matrix(torch.zeros(2, 5, dtype=torch.int64), target, 3).sum() == 0
    assert confusion_matrix(torch.zeros(0, 5).long(), torch.zeros(0, 5).long(), 3).sum() == 0


def test_as_many_labels_as_a_byte_leaves_free():
    labels = torch.arange(256)
    confusion = confusion_matrix(labels.clamp(max=254), labels, 255)  # label 255 is void
    assert torch.equal(confusion, torch.eye(255, dtype=torch.int64))


@pytest.mark.parametrize("wrong", [3, 255, -1])
def test_prediction_out_of_range_names_the_label(wrong):
    prediction = torch.tensor([[0, 1, wrong]])
    # under void too
    target = torch.tensor([[0, 1, VOID]])
    with pytest.raises(ValueError, match=rf"prediction: expected labels 0 ... 2, got label {wrong}$"):
        confusion_matrix(prediction, target, 3)


@pytest.mark.parametrize(
    ("wrong", "dtype"),
    [(3, torch.uint8), (254, torch.uint8), (3, torch.int64), (256, torch.int64), (-1, torch.int64)],
)
def test_target_out_of_range_names_the_label(wrong, dtype):
    target = torch.tensor([[0, VOID, wrong]]).to(dtype)
    with pytest.raises(ValueError, match=rf"target: .* 0 ... 2 or 255 \(void\), got label {wrong}$"):
        confusion_matrix(torch.zeros(1, 3, dtype=torch.int64), target, 3)


def test_confusion_rejects_what_is_no_pair_of_label_maps():
    labels = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3, 2\)"):
        confusion_matrix(labels, labels.T, 3)
    with pytest.raises(TypeError, match="prediction: expected integer labels, got torch.float32"):
        confusion_matrix(labels.float(), labels, 3)
    with pytest.raises(TypeError, match="target: expected integer labels, got torch.bool"):
        confusion_matrix(labels, labels.bool(), 3)
    with pytest.raises(ValueError, match=r"num_labels: expected 1 ... 255, got 256"):
        confusion_matrix(labels, labels, 256)


def test_count_by_truth_counts_any_code():
    target = torch.tensor([0, 1, 1, VOID, 1])
    codes = torch.tensor([4, 2, 2, 3, 0])
    counts = count_by_truth(target, codes, num_labels=2, num_codes=5)
    assert counts.tolist() == [[0, 0, 0, 0, 1], [1, 0, 2, 0, 0]]


def test_scores_by_hand():
    # cat: T 4, P 5, TP 3, U 6; background: T 6, P 5, TP 4, U 7
    result = scores(torch.tensor([[4, 2], [1, 3]]), ["cat"])
    assert result.iou == pytest.approx({"background": 4 / 7, "cat": 3 / 6})
    assert result.miou == pytest.approx((4 / 7 + 3 / 6) / 2)
    assert result.fp == pytest.approx(2 / 6)
    assert result.fn == pytest.approx(1 / 6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("classes", "foreground"), [(None, [1, 2, 3]), (["owl", "cat"], [1, 3]), (("dog",), [2])])
def test_scores_equal_the_definitions(seed, classes, foreground):
    prediction = random_labels((20, 20), 4, seed=10 + seed)
    target = random_labels((20, 20), 4, seed=20 + seed, void=0.1)
    result = scores(confusion_matrix(prediction, target, 4), NAMES, classes=classes)
    by_label, miou, fp, fn = naive_scores(naive_confusion(prediction, target, 4), foreground)
    assert (result.miou, result.fp, result.fn) == pytest.approx((miou, fp, fn), abs=1e-12)
    chosen = {"background": 0, **{NAMES[c - 1]: c for c in foreground}}
    assert list(result.iou) == list(result.class_fp) == list(result.class_fn) == list(chosen)
    for name, label in chosen.items():
        triple = (result.iou[name], result.class_fp[name], result.class_fn[name])
        assert triple == pytest.approx(by_label[label], abs=1e-12)
        assert sum(triple) == pytest.approx(1, abs=1e-12)


def test_miou_equals_torchmetrics():
    prediction = random_labels((3, 30, 30), 4, seed=5)
    target = random_labels((3, 30, 30), 4, seed=6, void=0.1)
    other = MulticlassJaccardIndex(num_classes=4, average=None, ignore_index=VOID)
    expected = other(prediction, target).double()
    result = scores(confusion_matrix(prediction, target, 4), NAMES)
    assert list(result.iou.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert result.miou == pytest.approx(expected.mean().item(), abs=1e-6)


def test_absent_classes_are_left_out_and_never_count_as_one():
    # dog occurs nowhere, owl is only predicted (IoU 0, FP 1, FN 0): that one counts
    confusion = torch.tensor([[6, 0, 0, 2], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    result = scores(confusion, NAMES)
    assert result.iou == {"background": 6 / 8, "cat": 1.0, "dog": None, "owl": 0.0}
    assert result.class_fp["dog"] is None and result.class_fn["dog"] is None
    assert result.miou == pytest.approx((6 / 8 + 1 + 0) / 3)
    assert result.fp == pytest.approx((0 + 1) / 2)
    assert result.fn == 0


def test_a_subset_still_pays_for_other_classes_pixels():
    confusion = torch.tensor([[5, 0, 0], [0, 3, 0], [0, 1, 0]])  # one dog pixel called cat
    result = scores(confusion, ["cat", "dog"], classes=["cat"])
    assert result.iou == {"background": 1.0, "cat": 3 / 4}
    assert result.fp == 1 / 4


def test_foreground_means_are_nan_without_foreground():
    result = scores(torch.tensor([[7, 0], [0, 0]]), ["cat"])
    assert result.miou == 1
    assert math.isnan(result.fp) and math.isnan(result.fn)


def test_large_counts_stay_exact():
    # beyond what float32 and float64 can tell apart
    counts = torch.tensor([[2**60, 0], [1, 2**60 - 1]])
    assert scores(counts, ["cat"]).class_fn["cat"] == 1 / 2**60


def test_scores_rejects_wrong_matrices():
    with pytest.raises(ValueError, match=r"expected 4x4 for 3 foreground classes, got \(3, 3\)"):
        scores(torch.zeros(3, 3, dtype=torch.int64), NAMES)
    with pytest.raises(TypeError, match="confusion: expected integer"):
        scores(torch.ones(4, 4), NAMES)
    with pytest.raises(ValueError, match="at least one pixel that is not void"):
        scores(torch.zeros(4, 4, dtype=torch.int64), NAMES)
    with pytest.raises(ValueError, match="expected counts, got -2"):
        scores(torch.full((4, 4), -2), NAMES)
    for names in (("background", "cat"), ("cat", "cat")):
        with pytest.raises(ValueError, match="names: expected different foreground classes"):
            scores(torch.ones(3, 3, dtype=torch.int64), names)


@pytest.mark.parametrize("classes", [[], "cat", ["cat", "cat"]])
def test_scores_rejects_wrong_class_lists(classes):
    with pytest.raises(UserError, match="classes: expected a list of different class names"):
        scores(torch.ones(4, 4, dtype=torch.int64), NAMES, classes=classes)


def test_scores_names_an_unknown_class():
    with pytest.raises(UserError, match="classes: expected some of cat, dog, owl; got 'emu'"):
        scores(torch.ones(4, 4, dtype=torch.int64), NAMES, classes=["dog", "emu"])
