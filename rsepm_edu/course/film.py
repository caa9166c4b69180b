"""RecurSeed, epoch by epoch: what the averaged network said of a few pictures while it was trained.

Lesson 06 turns these pages. They were written by the run that trained the network `creatures_rs`
(train_checkpoints.py); nothing in them comes from a mask.
"""

import os
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.inference import evaluation_mode, restrict_to_tags
from rsepm_edu.files import atomic_path
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.saved import expect_sums
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.targets import Batch, refine

CREATURES_RS_FILM = "creatures_rs_film"
"""The first six pictures of Creatures' `train`: creatures_cam, then every second of eight epochs of RecurSeed."""


class Frame(NamedTuple):
    """The state after one epoch, for P pictures.

    cam, scg_map: P×K×h×w in [0, 1]; the normalised map, and SCG of it. rs_map: P×K×S×S, PAMR of that, stretched: the
    CAM's target in the epoch that follows. pseudo_mask: P×S×S int64, its conditional filter: the decoder's target.
    probabilities: P×(K+1)×S×S, the decoder's, absent classes left out.
    """

    cam: Tensor
    scg_map: Tensor
    rs_map: Tensor
    pseudo_mask: Tensor
    probabilities: Tensor


class Film(NamedTuple):
    """Frames of T epochs: each tensor of ``Frame`` with a leading T.

    epochs: how many epochs were done, one a frame. tags: P×K in {0, 1}.
    """

    epochs: tuple[int, ...]
    tags: Tensor
    cam: Tensor
    scg_map: Tensor
    rs_map: Tensor
    pseudo_mask: Tensor
    probabilities: Tensor

    def frame(self, index: int) -> Frame:
        """One page."""
        return Frame(*(getattr(self, name)[index] for name in Frame._fields))


@torch.no_grad()
def take_frame(config: TrainConfig, network: SingleStageNetwork, images: Tensor, tags: Tensor) -> Frame:
    """What a network says of pictures, and the targets that RecurSeed makes of it.

    Args:
        config: of the run; the pseudo mask's size and thresholds are taken from it.
        network: the averaged one, the teacher.
        images: P×3×H×W, normalised.
        tags: P×K in {0, 1}.
    """
    with evaluation_mode(network):
        outputs = network(images)
    refined = refine(config, Batch(images, tags, torch.ones_like(images[:, :1])), outputs)
    assert outputs.seg_logits is not None
    size = refined.pseudo_mask.shape[1:]
    logits = torch.nn.functional.interpolate(outputs.seg_logits, size=size, mode="bilinear", align_corners=False)
    probabilities = restrict_to_tags(logits.softmax(dim=1), tags)
    return Frame(normalize_cam(outputs.cam, tags), *refined, probabilities)


def save_film(path: str | os.PathLike[str], epochs: Sequence[int], tags: Tensor, frames: Sequence[Frame]) -> None:
    """Write frames as a compressed NumPy archive: present classes only, a byte a value.

    The large maps are rounded to 1/51, so that they compress; the background's probability is what the others leave
    of 1.
    """
    picture, label = tags.nonzero(as_tuple=True)

    def present(maps: Sequence[Tensor], levels: int) -> npt.NDArray[np.uint8]:
        chosen = torch.stack([map_[picture, label] for map_ in maps])
        return ((chosen * levels).round() * (255 // levels)).to(torch.uint8).numpy()

    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            epochs=np.asarray(epochs, np.int64),
            tags=tags.to(torch.uint8).numpy(),
            cam=present([frame.cam for frame in frames], 255),
            scg_map=present([frame.scg_map for frame in frames], 255),
            rs_map=present([frame.rs_map for frame in frames], 51),
            pseudo_mask=torch.stack([frame.pseudo_mask for frame in frames]).to(torch.uint8).numpy(),
            foreground=present([frame.probabilities[:, 1:] for frame in frames], 51),
        )


def load_film(name: str = CREATURES_RS_FILM) -> Film:
    """The film that comes with the package.

    Raises:
        UserError: the package holds no film of that name.
    """
    resource = files("rsepm_edu.course") / "checkpoints" / f"{name}.npz"
    if not resource.is_file():
        raise UserError(f"name: expected a film that comes with the lessons, got {name!r}")
    with as_file(resource) as path:
        return _read(path)


def _read(path: Path) -> Film:
    expect_sums(path, "a film of the lessons")
    with np.load(path) as saved:  # no pickles: NumPy refuses them unless asked
        arrays = {name: torch.from_numpy(saved[name]) for name in saved.files}
    tags = arrays["tags"].float()
    picture, label = tags.nonzero(as_tuple=True)

    def spread(maps: Tensor) -> Tensor:
        full = torch.zeros(maps.shape[0], *tags.shape, *maps.shape[2:])
        full[:, picture, label] = maps.float() / 255
        return full

    foreground = spread(arrays["foreground"])
    background = (1 - foreground.sum(dim=2, keepdim=True)).clamp(min=0)
    return Film(
        tuple(arrays["epochs"].tolist()),
        tags,
        spread(arrays["cam"]),
        spread(arrays["scg_map"]),
        spread(arrays["rs_map"]),
        arrays["pseudo_mask"].long(),
        torch.cat([background, foreground], dim=2),
    )
