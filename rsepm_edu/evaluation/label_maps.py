"""The label map a network draws on each picture of a split: its segmentation, or one of its maps at a threshold."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.inference import SCALES, multi_scale_maps, predict_labels, segment
from rsepm_edu.evaluation.scoring import seed_maps
from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter


class LabelMap(NamedTuple):
    """A picture's name, its image 3×H×W uint8, and its labels H×W, predicted and true."""

    name: str
    image: Tensor
    prediction: Tensor
    truth: Tensor


def label_maps(
    network: SingleStageNetwork | Segmenter,
    dataset: VocDataset,
    *,
    tags: bool,
    seed: tuple[str, float] | None = None,
    scales: Sequence[float] = SCALES,
    mirror: bool = True,
    scg_threshold: float = 0.50,
    pamr_stride: int = 4,
    progress: bool = True,
) -> Iterator[LabelMap]:
    """Go through a split opened with ``masks=True``, one picture at a time.

    Args:
        network: on the device to use.
        dataset: with masks.
        tags: whether the picture's tags are given to a single-stage network; without them see ``segment``.
        seed: where they are: one of ``scoring.SEEDS`` or ``scoring.DECODER_SEEDS`` and a background threshold, for that
            map in place of the decoder's arg-max.
        scales, mirror: see ``multi_scale_maps``.
        scg_threshold, pamr_stride: see ``seed_maps``.
        progress: show a bar.

    Raises:
        TypeError: tags given to a segmenter, which knows no use for them.
    """
    device = next(network.parameters()).device
    for sample in tqdm(dataset, desc="drawing", disable=not progress, leave=False):
        image = sample["image"].as_subclass(Tensor)
        given = sample["tags"][None].to(device)
        batch = normalise(image[None].to(device))
        if not tags:
            labels = segment(network, batch, scales=scales, mirror=mirror)
        elif seed is None:
            labels = predict_labels(
                multi_scale_maps(_single_stage(network), batch, scales=scales, mirror=mirror), given
            )
        else:
            seeds, _ = seed_maps(
                _single_stage(network),
                batch,
                given,
                scales=scales,
                mirror=mirror,
                decode=seed[0].startswith("decoder"),
                scg_threshold=scg_threshold,
                pamr_stride=pamr_stride,
            )
            labels = labels_at(seeds[seed[0]], seed[1])
        yield LabelMap(sample["name"], image, labels[0], sample["mask"].as_subclass(Tensor).to(device))


def _single_stage(network: SingleStageNetwork | Segmenter) -> SingleStageNetwork:
    if isinstance(network, Segmenter):
        raise TypeError("network: expected a single-stage network where tags are given, got a Segmenter")
    return network
