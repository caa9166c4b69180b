from pathlib import Path

import pytest
import torch

from rsepm_edu.data.palette import write_mask
from rsepm_edu.data.seeds import write_seed
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.maskfree import ColourInformation
from rsepm_edu.multistage.judging import high_threshold, mask_information, seed_information


class Curve(ColourInformation):
    """A criterion with a curve of its own."""

    def __init__(self, values: list[float]) -> None:
        super().__init__([0.1 * place for place in range(1, len(values) + 1)])
        self._total, self._count = torch.tensor(values, dtype=torch.float64), 1


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.1, 0.2, 0.195, 0.191, 0.1], 0.4),  # flat behind the best
        ([0.1, 0.2, 0.189, 0.1, 0.1], 0.2),  # below 95 %
        ([0.1, 0.2, 0.1, 0.195, 0.1], 0.4),  # a second hill
        ([0.0, 0.0, 0.0], 0.3),
    ],
)
def test_the_high_threshold_is_the_last_that_is_nearly_best(values: list[float], wanted: float) -> None:
    assert high_threshold(Curve(values)) == pytest.approx(wanted)


def test_masks_and_seeds_of_the_same_foreground_have_the_same_score(creatures: Path, tmp_path: Path) -> None:
    dataset = VocDataset(creatures, "train", masks=True)
    for index, name in enumerate(dataset.names):
        mask = dataset.sample(index, masks=True)["mask"].as_subclass(torch.Tensor)
        labels = torch.where(mask == 255, 0, mask)
        write_mask(tmp_path / "true" / f"{name}.png", labels)
        write_mask(tmp_path / "moved" / f"{name}.png", labels.roll(20, -1))
        write_seed(tmp_path / "seeds" / f"{name}.npz", 0.5 * torch.stack([labels == k for k in range(1, 6)]).float())
    true, moved = (mask_information(dataset, tmp_path / folder, progress=False) for folder in ("true", "moved"))
    assert true > 1.5 * moved > 0  # what parts the colours is better than what does not
    seen = seed_information(dataset, tmp_path / "seeds", thresholds=[0.25], progress=False)
    assert seen.best() == (0.25, pytest.approx(true))
