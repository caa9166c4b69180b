"""Every reader of the package with a whole file for it, small enough to be read a thousand times."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from rsepm_edu.data.coco import read_instances
from rsepm_edu.data.palette import read_mask, write_mask
from rsepm_edu.data.pictures import read_image
from rsepm_edu.data.seeds import read_seed, write_seed
from rsepm_edu.data.voc import VocDataset, tags_from_xml
from rsepm_edu.evaluation.tables import read_rows
from rsepm_edu.models.backbones import load_weights
from rsepm_edu.multistage.records import claim
from rsepm_edu.multistage.segmentation import FORMAT as SEGMENTER
from rsepm_edu.multistage.segmentation import SegmentationConfig, load_segmenter, segmenter_from_config
from rsepm_edu.multistage.walk import FORMAT as WALK
from rsepm_edu.multistage.walk import WalkConfig, build_walk_network, load_walk_network
from rsepm_edu.training.checkpoint import load_network, save_checkpoint
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.keeping import find_previous
from rsepm_edu.training.loop import Trainer
from rsepm_edu.training.report import TrainingLog
from tests.damaged.damage import BROKEN_OFF, BYTES, TEXT, Damage, edit, edit_json, edit_json_line, other_declaration

CLASSES = ("cat", "dog", "cow")


@dataclass(frozen=True)
class Reader:
    """One way in which a file is read.

    make: writes a whole file and returns its path. read: what is in it, as something that can be compared. damages:
    what is done to it. exact: those of them that a check can show, so that what is read is right or refused. count: how
    many are tried in an ordinary run.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    damages: tuple[Damage, ...]
    exact: tuple[Damage, ...]
    count: int


# pictures


