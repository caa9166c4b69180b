"""Scoring a trained network on a split with masks: every map it can give, and what SCG and PAMR make of its CAM."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import Sample, VocDataset
from rsepm_edu.evaluation.folding import folded
from rsepm_edu.evaluation.inference import (
    SCALES,
    evaluation_mode,
    multi_scale_maps,
    restrict_to_tags,
    segment,
)
from rsepm_edu.evaluation.metrics import confusion_matrix, scores
from rsepm_edu.evaluation.seed_options import DEFAULT_OPTIONS, SeedOptions
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.evaluation.thresholds import ThresholdSweep
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.methods.pamr import pamr
from rsepm_edu.methods.scg import scg
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter
from rsepm_edu.processes import World

SEEDS = ("cam", "cam+pamr", "cam+scg", "cam+scg+pamr")
DECODER_SEEDS = ("decoder", "decoder+pamr")
ARGMAX = "decoder (arg-max)"

TOGETHER = 8
"""Pictures of one size that a GPU looks at together."""

WAITING = 64
"""Pictures that wait for others of their size at most, so that they do not fill the memory."""


def seed_maps(
    network: SingleStageNetwork,
    images: Tensor,
    tags: Tensor,
    options: SeedOptions = DEFAULT_OPTIONS,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The seeds a network gives for pictures whose tags are known.

    SCG works at the CAM's resolution on stages 4 and 5 of the picture at scale 1, PAMR at 1 / ``pamr_stride`` of the
    picture's; after PAMR each map is stretched to a maximum of 1 again. Both as in training.

    Args:
        network: trained.
        images: B×3×H×W normalised, on its device.
        tags: B×K in {0, 1}.
        options: scales, whether the decoder's maps too (its probabilities restricted to the tags), SCG and PAMR.

    Returns:
        Maps B×K×H×W in [0, 1] by name (``SEEDS`` and, if wanted, ``DECODER_SEEDS``), and the decoder's arg-max labels
        B×H×W (background as the decoder itself sees it) or None.
    """
    classes, maps, labels = present_maps(network, images, tags, options)
    whole = {}
    for name, planes in maps.items():
        whole[name] = planes.new_zeros(*tags.shape, *planes.shape[2:])
        whole[name][:, classes] = planes
    return whole, labels


