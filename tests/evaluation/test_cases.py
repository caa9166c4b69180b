import pytest
import torch

from rsepm_edu.evaluation.cases import Extremes, picture_score
from rsepm_edu.labels import VOID


def naive_score(prediction, truth):
    pairs = [(p, t) for p, t in zip(prediction.flatten().tolist(), truth.flatten().tolist(), strict=True) if t != VOID]
    ious = []
    for label in {label for pair in pairs for label in pair}:
        both = sum(p == t == label for p, t in pairs)
        ious.append(both / sum(label in pair for pair in pairs))
    return sum(ious) / len(ious)


def random_labels(seed, num_labels=4, void=0.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_labels, (7, 9), generator=generator)
    labels[torch.rand(7, 9, generator=generator) < void] = VOID
    return labels


def test_a_pictures_score_is_the_mean_iou_of_the_labels_that_occur():
    for seed in range(5):
        prediction, truth = random_labels(seed, 3), random_labels(seed + 10, void=0.3)
        assert picture_score(prediction, truth, 6) == pytest.approx(naive_score(prediction, truth), abs=1e-6)
    assert picture_score(truth.where(truth != VOID, 0), truth, 6) == 1.0
    assert picture_score(prediction, torch.full((7, 9), VOID), 6) is None


def test_extremes_keep_the_worst_and_the_best_of_all():
    extremes, scores = Extremes(4, 3), {}
    for seed in range(12):
        prediction, truth = random_labels(seed), random_labels(seed + 100)
        prediction = torch.where(torch.arange(63).view(7, 9) < 5 * seed, truth, prediction)
        extremes.update(f"p{seed}", prediction, truth)
        scores[f"p{seed}"] = picture_score(prediction, truth, 4)
    order = sorted(scores, key=lambda name: scores[name])
    assert [case.name for case in extremes.worst] == order[:3]
    assert [case.name for case in extremes.best] == order[:-4:-1]
    assert [case.score for case in extremes.best] == [scores[name] for name in order[:-4:-1]]
    assert torch.equal(extremes.best[0].truth, random_labels(int(order[-1][1:]) + 100).to(torch.uint8))


def test_few_pictures_and_void_ones():
    extremes = Extremes(4, 3)
    extremes.update("void", random_labels(0), torch.full((7, 9), VOID))
    extremes.update("only", random_labels(0), random_labels(1))
    assert [case.name for case in extremes.worst] == [case.name for case in extremes.best] == ["only"]
