"""The label map a network draws on each picture of a split, and how close it comes to the truth."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.boundary import boundary_counts
from rsepm_edu.evaluation.cases import Extremes
from rsepm_edu.evaluation.inference import multi_scale_maps, predict_labels, segment
from rsepm_edu.evaluation.scoring import seed_maps
from rsepm_edu.evaluation.seed_options import DEFAULT_OPTIONS, SeedOptions
from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter
from rsepm_edu.processes import World


class LabelMap(NamedTuple):
    """A picture's name, its image 3×H×W uint8, and its labels H×W, predicted and true."""

    name: str
    image: Tensor
    prediction: Tensor
    truth: Tensor


def label_maps(
    network: SingleStageNetwork | Segmenter,
    dataset: VocDataset,
    options: SeedOptions = DEFAULT_OPTIONS,
    *,
    tags: bool,
    seed: tuple[str, float] | None = None,
    world: World | None = None,
    progress: bool = True,
) -> Iterator[LabelMap]:
    """Go through a split opened with ``masks=True``, or this process's share of it, one picture at a time.

    Args:
        network: on the device to use.
        dataset: with masks.
        options: scales and mirror images, and how the map ``seed`` is made.
        tags: whether the picture's tags are given to a single-stage network; without them see ``segment``.
        seed: where they are: one of ``scoring.SEEDS`` or ``scoring.DECODER_SEEDS`` and a background threshold, for that
            map in place of the decoder's arg-max.
        world: processes that share the pictures, all with the same arguments; None: this one alone.
        progress: show a bar.

    Raises:
        TypeError: tags given to a segmenter, which knows no use for them.
    """
    device = next(network.parameters()).device
    world = world or World(device)
    share = dataset.take(world.share(len(dataset)))
    for sample in tqdm(share, desc="drawing", disable=not (progress and world.is_main), leave=False):
        image = sample["image"].as_subclass(Tensor)
        given = sample["tags"][None].to(device)
        batch = normalise(image[None].to(device))
        if not tags:
            labels = segment(network, batch, scales=options.scales, mirror=options.mirror)
        elif seed is None:
            maps = multi_scale_maps(_single_stage(network), batch, scales=options.scales, mirror=options.mirror)
            labels = predict_labels(maps, given)
        else:
            wanted = replace(options, decode=seed[0].startswith("decoder"))
            seeds, _ = seed_maps(_single_stage(network), batch, given, wanted)
            labels = labels_at(seeds[seed[0]], seed[1])
        yield LabelMap(sample["name"], image, labels[0], sample["mask"].as_subclass(Tensor).to(device))


class Closeness(NamedTuple):
    """How close the label maps of a split come to the truth.

    boundary: int64 (K+1)×3, see ``boundary_counts``; None where it was not asked for. extremes: the worst and the best.
    """

    boundary: Tensor | None
    extremes: Extremes


def compare_label_maps(
    maps: Iterable[LabelMap], dataset: VocDataset, *, count: int, boundary: bool, world: World | None = None
) -> Closeness:
    """Compare label maps with the truth at boundaries, and find the worst and the best of them.

    Args:
        maps: of ``label_maps``, of this process's share.
        dataset: the whole split.
        count: how many of the worst, and of the best, to keep.
        boundary: whether to count at boundaries.
        world: the processes of ``maps``; None: this one alone.

    Returns:
        What all processes have seen, in every process.
    """
    world = world or World(torch.device("cpu"))
    labels = len(dataset.classes) + 1
    near, extremes = torch.zeros(labels, 3, dtype=torch.int64), Extremes(labels, count)
    for drawn in maps:
        extremes.update(drawn.name, drawn.prediction, drawn.truth)
        if boundary:
            near += boundary_counts(drawn.prediction[None], drawn.truth[None], labels)
    extremes, *others = world.gather(extremes)
    for other in others:
        extremes.merge(other, dataset.names)
    return Closeness(world.sum(near) if boundary else None, extremes)


def _single_stage(network: SingleStageNetwork | Segmenter) -> SingleStageNetwork:
    if isinstance(network, Segmenter):
        raise TypeError("network: expected a single-stage network where tags are given, got a Segmenter")
    return network
