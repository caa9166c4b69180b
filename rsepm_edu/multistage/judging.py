"""What stages are worth, told without masks: is a stage's result better than what it got?

The score is that of ``ColourInformation``, in bits, over the same pictures for all stages: how much the colour of a
pixel tells about its being foreground. For seeds it is the one at their best θ, for label maps of their foreground. It
knows nothing of classes, and a stage that looks at colours itself, as a CRF does, is judged by what it works for: a
gain says that foreground and background part more clearly, not that the classes are right.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.palette import read_mask
from rsepm_edu.data.seeds import read_seed
from rsepm_edu.data.voc import VocDataset, expect_labels
from rsepm_edu.evaluation.choosing import PICTURES, spread
from rsepm_edu.evaluation.inference import restrict_to_tags, segmenter_probabilities
from rsepm_edu.evaluation.maskfree import ColourInformation
from rsepm_edu.evaluation.thresholds import THRESHOLDS
from rsepm_edu.labels import BACKGROUND
from rsepm_edu.models.segmenters import Segmenter

SLACK = 0.05
"""Share of the best score. ORACLE: seen on 110 masks of photographs, where 0 loses 1 to 5 points, this up to 1."""


def looked_at(
    dataset: VocDataset, *, pictures: int = PICTURES, progress: bool = True
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The pictures that a judgement looks at, evenly spread over a data set: name, uint8 1×3×H×W, tags 1×K.

    Raises:
        ValueError: fewer than one.
    """
    for index in tqdm(spread(len(dataset), pictures), desc="judging", disable=not progress, leave=False):
        sample = dataset.sample(index, masks=False)
        yield sample["name"], sample["image"].as_subclass(Tensor)[None], sample["tags"][None]


def high_threshold(criterion: ColourInformation) -> float:
    """The greatest θ at which the criterion is still within ``SLACK`` of its best.

    A larger mask is worth more bits, so that the best θ is too low (``ColourInformation``), and after a walk, whose
    values are nearly the same all over an object, the curve is flat.
    """
    enough = (criterion.curve >= (1 - SLACK) * criterion.best()[1]).nonzero()
    return criterion.thresholds[int(enough.max())]


def seed_information(
    dataset: VocDataset,
    folder: str | Path,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    pictures: int = PICTURES,
    progress: bool = True,
) -> ColourInformation:
    """The criterion over seeds: its ``best()`` is the θ to take and the score there.

    No mask is read, even of a data set opened with them.

    Args:
        dataset: the folder needs no masks.
        folder: holds name.npz for every picture, see ``write_seed``.
        thresholds: to choose from.
        pictures: look at so many, evenly spread over the data set, or at all if there are fewer.
        progress: show a bar.
    """
    criterion = ColourInformation(thresholds)
    for name, image, _ in looked_at(dataset, pictures=pictures, progress=progress):
        seed = read_seed(Path(folder) / f"{name}.npz", (len(dataset.classes), *image.shape[2:]))
        criterion.update(seed[None], image)
    return criterion


def mask_information(dataset: VocDataset, folder: str | Path, *, progress: bool = True) -> float:
    """The score of label maps.

    Args:
        dataset: the folder needs no masks.
        folder: holds name.png for every picture.
        progress: show a bar.
    """
    criterion = ColourInformation([0.5])
    for name, image, _ in looked_at(dataset, progress=progress):
        path = Path(folder) / f"{name}.png"
        labels = read_mask(path)
        expect_labels(path, labels, image.shape[2:], len(dataset.classes), void=False)
        criterion.update((labels != BACKGROUND).float()[None, None], image)
    return float(criterion.curve)


def segmenter_information(
    network: Segmenter, dataset: VocDataset, *, scales: Sequence[float], progress: bool = True
) -> float:
    """The score of what a segmenter sees where the tags are given.

    Args:
        network: on the device to use.
        dataset: pictures and tags.
        scales: see ``multi_scale_maps``.
        progress: show a bar.
    """
    criterion, device = ColourInformation([0.5]), next(network.parameters()).device
    for _, image, tags in looked_at(dataset, progress=progress):
        probabilities = segmenter_probabilities(network, image.to(device), scales=scales)
        labels = restrict_to_tags(probabilities, tags.to(device)).argmax(dim=1)
        criterion.update((labels != BACKGROUND).float()[:, None].cpu(), image)
    return float(criterion.curve)
