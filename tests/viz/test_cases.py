import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.data.palette import VOID, colourise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.cases import Case, Extremes
from rsepm_edu.viz import cases


@pytest.fixture
def image():
    return torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def labels(seed):
    drawn = torch.randint(0, 4, (6, 8), generator=torch.Generator().manual_seed(seed))
    return drawn.to(torch.uint8)


def test_the_verdict_sorts_every_pixel_that_is_not_void(image):
    prediction, truth = labels(1), labels(2)
    truth[2] = VOID
    shown = cases.label_verdict(image, prediction, truth)
    seen = set()
    for y in range(6):
        for x in range(8):
            p, t = int(prediction[y, x]), int(truth[y, x])
            grey = float(image[:, y, x].float().mean())
            wanted = [0.6 * (0.35 * float(value) + 0.65 * grey) for value in image[:, y, x]]
            kind = None
            if t != VOID and (p, t) != (0, 0):
                kind = "right" if p == t else "superfluous" if t == 0 else "missed" if p == 0 else "other class"
                wanted = [0.25 * w + 0.75 * c for w, c in zip(wanted, cases.VERDICTS[kind], strict=True)]
            seen.add(kind)
            assert np.abs(shown[y, x] - np.array(wanted)).max() <= 1
    assert seen == {None, *cases.VERDICTS}


def test_the_verdict_takes_one_size(image):
    with pytest.raises(ValueError, match=r"expected labels \(6, 8\), got \(5, 8\) and \(6, 8\)"):
        cases.label_verdict(image, labels(0)[1:], labels(0))


def test_a_case_is_a_row_with_its_name_and_score(image):
    truth = labels(2).clamp(max=1)
    truth[0] = VOID
    figure = cases.cases_panel([Case("p1", 0.4321, labels(1).clamp(max=2), truth)], [image], ["cat", "dog", "owl"])
    assert [ax.get_title() for ax in figure.axes] == ["image", "ground truth", "prediction", "verdict"]
    assert figure.axes[0].get_ylabel() == "p1\n43.2"
    assert (np.asarray(figure.axes[1].images[0].get_array()) == colourise(truth)).all()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["background", "cat", "dog", "void", *cases.VERDICTS]


def test_worst_and_best_are_written_with_their_own_pictures(creatures, tmp_path):
    dataset = VocDataset(creatures, "train", masks=True)
    extremes = Extremes(len(dataset.classes) + 1, 2)
    for index, sample in enumerate(dataset):
        truth = torch.as_tensor(sample["mask"])
        prediction = truth.where(truth != VOID, 0)
        extremes.update(sample["name"], prediction if index < 4 else 0 * prediction, truth)
    cases.save_cases(tmp_path / "cases", extremes, dataset)
    assert sorted(path.name for path in (tmp_path / "cases").iterdir()) == ["best.png", "worst.png"]
    with Image.open(tmp_path / "cases" / "best.png") as png:
        assert png.format == "PNG" and png.width > 600
    assert [case.name for case in extremes.best] == dataset.names[:2]
