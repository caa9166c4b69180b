"""Thresholds and checkpoints chosen from pictures and tags, for a network and a data set whose masks stay closed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.inference import evaluation_mode
from rsepm_edu.evaluation.maskfree import ClassifierSight, ColourInformation, Criterion, Otsu, Stability
from rsepm_edu.evaluation.scoring import seed_maps
from rsepm_edu.evaluation.seed_options import DEFAULT_OPTIONS, SeedOptions
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.processes import World

CRITERIA: dict[str, type[Criterion]] = {
    "colour": ColourInformation,
    "stability": Stability,
    "classifier": ClassifierSight,
    "otsu": Otsu,
}
"""Criteria by the name that a row of a table carries as its ``choice``."""

DEFAULT_CRITERIA = ("colour",)
"""Loses least on Creatures and photographs together, and at worst (results/choices)."""

PICTURES = 100
"""How many pictures a choice looks at, spread over the split: more cost time and hardly move it."""

Chosen = dict[str, dict[str, Criterion]]
"""By criterion, then by seed: the criterion with all its values."""


def choose_thresholds(
    network: SingleStageNetwork,
    dataset: VocDataset,
    options: SeedOptions = DEFAULT_OPTIONS,
    *,
    criteria: Sequence[str] = DEFAULT_CRITERIA,
    pictures: int = PICTURES,
    world: World | None = None,
    progress: bool = True,
) -> Chosen:
    """Look at every seed of a network by each criterion, without masks.

    No mask is read, even of a data set opened with them. With colour a picture costs about what it costs to score it,
    with stability nearly twice that, and the classifier is slow: 16 passes for every tag of every map. Stability
    compares the picture at scale 1 with its mirror image at scale 1.5.

    Args:
        network: on the device to use.
        dataset: with tags; the folder needs no masks.
        options: how the seeds are made; as they will be scored.
        criteria: names among ``CRITERIA``.
        pictures: look at so many, evenly spread over the data set, or at all if there are fewer.
        world: processes that share the pictures, all with the same arguments; None: this one alone.
        progress: show a bar.

    Returns:
        The criteria over all pictures looked at, in every process.

    Raises:
        UserError: an unknown criterion.
        ValueError: fewer than one picture.
    """
    unknown = [name for name in criteria if name not in CRITERIA]
    if unknown:
        raise UserError(f"criteria: expected some of {', '.join(CRITERIA)}, got {', '.join(unknown)}")
    device = next(network.parameters()).device
    world = world or World(device)
    once, larger = (replace(options, scales=(scale,), mirror=False) for scale in (1.0, 1.5))
    chosen: Chosen = {name: {} for name in criteria}
    indices = spread(len(dataset), pictures) if criteria else []
    share = [indices[place] for place in world.share(len(indices))]
    for index in tqdm(share, desc="choosing", disable=not (progress and world.is_main), leave=False):
        sample = dataset.sample(index, masks=False)
        raw = sample["image"].as_subclass(Tensor)[None].to(device)
        images, tags = normalise(raw), sample["tags"][None].to(device)
        seeds, _ = seed_maps(network, images, tags, options)
        if "stability" in criteria:
            plain, _ = seed_maps(network, images, tags, once)
            mirrored, _ = seed_maps(network, images.flip(-1), tags, larger)
        for name, seed in seeds.items():
            for wanted in criteria:
                criterion = chosen[wanted].setdefault(name, CRITERIA[wanted]())
                match criterion:
                    case ColourInformation():
                        criterion.update(seed, raw)
                    case Stability():
                        criterion.update(plain[name], mirrored[name].flip(-1))
                    case ClassifierSight():
                        criterion.update(seed, images, tags, _classifier(network))
                    case Otsu():
                        criterion.update(seed)
    return merge_chosen(world.gather(chosen))


def spread(length: int, count: int) -> list[int]:
    """``count`` indices spread evenly over a data set of ``length`` pictures, or all where there are fewer.

    Raises:
        ValueError: fewer than one.
    """
    if count < 1:
        raise ValueError(f"pictures: expected at least 1, got {count}")
    count = min(count, length)
    return [position * length // count for position in range(count)]


def merge_chosen(parts: Sequence[Chosen]) -> Chosen:
    """What was seen of all pictures, from what was seen of parts of them by the same criteria; changes the first part.

    Sums of fractions in another order may differ in their last digit from those of one pass.
    """
    whole = parts[0]
    for part in parts[1:]:
        for kind, seeds in part.items():
            for name, criterion in seeds.items():
                if name in whole[kind]:
                    whole[kind][name].merge(criterion)
                else:
                    whole[kind][name] = criterion
    return whole


def thresholds_of(chosen: Chosen) -> dict[str, dict[str, float]]:
    """By criterion, then by seed: the threshold chosen. What ``SeedScores.rows`` takes."""
    return {kind: {name: seen.best()[0] for name, seen in seeds.items()} for kind, seeds in chosen.items()}


def rank_checkpoints(seeds: Mapping[str, Mapping[str, Criterion]]) -> list[tuple[str, float]]:
    """Checkpoints by the mean, over the seeds that all of them have, of the criterion at each seed's chosen θ.

    Tried with colour on four checkpoints of one run on photographs and four on Creatures: it tells those that have
    learnt from those that have not. Among the later ones of a run it is no more than a hint, since their values differ
    little: right on the photographs, while on Creatures it put the CAM of epoch 8 before that of epoch 21, which was
    better. Where some decoders were trained and some not, only the CAM's seeds count.

    Args:
        seeds: by checkpoint, what one criterion saw of its seeds: ``choose_thresholds(...)[criterion]``, on the same
            pictures and scales.

    Returns:
        (checkpoint, mean), the best first; equals in the order given.

    Raises:
        ValueError: no checkpoint, or no seed that all have.
    """
    common = set.intersection(*(set(found) for found in seeds.values())) if seeds else set()
    if not common:
        raise ValueError(f"expected checkpoints with seeds in common, got {[list(found) for found in seeds.values()]}")
    means = {name: _mean(found[seed].best()[1] for seed in sorted(common)) for name, found in seeds.items()}
    return sorted(means.items(), key=lambda pair: -pair[1])


def _classifier(network: SingleStageNetwork) -> Callable[[Tensor], Tensor]:
    def classify(pictures: Tensor) -> Tensor:
        with evaluation_mode(network), torch.inference_mode():
            # In parts: a picture with three tags comes in 48 versions.
            return torch.cat([network(part, decode=False).tag_logits.sigmoid() for part in pictures.split(16)])

    return classify


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