def _pixels(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _picture(name: str, folder: Path, **settings: Any) -> Path:
    Image.fromarray(_pixels(0, 24, 32, 3)).save(folder / name, **settings)
    return folder / name


def _exif_jpeg(folder: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "A camera", 72.0
    return _picture("a.jpg", folder, exif=exif)


def _transparent(folder: Path) -> Path:
    Image.fromarray(_pixels(0, 24, 32, 4)).save(folder / "a.png")
    return folder / "a.png"


def _deep(folder: Path) -> Path:
    Image.fromarray(_pixels(0, 24, 32).astype(np.uint16) * 250).save(folder / "a.png")
    return folder / "a.png"


def _mask(folder: Path) -> Path:
    write_mask(folder / "a.png", _pixels(0, 24, 32) % 21)
    return folder / "a.png"


# a data set


def _devkit(folder: Path) -> Path:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    for number in range(6):
        (folder / "JPEGImages" / f"p{number}.jpg").touch()
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>1</xmin></bndbox></object>" for name in CLASSES[: number % 3 + 1]
        )
        (folder / "Annotations" / f"p{number}.xml").write_text(
            f'<?xml version="1.0" encoding="UTF-8"?>\n<annotation>\n{objects}\n</annotation>\n'
        )
    (folder / "ImageSets/Segmentation/train.txt").write_text("".join(f"p{number}\n" for number in range(6)))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    for label, name in enumerate(CLASSES):
        lines = (f"p{number} {1 if number % 3 >= label else -1:2d}\n" for number in range(6))
        (folder / "ImageSets/Main" / f"{name}_train.txt").write_text("".join(lines))
    return folder


def _part(name: str, folder: Path) -> Path:
    return _devkit(folder) / name


def _read_devkit(parts: int, path: Path, tags_from: Any = "xml") -> Any:
    dataset = VocDataset(path.parents[parts], "train", tags_from=tags_from)
    assert len(set(dataset.names)) == len(dataset) and set(dataset.names) <= {f"p{number}" for number in range(6)}
    return dataset.names, dataset.classes, dataset.tags


def _read_xml(path: Path) -> torch.Tensor:
    return tags_from_xml(path, CLASSES)


# what was saved


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def _weights(folder: Path) -> Path:
    torch.save(_network().state_dict(), folder / "a.pth")
    return folder / "a.pth"


def _read_weights(path: Path) -> Any:
    network = _network()
    load_weights(network, path)
    return network.state_dict()


def _tiny() -> TrainConfig:
    return TrainConfig(
        split="train",
        backbone="creatures",
        weights="none",
        separable=True,
        batch_size=2,
        size=32,
        workers=0,
        decoder_channels=4,
        decoder_rates=(1, 2),
    )


def _checkpoint(folder: Path) -> Path:
    trainer = Trainer(_tiny(), CLASSES, torch.device("cpu"))
    trainer.epoch, trainer.batch, trainer.totals = 3, 1, {"tags": 0.5, "seconds": 2.0}
    save_checkpoint(folder / "last.pt", trainer.checkpoint())
    return folder / "last.pt"


def _read_network(path: Path) -> Any:
    return load_network(path).state_dict()


def _read_run(path: Path) -> Any:
    """As a run that goes on does."""
    previous = find_previous(_tiny(), CLASSES, path.parent, None, resume=True)
    assert previous is not None
    trainer = Trainer(replace(_tiny(), seed=1), CLASSES, torch.device("cpu"))
    trainer.restore(previous, path)
    state = trainer.checkpoint()
    return state.epoch, state.batch, state.totals, state.network, state.ema, state.optimizer


def _segmenter(folder: Path) -> Path:
    config = SegmentationConfig(backbone="creatures", weights="none", channels=4, rates=(1, 2), separable=True)
    network = segmenter_from_config(config, CLASSES)
    state = {"format": SEGMENTER, "config": json.dumps(config.to_dict()), "classes": list(CLASSES)}
    torch.save(state | {"network": network.state_dict()}, folder / "last.pt")
    return folder / "last.pt"


def _walk(folder: Path) -> Path:
    config = WalkConfig(backbone="creatures", weights="none")
    network = build_walk_network(config, "boundary").state_dict()
    state = {"format": WALK, "kind": "boundary", "config": json.dumps(config.to_dict()), "network": network}
    torch.save(state, folder / "last.pt")
    return folder / "last.pt"


def edit_saved(content: bytes, draw: random.Random) -> bytes:
    """An entry of a checkpoint or of its JSON edited by hand."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    if "config" in state and draw.random() < 0.4:
        state["config"] = json.dumps(edit(json.loads(state["config"]), draw))
    else:
        state = edit(state, draw)
    edited = io.BytesIO()
    torch.save(state, edited)
    return edited.getvalue()


def edit_arrays(content: bytes, draw: random.Random) -> bytes:
    """An array of a seed missing, or of another kind, shape or value."""
    with np.load(io.BytesIO(content)) as stored:
        arrays = dict(stored)
    name = draw.choice(list(arrays))
    array = arrays.pop(name)
    kinds = ("int8", "float64", "bool", "complex64", "U3", None)
    ways: tuple[Callable[[], Any], ...] = (
        lambda: array.astype(draw.choice(kinds[:5])),
        lambda: array[None],
        lambda: array[:-1],
        lambda: (array * draw.choice((-1.0, 2.0, 100.0))).astype("int64" if array.dtype.kind in "iu" else array.dtype),
        lambda: np.array([{"a": 1}], dtype=object),
        lambda: np.array(7),
    )
    way = draw.randrange(len(ways) + 1)
    if way < len(ways):
        arrays[name] = ways[way]()
    edited = io.BytesIO()
    np.savez(edited, **arrays)
    return edited.getvalue()


def _seed(folder: Path) -> Path:
    write_seed(folder / "a.npz", torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0)), stride=2)
    return folder / "a.npz"


# what a run leaves


def _log(folder: Path) -> Path:
    lines = [json.dumps({"epoch": epoch, "losses": {"tags": 0.5 / epoch}}) for epoch in (1, 2, 3)]
    (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder / "log.jsonl"


def _read_log(path: Path) -> Any:
    log = TrainingLog(path.parent, None, None, keep_epochs=2)  # type: ignore[arg-type]  # which are for pictures alone
    log.board.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


RECORD = {"seeds": {"network": "0f", "scales": [0.5, 1.0]}, "labels": {"foreground": 0.3}}


def _stage(folder: Path) -> Path:
    claim(folder / "run", RECORD)
    (folder / "run" / "p0.npz").touch()
    return folder / "run" / "stage.json"


def _read_stage(path: Path) -> Any:
    claim(path.parent, RECORD)
    return json.loads(path.read_bytes())


def _table(folder: Path) -> Path:
    row = {"method": "cam", "miou": 41.5, "fp": 0.2, "fn": None, "threshold": 0.3, "oracle": True, "seed": 0}
    (folder / "table.json").write_text(json.dumps([row | {"choice": "oracle"}, row | {"choice": "oracle", "seed": 1}]))
    return folder / "table.json"


def _instances(folder: Path) -> Path:
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 20, "width": 30} for n in (1, 2)]
    outlines: list[Any] = [[[2, 2, 9, 2, 9, 9]], {"counts": [100, 100, 400], "size": [20, 30]}]
    annotations = [
        {"id": n, "image_id": n, "category_id": 3, "area": 9.5, "iscrowd": n - 1, "segmentation": outlines[n - 1]}
        for n in (1, 2)
    ]
    data = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "car"}]}
    (folder / "instances.json").write_text(json.dumps(data))
    return folder / "instances.json"


JSON_TEXT = (*TEXT, *[edit_json] * len(TEXT))

READERS = {
    "JPEG": Reader(partial(_picture, "a.jpg"), read_image, BYTES, BROKEN_OFF, 60),
    "progressive JPEG": Reader(partial(_picture, "a.jpg", progressive=True), read_image, BYTES, BROKEN_OFF, 40),
    "turned JPEG": Reader(_exif_jpeg, read_image, BYTES, BROKEN_OFF, 60),
    "PNG": Reader(partial(_picture, "a.png"), read_image, BYTES, BYTES, 50),
    "transparent PNG": Reader(_transparent, read_image, BYTES, BYTES, 30),
    "16-bit PNG": Reader(_deep, read_image, BYTES, BYTES, 30),
    "TIFF": Reader(partial(_picture, "a.tif"), read_image, BYTES, (), 40),
    "compressed TIFF": Reader(partial(_picture, "a.tif", compression="tiff_lzw"), read_image, BYTES, (), 20),
    "BMP": Reader(partial(_picture, "a.bmp"), read_image, BYTES, (), 30),
    "GIF": Reader(partial(_picture, "a.gif"), read_image, BYTES, (), 30),
    "WebP": Reader(partial(_picture, "a.webp"), read_image, BYTES, (), 30),
    "mask": Reader(_mask, read_mask, BYTES, BYTES, 80),
    "split": Reader(partial(_part, "ImageSets/Segmentation/train.txt"), partial(_read_devkit, 2), TEXT, (), 70),
    "classes": Reader(partial(_part, "classes.txt"), partial(_read_devkit, 0), TEXT, (), 40),
    "tags in lists": Reader(
        partial(_part, "ImageSets/Main/dog_train.txt"), partial(_read_devkit, 2, tags_from="lists"), TEXT, (), 50
    ),
    "tags in XML": Reader(partial(_part, "Annotations/p1.xml"), _read_xml, (*TEXT, *[other_declaration] * 5), (), 80),
    "weights": Reader(_weights, _read_weights, (*BYTES, edit_saved), BYTES, 60),
    "checkpoint": Reader(_checkpoint, _read_network, (*BYTES, *[edit_saved] * 4), BYTES, 50),
    "run": Reader(_checkpoint, _read_run, (*BYTES, *[edit_saved] * 12), BYTES, 40),
    "segmenter": Reader(_segmenter, lambda path: load_segmenter(path).state_dict(), (*BYTES, edit_saved), BYTES, 20),
    "walk network": Reader(_walk, lambda path: load_walk_network(path).state_dict(), (*BYTES, edit_saved), BYTES, 20),
    "seed": Reader(_seed, read_seed, (*BYTES, *[edit_arrays] * 4), BYTES, 70),
    "log": Reader(_log, _read_log, (*TEXT, *[edit_json_line] * 9), (), 30),
    "stage": Reader(_stage, _read_stage, JSON_TEXT, (), 40),
    "table": Reader(_table, lambda path: [repr(row) for row in read_rows(path)], JSON_TEXT, (), 40),
    "COCO": Reader(_instances, read_instances, JSON_TEXT, (), 60),
}