def present_maps(
    network: SingleStageNetwork,
    images: Tensor,
    tags: Tensor,
    options: SeedOptions = DEFAULT_OPTIONS,
) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    """``seed_maps`` of the classes that occur in a batch, which are few, alone.

    Returns:
        Their numbers from 0, P of them, one at least; maps B×P×H×W by name; labels, 0 background, 1 … K.
    """
    classes = tags.amax(dim=0).nonzero()[:, 0]
    if not len(classes):
        classes = classes.new_zeros(1)  # whose maps are 0
    few = tags[:, classes]
    maps = multi_scale_maps(
        network, images, tags, scales=options.scales, mirror=options.mirror, decode=options.decode, classes=classes
    )
    size = (images.shape[2], images.shape[3])
    with evaluation_mode(network), torch.no_grad():
        outputs = network(images.contiguous(memory_format=torch.channels_last), decode=False)
        coarse = F.interpolate(maps.cam, outputs.cam.shape[2:], mode="bilinear", align_corners=False, antialias=True)
        spread = scg(outputs.stages[2:], normalize_cam(coarse), few, first_threshold=options.scg_threshold)
    plain = {"cam": maps.cam, "cam+scg": _resize(spread, size)}
    labels = None
    if maps.probabilities is not None:
        restricted = restrict_to_tags(maps.probabilities, few)
        plain["decoder"] = restricted[:, 1:]
        labels = F.pad(classes + 1, (1, 0))[restricted.argmax(dim=1)]
    # One call for all: the affinity, the costly part of PAMR, depends on the picture alone.
    small = (max(1, size[0] // options.pamr_stride), max(1, size[1] // options.pamr_stride))
    picture = F.interpolate(images, small, mode="bilinear", align_corners=False, antialias=True)
    refined = pamr(picture, _resize(torch.cat(list(plain.values()), dim=1), small))
    stretched = _resize(normalize_cam(refined), size).chunk(len(plain), dim=1)
    refined_by_name = {f"{name}+pamr": map_ for name, map_ in zip(plain, stretched, strict=True)}
    everything = plain | refined_by_name
    names = SEEDS + (DECODER_SEEDS if labels is not None else ())
    return classes, {name: everything[name] for name in names}, labels


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


class SeedScores:
    """The sweeps of all seeds over a split, and the decoder's own arg-max; update picture by picture."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.sweeps: dict[str, ThresholdSweep] = {}
        self.labels: Tensor | None = None

    def update(
        self, seeds: Mapping[str, Tensor], labels: Tensor | None, mask: Tensor, present: Tensor | None = None
    ) -> None:
        """Add a batch: seeds B×K×H×W by name, arg-max labels B×H×W or None, masks B×H×W.

        With ``present`` the seeds are of these classes alone, see ``ThresholdSweep.update``.
        """
        for name, seed in seeds.items():
            sweep = self.sweeps.setdefault(name, ThresholdSweep(len(self.classes)))
            sweep.update(seed, mask, present)
        if labels is not None:
            counts = confusion_matrix(labels, mask, len(self.classes) + 1).cpu()
            self.labels = counts if self.labels is None else self.labels + counts

    def merge(self, other: "SeedScores") -> None:
        """Add the scores of other pictures; no picture is among both."""
        for name, sweep in other.sweeps.items():
            self.sweeps.setdefault(name, ThresholdSweep(len(self.classes), sweep.thresholds)).merge(sweep)
        if other.labels is not None:
            self.labels = other.labels if self.labels is None else self.labels + other.labels

    def rows(
        self,
        *,
        seed: int,
        chosen: Mapping[str, Mapping[str, float]] | None = None,
        classes: Sequence[str] | None = None,
        prefix: str = "",
    ) -> list[Row]:
        """Table rows: each map at its oracle threshold and at those chosen without masks; the decoder's arg-max.

        Args:
            seed: of the run.
            chosen: by criterion and by map, thresholds found without masks (``choosing.thresholds_of``).
            classes: foreground classes the means are over; None: all.
            prefix: put before each name.
        """
        rows = []
        for name, sweep in self.sweeps.items():
            threshold, result = sweep.best(self.classes, classes=classes)
            rows.append(Row.from_scores(prefix + name, result, threshold=threshold, oracle=True, seed=seed))
            for criterion, thresholds in (chosen or {}).items():
                result = sweep.at(thresholds[name], self.classes, classes=classes)
                row = Row.from_scores(
                    prefix + name, result, threshold=thresholds[name], oracle=False, seed=seed, choice=criterion
                )
                rows.append(row)
        if self.labels is not None:
            result = scores(self.labels, self.classes, classes=classes)
            name = prefix + ARGMAX
            rows.append(Row.from_scores(name, result, threshold=None, oracle=False, seed=seed))
        return rows


def score_seeds(
    network: SingleStageNetwork,
    dataset: VocDataset,
    options: SeedOptions = DEFAULT_OPTIONS,
    *,
    world: World | None = None,
    progress: bool = True,
) -> SeedScores:
    """Score all seeds of a network on a split opened with ``masks=True``, its tags given (seed quality).

    Args:
        network: on the device to use.
        dataset: with masks.
        options: how the seeds are made; best as in training.
        world: processes that share the pictures, all with the same arguments; None: this one alone.
        progress: show a bar.

    Returns:
        The scores over all pictures, in every process.
    """
    device = next(network.parameters()).device
    world = world or World(device)
    result = SeedScores(dataset.classes)
    share = dataset.take(world.share(len(dataset)))
    network = folded(network)
    samples = tqdm(share, desc="scoring", disable=not (progress and world.is_main), leave=False)
    for images, tags, masks in equal_sizes(samples, device):
        present, seeds, labels = present_maps(network, normalise(images), tags, options)
        result.update(seeds, labels, masks, present)
    result, *others = world.gather(result)
    for other in others:
        result.merge(other)
    return result


def segmentation_confusion(
    network: SingleStageNetwork | Segmenter,
    dataset: VocDataset,
    *,
    scales: Sequence[float] = SCALES,
    mirror: bool = True,
    world: World | None = None,
    progress: bool = True,
) -> Tensor:
    """The final segmentation on a split opened with ``masks=True``, no tags given (see ``segment``).

    Args:
        network: on the device to use.
        dataset: with masks.
        scales, mirror: see ``segment``.
        world: processes that share the pictures, all with the same arguments; None: this one alone.
        progress: show a bar.

    Returns:
        The confusion matrix of all pictures, (K+1)×(K+1) int64 on the CPU, in every process.
    """
    device = next(network.parameters()).device
    world = world or World(device)
    labels = len(dataset.classes) + 1
    total = torch.zeros(labels, labels, dtype=torch.int64)
    share = dataset.take(world.share(len(dataset)))
    network = folded(network)
    samples = tqdm(share, desc="scoring", disable=not (progress and world.is_main), leave=False)
    for images, _, masks in equal_sizes(samples, device):
        prediction = segment(network, images, scales=scales, mirror=mirror)
        total += confusion_matrix(prediction, masks, labels).cpu()
    return world.sum(total)


def equal_sizes(samples: Iterable[Sample], device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Samples with masks put together by their size, on a device: counts do not ask for an order.

    On a GPU, where a picture alone leaves most of it idle, ``TOGETHER`` at a time; one by one on the CPU. At most
    ``WAITING`` wait for others of their size.

    Returns:
        Batches: images B×3×H×W uint8, tags B×K, masks B×H×W.
    """
    together = TOGETHER if device.type == "cuda" else 1
    waiting: dict[tuple[int, ...], list[Sample]] = {}

    def batch(size: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        chosen = waiting.pop(size)
        images, masks = (
            torch.stack([sample[key].as_subclass(Tensor) for sample in chosen]) for key in ("image", "mask")
        )
        return images.to(device), torch.stack([sample["tags"] for sample in chosen]).to(device), masks.to(device)

    for sample in samples:
        size = tuple(sample["image"].shape)
        waiting.setdefault(size, []).append(sample)
        if len(waiting[size]) == together:
            yield batch(size)
        elif sum(map(len, waiting.values())) > WAITING:
            yield batch(max(waiting, key=lambda shape: len(waiting[shape])))
    for size in list(waiting):
        yield batch(size)
