"""The stages between a single-stage network and a segmenter, each from one folder of files to the next.

    network -> seeds (.npz) -> confident labels (.png) -> walk network -> walked seeds (.npz) -> pseudo masks (.png)

Every picture is a file of its own, written whole or not at all; a stage that is called again goes on with the pictures
that are not there yet. Seeds are compressed float16 (see ``data.seeds``), labels palette PNGs.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.palette import write_mask
from rsepm_edu.data.seeds import read_seed, write_seed
from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.inference import SCALES, multi_scale_maps, restrict_to_tags, segmenter_probabilities
from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.models.affinity import WalkNetwork
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.models.segmenters import Segmenter
from rsepm_edu.multistage.reach import PUBLISHED_SIDE, published_view, scaled_walk
from rsepm_edu.multistage.walk import Refine, walk_labels
from rsepm_edu.training.report import LOGGER

SeedMap = Literal["cam", "decoder"]


class Picture(NamedTuple):
    """One picture of a stage: its name, uint8 1×3×H×W, tags 1×K, and the file to write."""

    name: str
    image: Tensor
    tags: Tensor
    path: Path


def pictures_to_do(
    dataset: VocDataset, folder: str | Path, suffix: str, device: torch.device, *, stage: str, progress: bool
) -> Iterator[Picture]:
    """The pictures of a data set whose file is not yet in a folder.

    Args:
        dataset: pictures and tags; masks are not read.
        folder, suffix: the file of a picture is ``folder``/name + ``suffix``.
        device: of images and tags.
        stage: name on the bar.
        progress: show a bar.
    """
    folder = Path(folder)
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    todo = [index for index, name in enumerate(dataset.names) if f"{name}{suffix}" not in there]
    if todo:
        LOGGER.info("%s: %d of %d pictures to do", stage, len(todo), len(dataset))
    for index in tqdm(todo, desc=stage, disable=not progress, leave=False):
        sample = dataset.sample(index, masks=False)
        yield Picture(
            sample["name"],
            sample["image"].as_subclass(Tensor)[None].to(device),
            sample["tags"][None].to(device),
            folder / f"{sample['name']}{suffix}",
        )


def write_seeds(
    network: SingleStageNetwork,
    dataset: VocDataset,
    folder: str | Path,
    *,
    seed_map: SeedMap = "cam",
    scales: Sequence[float] = SCALES,
    stride: int = 1,
    progress: bool = True,
) -> None:
    """Write the seed of every picture, its tags given: the normalised CAM, or the decoder's probabilities.

    Args:
        network: trained on tags, on the device to use.
        dataset: pictures and tags.
        folder: of the seeds.
        seed_map: "cam", or "decoder" where one was trained (absent classes out, the others sum to 1 again).
        scales: see ``multi_scale_maps``.
        stride: see ``write_seed``.
        progress: show a bar.
    """
    device = next(network.parameters()).device
    for picture in pictures_to_do(dataset, folder, ".npz", device, stage="seeds", progress=progress):
        decode = seed_map == "decoder"
        maps = multi_scale_maps(network, picture.image, picture.tags, scales=scales, decode=decode)
        seed = maps.cam
        if maps.probabilities is not None:
            seed = restrict_to_tags(maps.probabilities, picture.tags)[:, 1:]
        write_seed(picture.path, seed[0], stride=stride)


def write_walk_labels(
    dataset: VocDataset,
    seeds: str | Path,
    folder: str | Path,
    refine: Refine,
    *,
    foreground: float = 0.30,
    background: float = 0.05,
    device: torch.device,
    progress: bool = True,
) -> None:
    """Write ``walk_labels`` of seeds as palette PNGs.

    Args:
        dataset: pictures.
        seeds: folder of their seeds.
        folder: of the labels.
        refine, foreground, background: see ``walk_labels``.
        device: where to compute.
        progress: show a bar.
    """
    for picture in pictures_to_do(dataset, folder, ".png", device, stage="confident labels", progress=progress):
        seed = stored_seed(dataset, seeds, picture)
        labels = walk_labels(picture.image, seed, refine, foreground=foreground, background=background)
        write_mask(picture.path, labels[0])


def write_walked_seeds(
    network: WalkNetwork,
    dataset: VocDataset,
    seeds: str | Path,
    folder: str | Path,
    *,
    radius: int = 5,
    steps: int = 256,
    scaled: bool = False,
    clear_edges: bool = True,
    stride: int = 1,
    progress: bool = True,
) -> None:
    """Write the seeds after their walk, each picture's greatest value as great as before.

    IRNet divides by the greatest value, since the values of a seed only become smaller in a walk; its seeds are CAMs,
    whose greatest is 1. A decoder's probabilities may all be low in a picture, and stay so (our reading). After no step
    the seeds are what they were.

    AffinityNet's own code lets the background walk too, as one more map made of the seed. Here the background of both
    walks is a constant score beside the result (our reading): a constant map does not change in a walk, so it may as
    well be put there afterwards, and stays a setting of the next stage.

    Args:
        network: trained, on the device to use.
        dataset: pictures.
        seeds: folder of their seeds.
        folder: of the walked seeds.
        radius, steps: see ``random_walk``.
        scaled: whether these are for a map of the published size: a smaller picture is seen enlarged to it, for a
            larger one they are scaled (``published_view``, ``scaled_walk``).
        clear_edges: see ``propagate``.
        stride: see ``write_seed``.
        progress: show a bar.
    """
    device = next(network.parameters()).device
    published = PUBLISHED_SIDE / network.published_stride
    for picture in pictures_to_do(dataset, folder, ".npz", device, stage="random walk", progress=progress):
        seed = stored_seed(dataset, seeds, picture)
        view, own = normalise(picture.image), (radius, steps)
        if scaled:
            view = published_view(view)
            own = scaled_walk(radius, steps, min(view.shape[2:]) / network.stride / published)
        walked = network.walk(
            view, seed, size=picture.image.shape[2:], radius=own[0], steps=own[1], clear_edges=clear_edges
        ).clamp(min=0)
        walked *= seed.amax() / walked.amax().clamp(min=torch.finfo(walked.dtype).tiny)
        write_seed(picture.path, walked[0], stride=stride)


def write_pseudo_masks(
    dataset: VocDataset,
    seeds: str | Path,
    folder: str | Path,
    *,
    threshold: float,
    refine: Refine | None,
    device: torch.device,
    progress: bool = True,
) -> None:
    """Write the labels of seeds as palette PNGs: arg-max beside a constant background score, then refined.

    Args:
        dataset: pictures.
        seeds: folder of their seeds, walked or not.
        folder: of the masks.
        threshold: the background score, in [0, 1).
        refine: a dense CRF, or None.
        device: where to compute.
        progress: show a bar.
    """
    for picture in pictures_to_do(dataset, folder, ".png", device, stage="pseudo masks", progress=progress):
        labels = labels_at(stored_seed(dataset, seeds, picture), threshold)
        write_mask(picture.path, (labels if refine is None else refine(picture.image, labels))[0])


def write_predictions(
    network: Segmenter,
    dataset: VocDataset,
    folder: str | Path,
    *,
    scales: Sequence[float] = SCALES,
    tags_given: bool = False,
    refine: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: bool = True,
) -> None:
    """Write what a segmenter sees as palette PNGs: its arg-max over scales and mirror images.

    Args:
        network: on the device to use.
        dataset: pictures; their tags are used only if asked for.
        folder: of the masks.
        scales: see ``multi_scale_maps``.
        tags_given: leave out classes that a picture has no tag for, as when seeds are scored.
        refine: from pictures and probabilities to better ones, a dense CRF; or None.
        progress: show a bar.
    """
    device = next(network.parameters()).device
    for picture in pictures_to_do(dataset, folder, ".png", device, stage="predictions", progress=progress):
        probabilities = segmenter_probabilities(network, picture.image, scales=scales)
        if tags_given:
            probabilities = restrict_to_tags(probabilities, picture.tags)
        if refine is not None:
            probabilities = refine(picture.image, probabilities)
        write_mask(picture.path, probabilities.argmax(dim=1)[0])


def stored_seed(dataset: VocDataset, folder: str | Path, picture: Picture) -> Tensor:
    """The seed of a picture from its file, 1×K×H×W float32 on the picture's device.

    Raises:
        UserError: missing, unreadable, or made for another picture or other classes.
    """
    expected = (len(dataset.classes), *picture.image.shape[2:])
    seed = read_seed(Path(folder) / f"{picture.name}.npz", expected)
    return seed[None].to(picture.image.device)
