"""Learning where seeds may walk: confident labels from seeds, then AffinityNet or IRNet's boundaries from the labels.

Nothing here reads a mask. The labels come from a trained network's CAMs, refined by a function that is given
(in the papers a dense CRF), and lie in a folder of their own, so that they can be looked at and made once.

Our reading, where it differs from IRNet's released code:
    * crops are cut and resized as in the training of the single-stage network, not scaled by 0.5 to 1.5 and padded;
    * labels are taken at the middle of each position of the affinities, not at its upper left corner;
    * AffinityNet learns from the same labels as IRNet; in its own code the two passes differ in the power of the
      background, not in a threshold.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from rsepm_edu.data.loading import derive_seed, epoch_loader
from rsepm_edu.data.palette import write_mask
from rsepm_edu.data.transforms import normalise, training_transform
from rsepm_edu.data.voc import Sample, VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.inference import SCALES, multi_scale_maps
from rsepm_edu.evaluation.thresholds import labels_at
from rsepm_edu.files import atomic_path, atomic_write_text
from rsepm_edu.methods.random_walk import affinity_labels, affinity_loss, confident_labels
from rsepm_edu.models.affinity import AffinityNetwork, BoundaryNetwork, WalkNetwork
from rsepm_edu.models.backbones import BACKBONES, Backbone, build_backbone
from rsepm_edu.models.device import resolve_device
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.checkpoint import read_config, read_state
from rsepm_edu.training.config import Settings
from rsepm_edu.training.loop import LAST, NotFiniteError, stopped
from rsepm_edu.training.optimizer import set_learning_rate

FORMAT = "walk 1"
# These may differ when a run is resumed: they do not change what it computes, or the checkpoint has their effect.
RESUMABLE = ("workers", "weights")

Kind = Literal["boundary", "affinity"]
Refine = Callable[[Tensor, Tensor], Tensor]
"""Pictures B×3×H×W uint8 and label maps B×H×W int64 (0 background, 1 … K) to better label maps."""


@dataclass(frozen=True)
class WalkConfig(Settings):
    """Settings of the training; sources in brackets ([I]: IRNet, Ahn et al. 2019; ours: chosen here)."""

    # --- what is learnt
    kind: Kind = "boundary"  # IRNet's class boundaries, or AffinityNet's features (affinity)
    split: str = "trainaug"  # pictures; of their annotations not even the tags are used
    seed: int = 0  # of weights, order and crops
    radius: int = 10  # of the pairs, in positions [I]; 5 for AffinityNet

    # --- network
    backbone: str = "resnet50"  # see rsepm_edu.models.backbones.BACKBONES [I]
    weights: str = "imagenet"  # "none", "imagenet" (downloaded) or a file, where no backbone is given [I]
    output_stride: int = 16  # [I]

    # --- optimiser: SGD
    epochs: int = 3  # [I]
    learning_rate: float = 0.1  # [I]
    momentum: float = 0.0  # [I: in effect 1e-4, the weight decay being passed in its place]; 0.9 learns faster (ours)
    weight_decay: float = 1e-4  # [I]
    poly_power: float = 0.9  # learning rate × (1 − step / steps) ^ power [I]
    batch_size: int = 32  # [I]

    # --- pictures
    size: int = 512  # crop, pixels [I]
    scale: tuple[float, float] = (0.35, 1.0)  # share of the picture's area in a crop (ours)
    workers: int = 8  # processes that read ahead

    def __post_init__(self) -> None:
        self._choice("kind", get_args(Kind))
        self._choice("backbone", BACKBONES)
        self._at_least("radius", 2)
        for name in ("epochs", "batch_size", "size"):
            self._at_least(name, 1)
        for name in ("weight_decay", "poly_power", "workers"):
            self._at_least(name, 0)
        self._positive("learning_rate")
        self._share("momentum")
        self._check_scale(self.scale)


WALK_PRESETS: dict[str, WalkConfig] = {
    # Generated pictures of 96 pixels on a CPU, above the backbone of a network trained on their tags. Not run yet.
    "creatures-cpu": WalkConfig(
        split="train",
        radius=5,
        backbone="creatures",
        weights="none",
        epochs=5,
        momentum=0.9,
        batch_size=16,
        size=96,
        scale=(0.5, 1.0),
        workers=0,
    ),
    # VOC 2012 trainaug on one GPU. Not run yet: the published settings where there are any.
    "voc-gpu": WalkConfig(),
}


def walk_labels(
    images: Tensor, seed: Tensor, refine: Refine, *, foreground: float = 0.30, background: float = 0.05
) -> Tensor:
    """Confident labels of a batch: two passes, one that trusts the classes and one that trusts the background.

    Args:
        images: B×3×H×W uint8.
        seed: B×K×H×W in [0, 1], absent classes 0.
        refine: a dense CRF on labels in the papers.
        foreground: background score of the first pass; 0.30 in IRNet, 0.40 in Puzzle-CAM.
        background: background score of the second; 0.05 in IRNet, 0.10 in Puzzle-CAM.

    Returns:
        B×H×W, 0 background, 1 … K, 255 void (see ``confident_labels``).

    Raises:
        ValueError: the thresholds are not 0 <= background < foreground < 1.
    """
    if not 0 <= background < foreground < 1:
        raise ValueError(f"expected 0 <= background < foreground < 1, got {background} and {foreground}")
    first, second = (refine(images, labels_at(seed, threshold)) for threshold in (foreground, background))
    return confident_labels(first, second)


def write_walk_labels(
    network: SingleStageNetwork,
    dataset: VocDataset,
    folder: str | Path,
    refine: Refine,
    *,
    foreground: float = 0.30,
    background: float = 0.05,
    scales: Sequence[float] = SCALES,
    progress: bool = True,
) -> None:
    """Write ``walk_labels`` of a network's CAMs as palette PNGs, one a picture; those that are there already stay.

    Args:
        network: trained on tags.
        dataset: pictures and tags.
        folder: of the labels; another one for other settings.
        refine, foreground, background: see ``walk_labels``.
        scales: see ``multi_scale_maps``.
        progress: show a bar.
    """
    device = next(network.parameters()).device
    for index, name in enumerate(tqdm(dataset.names, desc="labels", disable=not progress, leave=False)):
        path = Path(folder) / f"{name}.png"
        if path.is_file():
            continue
        sample = dataset.sample(index, masks=False)
        images, tags = sample["image"].as_subclass(Tensor)[None].to(device), sample["tags"][None].to(device)
        cam = multi_scale_maps(network, images, tags, scales=scales, decode=False).cam
        write_mask(path, walk_labels(images, cam, refine, foreground=foreground, background=background)[0])


class LabelledDataset(VocDataset):
    """The pictures of a split with labels from a folder of PNGs in the place of masks.

    Args:
        root, split: see ``VocDataset``.
        labels: folder with <name>.png for every picture.
        transform: see ``VocDataset``.

    Raises:
        UserError: as ``VocDataset``, or a label is missing.
    """

    def __init__(
        self, root: str | Path, split: str, labels: str | Path, *, transform: Callable[[Sample], Any] | None = None
    ) -> None:
        super().__init__(root, split, masks=True, transform=transform)
        self.labels = Path(labels)
        missing = next((name for name in self.names if not self.mask_path(name).is_file()), None)
        if missing is not None:
            raise UserError(f"{self.mask_path(missing)}: expected labels of a picture of {split}, got no such file")

    def mask_path(self, name: str) -> Path:
        """Where the labels of that picture lie."""
        return self.labels / f"{name}.png"


def build_walk_network(config: WalkConfig, *, weights: str | None = None) -> WalkNetwork:
    """The network of a run, with the backbone's weights it starts from or those named by ``weights``."""
    backbone = build_backbone(
        config.backbone,
        output_stride=config.output_stride,
        weights=config.weights if weights is None else weights,
    )
    return {"boundary": BoundaryNetwork, "affinity": AffinityNetwork}[config.kind](backbone)


