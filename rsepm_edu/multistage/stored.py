"""What the stages of a multi-stage run have left on the disk: scored with masks, and θ chosen without them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.palette import read_mask
from rsepm_edu.data.seeds import read_seed
from rsepm_edu.data.voc import VocDataset, expect_labels
from rsepm_edu.evaluation.choosing import PICTURES
from rsepm_edu.evaluation.metrics import Scores, confusion_matrix, scores
from rsepm_edu.evaluation.thresholds import THRESHOLDS, ThresholdSweep
from rsepm_edu.multistage.judging import high_threshold, seed_information


def sweep_stored_seeds(
    dataset: VocDataset, folder: str | Path, *, thresholds: Sequence[float] = THRESHOLDS, progress: bool = True
) -> ThresholdSweep:
    """Score seeds at every threshold.

    Args:
        dataset: opened with ``masks=True``.
        folder: holds name.npz for every picture, see ``write_seed``.
        thresholds: see ``ThresholdSweep``.
        progress: show a bar.
    """
    sweep = ThresholdSweep(len(dataset.classes), thresholds)
    for index, name in enumerate(tqdm(dataset.names, desc="scoring seeds", disable=not progress, leave=False)):
        mask = dataset.sample(index, masks=True)["mask"].as_subclass(Tensor)
        seed = read_seed(Path(folder) / f"{name}.npz", (len(dataset.classes), *mask.shape))
        sweep.update(seed[None], mask[None])
    return sweep


def choose_stored_threshold(
    dataset: VocDataset, folder: str | Path, *, pictures: int = PICTURES, progress: bool = True
) -> float:
    """The threshold at which the colour of a pixel tells nearly most about its being foreground: ``high_threshold``.

    No mask is read, even of a data set opened with them.

    Args:
        dataset: the folder needs no masks.
        folder: holds name.npz for every picture, see ``write_seed``.
        pictures: look at so many, evenly spread over the data set, or at all if there are fewer.
        progress: show a bar.

    Raises:
        ValueError: fewer than one picture.
    """
    return high_threshold(seed_information(dataset, folder, pictures=pictures, progress=progress))


def score_stored_masks(
    dataset: VocDataset, folder: str | Path, *, classes: Sequence[str] | None = None, progress: bool = True
) -> Scores:
    """Score label maps, pseudo masks or predictions.

    Args:
        dataset: opened with ``masks=True``.
        folder: holds name.png for every picture.
        classes: foreground classes of the means, None: all.
        progress: show a bar.
    """
    labels = len(dataset.classes) + 1
    total = torch.zeros(labels, labels, dtype=torch.int64)
    for index, name in enumerate(tqdm(dataset.names, desc="scoring masks", disable=not progress, leave=False)):
        mask = dataset.sample(index, masks=True)["mask"].as_subclass(Tensor)
        path = Path(folder) / f"{name}.png"
        prediction = read_mask(path)
        expect_labels(path, prediction, mask.shape, len(dataset.classes), void=False)
        total += confusion_matrix(prediction, mask, labels)
    return scores(total, dataset.classes, classes=classes)
