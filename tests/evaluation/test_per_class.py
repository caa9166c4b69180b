import json
from fractions import Fraction

import pytest
import torch

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation import per_class
from rsepm_edu.evaluation.metrics import confusion_matrix, scores
from rsepm_edu.evaluation.per_class import ClassTable, class_counts, seed_counts
from rsepm_edu.evaluation.scoring import SeedScores
from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.labels import VOID

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def labels():
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randint(0, 4, (2, 13, 17), generator=generator)
    target = torch.randint(0, 4, (2, 13, 17), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = VOID
    return prediction, target


def test_every_pixel_is_sorted_as_a_loop_sorts_it(labels):
    prediction, target = labels
    lines = class_counts(confusion_matrix(prediction, target, 4), NAMES)
    assert [line.name for line in lines] == ["background", *NAMES]
    for label, line in enumerate(lines):
        true = predicted = right = from_background = from_classes = 0
        for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
            if t == VOID:
                continue
            true += t == label
            predicted += p == label
            if p == label:
                right += t == label
                from_background += t == 0 and label != 0
                from_classes += t not in (0, label)
        found = (line.true, line.predicted, line.right, line.from_background, line.from_classes)
        assert found == (true, predicted, right, from_background, from_classes)


def test_the_two_parts_of_fp_are_fp_exactly(labels):
    for line in class_counts(confusion_matrix(*labels, 4), NAMES):
        assert line.from_background + line.from_classes == line.predicted - line.right
        parts = Fraction(line.from_background, line.union) + Fraction(line.from_classes, line.union)
        assert parts == Fraction(line.predicted - line.right, line.union)
        assert line.fp == float(parts)
        assert line.iou + line.fp + line.fn == pytest.approx(1, abs=1e-12)
        assert line.fp_background + line.fp_classes == pytest.approx(line.fp, abs=1e-12)
    assert class_counts(confusion_matrix(*labels, 4), NAMES)[0].fp_background == 0


def test_fractions_are_those_of_the_metrics_and_absent_classes_have_none(labels):
    prediction, target = labels
    confusion = confusion_matrix(prediction.clamp(max=2), target.where(target != 3, 0), 4)
    known = scores(confusion, NAMES)
    for line in class_counts(confusion, NAMES):
        assert (line.iou, line.fp, line.fn) == (
            known.iou[line.name],
            known.class_fp[line.name],
            known.class_fn[line.name],
        )
    owl = class_counts(confusion, NAMES)[3]
    assert owl.union == 0 and owl.iou is None and owl.fp_classes is None


def test_only_the_chosen_classes(labels):
    confusion = confusion_matrix(*labels, 4)
    chosen = class_counts(confusion, NAMES, classes=["owl"])
    assert chosen == [class_counts(confusion, NAMES)[0], class_counts(confusion, NAMES)[3]]
    with pytest.raises(UserError, match="classes: expected some of cat, dog, owl; got 'cow'"):
        class_counts(confusion, NAMES, classes=["cow"])


def test_seeds_are_counted_at_the_threshold_of_their_row():
    generator = torch.Generator().manual_seed(1)
    seed = torch.rand(2, 3, 9, 9, generator=generator)
    mask = torch.randint(0, 4, (2, 9, 9), generator=generator)
    labels = torch.randint(0, 4, (2, 9, 9), generator=generator)
    result = SeedScores(NAMES)
    result.update({"cam": seed}, labels, mask)
    counts = seed_counts(result)
    row = result.rows(seed=0)[0]
    assert list(counts) == ["cam", "decoder (arg-max)"] and counts["cam"].threshold == row.threshold
    assert torch.equal(counts["cam"].confusion, confusion_matrix(labels_at(seed, row.threshold), mask, 4))
    assert counts["decoder (arg-max)"].threshold is None
    assert torch.equal(counts["decoder (arg-max)"].confusion, confusion_matrix(labels, mask, 4))


def table():
    # rows truth, columns prediction; no owl anywhere
    confusion = torch.tensor([[50, 10, 0, 0], [5, 20, 5, 0], [0, 10, 30, 0], [0, 0, 0, 0]])
    boundary = {"background": 0.75, "cat": 0.25, "dog": 0.5, "owl": None}
    return confusion, ClassTable("cam", class_counts(confusion, NAMES), boundary)


def test_text_and_markdown_show_what_was_counted():
    confusion, lines = table()
    shown = per_class.text([lines]).splitlines()
    assert shown[0] == "cam" and shown[1].split()[:3] == ["class", "IoU", "FP"]
    cat = next(line for line in shown if line.startswith("cat")).split()
    # union 30 + 40 - 20 = 50
    assert cat == ["cat", "40.00", "0.400", "0.200", "0.200", "0.200", "25.00"]
    assert next(line for line in shown if line.startswith("owl")).split()[1:] == ["–"] * 6
    known = scores(confusion, NAMES)
    mean = next(line for line in shown if line.startswith("mean")).split()
    assert mean[1:3] == [f"{100 * known.miou:.2f}", f"{known.fp:.3f}"]
    assert mean[5:] == [f"{known.fn:.3f}", "50.00"]
    markdown = per_class.markdown([lines])
    assert "**cam**" in markdown and "| cat | 40.00 | 0.400 | 0.200 | 0.200 | 0.200 | 25.00 |" in markdown
    plain = ClassTable("cam", lines.counts)
    assert "boundary IoU |" not in per_class.markdown([plain]) and "| cat | 40.00 |" in per_class.markdown([plain])


def test_json_holds_counts_and_fractions():
    _, lines = table()
    entries = json.loads(per_class.to_json([lines]))
    assert [entry["class"] for entry in entries] == ["background", *NAMES]
    assert entries[1] == {
        "method": "cam",
        "class": "cat",
        "true": 30,
        "predicted": 40,
        "right": 20,
        "from_background": 10,
        "from_classes": 10,
        "iou": 0.4,
        "fp": 0.4,
        "fp_background": 0.2,
        "fp_classes": 0.2,
        "fn": 0.2,
        "boundary_iou": 0.25,
    }
    assert entries[3]["iou"] is None and entries[3]["boundary_iou"] is None