def load_walk_network(path: str | Path) -> WalkNetwork:
    """The network of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        UserError: missing, unreadable, or not a checkpoint of this training.
    """
    state = read_state(Path(path), FORMAT)
    network = build_walk_network(read_config(Path(path), state, WalkConfig), weights="none")
    network.load_state_dict(state["network"])
    return network.eval()


def train_walk(
    config: WalkConfig,
    root: str | Path,
    labels: str | Path,
    out: str | Path,
    *,
    backbone: Backbone | None = None,
    resume: bool = False,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> WalkNetwork:
    """Train on confident labels and leave config.json, log.jsonl (a line an epoch) and last.pt in ``out``.

    Args:
        config: the settings.
        root: data, see ``VocDataset``.
        labels: folder of labels, see ``LabelledDataset``.
        out: folder of the run.
        backbone: one of ``config.backbone`` whose weights are copied; None: built with ``config.weights``.
        resume: go on from ``out``/last.pt; on the CPU the result is bit for bit that of a run never stopped.
        device: default: the GPU if there is one.
        progress: show a bar.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: data, settings or folder do not go together.
        NotFiniteError: the loss left the finite numbers; last.pt is the last good state.
    """
    out = Path(out)
    device = resolve_device(device)
    transform = partial(_image_and_labels, training_transform(config.size, scale=config.scale))
    dataset = LabelledDataset(root, config.split, labels, transform=transform)
    state = _previous(config, out / LAST, resume=resume)
    torch.manual_seed(derive_seed(config.seed, "weights"))
    network = build_walk_network(config, weights=None if state is None and backbone is None else "none")
    if state is not None:
        network.load_state_dict(state["network"])
    elif backbone is not None:
        _copy_weights(backbone, network.backbone, config.backbone)
    network = network.to(device).train()
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(
        [{"params": learnt, "factor": 1.0}],
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    rows: list[dict[str, Any]] = []
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        rows = json.loads(state["rows"])
    atomic_write_text(out / "config.json", config.to_json())
    for epoch in range(len(rows), config.epochs):
        try:
            rows.append(_run_epoch(config, network, optimizer, dataset, epoch=epoch, progress=progress))
        except NotFiniteError as error:
            raise stopped(error, out / LAST) from None
        with atomic_path(out / LAST) as temporary:
            torch.save(
                {
                    "format": FORMAT,
                    "config": json.dumps(config.to_dict()),  # plain text, so that weights_only loading is enough
                    "rows": json.dumps(rows),
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                },
                temporary,
            )
        atomic_write_text(out / "log.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    return network.eval()


def pair_loss(network: WalkNetwork, images: Tensor, labels: Tensor, *, radius: int) -> Tensor:
    """The loss of either network on a batch.

    Args:
        network: whose affinities are compared with the labels.
        images: B×3×H×W normalised.
        labels: B×H×W uint8, 255 void; taken at the middle of each position of the affinities.
        radius: of the pairs, in positions.

    Returns:
        A scalar (see ``affinity_loss``).
    """
    affinity = network.affinity(images, radius=radius)
    at_stride = F.interpolate(labels[:, None].float(), size=affinity.shape[2:], mode="nearest-exact")[:, 0]
    return affinity_loss(affinity, affinity_labels(at_stride.to(torch.uint8), radius=radius))


def _image_and_labels(transform: Callable[[Sample], Sample], sample: Sample) -> tuple[Tensor, Tensor]:
    moved = transform(sample)
    return moved["image"].as_subclass(Tensor), moved["mask"].as_subclass(Tensor)


def _run_epoch(
    config: WalkConfig,
    network: WalkNetwork,
    optimizer: torch.optim.Optimizer,
    dataset: LabelledDataset,
    *,
    epoch: int,
    progress: bool,
) -> dict[str, Any]:
    device = next(network.parameters()).device
    loader = epoch_loader(
        dataset,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=epoch,
        workers=config.workers,
        pin=device.type == "cuda",
    )
    total, rate, started = 0.0, 0.0, time.perf_counter()
    bar = tqdm(loader, desc=f"epoch {epoch + 1}/{config.epochs} {config.kind}", disable=not progress, leave=False)
    for batch, (images, labels) in enumerate(bar):
        step = epoch * len(loader) + batch
        rate = set_learning_rate(optimizer, config, step=step, steps=config.epochs * len(loader))
        images, labels = (tensor.to(device, non_blocking=True) for tensor in (images, labels))
        loss = pair_loss(network, normalise(images), labels, radius=config.radius)
        value = loss.detach()
        if not value.isfinite():
            raise NotFiniteError(f"the loss is {float(value)} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += float(value) / len(loader)
        bar.set_postfix(loss=f"{float(value):.3f}")
    seconds = round(time.perf_counter() - started, 2)
    return {"epoch": epoch + 1, "loss": total, "learning_rate": rate, "seconds": seconds}


def _previous(config: WalkConfig, path: Path, *, resume: bool) -> dict[str, Any] | None:
    """The state to go on from, checked against what is asked for now."""
    if not resume:
        if path.is_file():
            raise UserError(f"{path}: expected a new folder or resume=True, got a run that is there already")
        return None
    state = read_state(path, FORMAT)
    before = read_config(path, state, WalkConfig)
    unimportant = {name: getattr(config, name) for name in RESUMABLE}
    for name, value in replace(before, **unimportant).to_dict().items():
        now = getattr(config, name)
        if value != now:
            raise UserError(f"{path}: expected {name} = {value!r} as in the run to resume, got {now!r}")
    return state


def _copy_weights(source: Backbone, target: Backbone, name: str) -> None:
    try:
        target.load_state_dict(source.state_dict())
    except RuntimeError as error:  # names or shapes
        raise UserError(f"backbone: expected one of {name}, got other weights: {str(error).splitlines()[0]}") from error
