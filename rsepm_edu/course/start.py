"""The first line of every lesson: what runs here, on which device, data and seed?"""

import os
import platform
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torchvision

import rsepm_edu
from rsepm_edu.course.networks import CREATURES_CAM, CREATURES_PUZZLE, load_lesson_network
from rsepm_edu.data.creatures import data_folder, ensure_creatures
from rsepm_edu.data.transforms import fit_square
from rsepm_edu.data.voc import VocDataset, find_devkit, read_classes
from rsepm_edu.data.voc_download import get_voc
from rsepm_edu.errors import UserError
from rsepm_edu.models.network import SingleStageNetwork
from rsepm_edu.training.checkpoint import load_checkpoint, load_network
from rsepm_edu.training.config import TrainConfig, preset

DatasetName = Literal["creatures", "voc"]

SIDE = 256
"""Pixels of a photograph's longer side in the lessons."""

VOC_ROOT = "RSEPM_EDU_VOC"
VOC_NETWORK = "RSEPM_EDU_VOC_NETWORK"
VOC_PUZZLE = "RSEPM_EDU_VOC_PUZZLE"


@dataclass(frozen=True)
class Course:
    """What a lesson works with.

    root: the data, in VOC's folder layout. classes: names of the K classes, background not among
    them. versions: of what computes here, by name.
    """

    lesson: str
    dataset: DatasetName
    root: Path
    classes: tuple[str, ...]
    device: torch.device
    seed: int
    versions: dict[str, str]

    def pictures(self, split: str | None = None) -> VocDataset:
        """Pictures with tags and masks of a split; default: `val` of Creatures, `train` of VOC.

        Photographs, which have many sizes, are fitted into squares of `SIDE` pixels, so that lessons can batch them.
        Masks are there to look at and to score with. Nothing in a lesson learns from them.
        """
        if split is None:
            split = "val" if self.dataset == "creatures" else "train"
        fit = None if self.dataset == "creatures" else partial(fit_square, side=SIDE)
        return VocDataset(self.root, split, masks=True, transform=fit)

    def network(self, name: str = CREATURES_CAM) -> SingleStageNetwork:
        """A trained network, on the device, in evaluation mode; by default for classification alone.

        For Creatures it comes with the package. For VOC it is the checkpoint that the environment
        variable RSEPM_EDU_VOC_NETWORK names, or for Puzzle-CAM RSEPM_EDU_VOC_PUZZLE; where there is
        none of Puzzle-CAM, the first stands in for it, and a printed line says so.

        Args:
            name: of a network of the package, see `rsepm_edu.course.networks`.

        Raises:
            UserError: no checkpoint, or one for other classes.
        """
        if self.dataset == "creatures":
            network = load_lesson_network(name)
        else:
            variable = VOC_PUZZLE if name == CREATURES_PUZZLE else VOC_NETWORK
            if variable == VOC_PUZZLE and not os.environ.get(VOC_PUZZLE):
                print(f"{VOC_PUZZLE} names no network trained with Puzzle-CAM: that of {VOC_NETWORK} stands in for it.")
                variable = VOC_NETWORK
            network = load_network(_from_environment(variable, _HOW_TO_TRAIN))
        if network.classes != self.classes:
            raise UserError(
                f"network: expected the classes {', '.join(self.classes)} of {self.root}, "
                f"got {', '.join(network.classes)}"
            )
        return network.to(self.device)

    def settings(self) -> TrainConfig:
        """Settings for all phases of a run that goes on from `network()`: no weights are loaded from elsewhere.

        For Creatures the preset. For VOC those of the run that left the checkpoint, so that its weights fit.

        Raises:
            UserError: no checkpoint.
        """
        if self.dataset == "creatures":
            return preset("creatures-cpu")
        config = load_checkpoint(_from_environment(VOC_NETWORK, _HOW_TO_TRAIN)).config
        return replace(config, method="rs", mixing="epm", weights="none")


def start(lesson: str = "01", *, dataset: DatasetName = "creatures", seed: int = 0, download: bool = False) -> Course:
    """Get a lesson ready: seed torch, find or make the data, say in four lines what is used.

    Never needs a GPU or, for Creatures, a network: the pictures are drawn on the first call and
    kept (in $RSEPM_EDU_DATA, else ~/.cache/rsepm-edu).

    Args:
        lesson: its number, for the record.
        dataset: "creatures", or "voc": the devkit in the folder that the environment variable
            RSEPM_EDU_VOC names; where it is not set, in `voc` beside the kept Creatures.
        seed: of torch's generator.
        download: get VOC 2012 (2 GB) where it is missing. Creatures are never downloaded.

    Raises:
        UserError: an unknown data set; no VOC, and no download; or see ``get_voc``.
    """
    if dataset not in get_args(DatasetName):
        raise UserError(f"dataset: expected {' or '.join(get_args(DatasetName))}, got {dataset!r}")
    torch.manual_seed(seed)
    root = ensure_creatures() if dataset == "creatures" else _voc_root(download=download)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    course = Course(
        lesson=lesson,
        dataset=dataset,
        root=root,
        classes=read_classes(root),
        device=device,
        seed=seed,
        versions={
            "rsepm-edu": rsepm_edu.__version__,
            "Python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
    )
    print(f"Lesson {lesson}, seed {seed}")
    print(", ".join(f"{name} {version}" for name, version in course.versions.items()))
    print(f"Device: {_describe(device, dataset)}")
    print(f"Data: {dataset}, {len(course.classes)} classes, in {_short(root)}")
    return course


_HOW_TO_TRAIN = "the file last.pt of a run of `rsepm-edu train` on that data"


def _voc_root(*, download: bool) -> Path:
    folder = Path(os.environ.get(VOC_ROOT) or data_folder() / "voc")
    if download:
        with suppress(UserError):  # there already, wherever VocDataset would find it
            return find_devkit(folder)
        return get_voc(folder)
    if not os.environ.get(VOC_ROOT) and not folder.exists():
        raise UserError(
            f"{VOC_ROOT}: expected this environment variable to name the folder of PASCAL VOC 2012 that holds "
            'JPEGImages, or start(…, dataset="voc", download=True) to get it (2 GB)'
        )
    return find_devkit(folder)


def _from_environment(name: str, expected: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise UserError(f"{name}: expected this environment variable to name {expected}")
    return value


def _describe(device: torch.device, dataset: str) -> str:
    if device.type == "cuda":
        return f"GPU, {torch.cuda.get_device_name()}"
    enough = "enough for this lesson" if dataset == "creatures" else "slow on photographs"
    return f"CPU, no GPU found ({enough})"


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)
