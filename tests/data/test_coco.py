import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.data.coco import ANNOTATIONS, PICTURES, get_coco
from rsepm_edu.data.download import Archive
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError

# Category ids have gaps, as COCO's have: label 1 is 3, label 2 is 10.
CATEGORIES = [{"id": 10, "name": "traffic light"}, {"id": 3, "name": "car"}]
HEIGHT, WIDTH = 20, 30


def box(x: int, y: int, width: int, height: int) -> list[list[int]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def instances(split: str) -> dict[str, Any]:
    """Three pictures: a light on a car, a crowd alone, nothing."""
    images = [
        {"id": n, "file_name": f"COCO_{split}2014_{n:012}.jpg", "height": HEIGHT, "width": WIDTH} for n in (1, 2, 3)
    ]
    light = {"id": 1, "image_id": 1, "category_id": 10, "iscrowd": 0, "area": 16, "segmentation": box(6, 6, 4, 4)}
    car = {"id": 2, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 150, "segmentation": box(2, 2, 15, 10)}
    runs = {"counts": [0, 5 * HEIGHT, (WIDTH - 5) * HEIGHT], "size": [HEIGHT, WIDTH]}  # the first five columns
    crowd = {"id": 3, "image_id": 2, "category_id": 3, "iscrowd": 1, "area": 100, "segmentation": runs}
    return {"images": images, "annotations": [light, car, crowd], "categories": CATEGORIES}


def zipped(path: Path, content: dict[str, bytes]) -> tuple[Path, Archive]:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return path, Archive(path.name, (), size=path.stat().st_size, md5=md5, unpacked=0, licence="ours")


@pytest.fixture
def published(tmp_path: Path) -> dict[str, Any]:
    """Arguments of ``get_coco`` for a tiny COCO."""
    picture = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 30)).save(picture, "JPEG")
    listed = {
        f"annotations/instances_{split}2014.json": json.dumps(instances(split)).encode() for split in ("train", "val")
    }
    given, annotations = zipped(tmp_path / ANNOTATIONS.name, listed)
    paths, pictures = [given], {}
    for split in ("train", "val"):
        content = {f"{split}2014/{image['file_name']}": picture.getvalue() for image in instances(split)["images"]}
        path, pictures[split] = zipped(tmp_path / PICTURES[split].name, content)
        paths.append(path)
    return {"given": paths, "annotations": annotations, "pictures": pictures, "progress": False}


def test_coco_in_vocs_layout_by_hand(published: dict[str, Any], tmp_path: Path) -> None:
    folder = get_coco(tmp_path / "data", **published)
    assert os.listdir(tmp_path / "data") == ["coco2014"]
    for split in ("train", "val"):
        dataset = VocDataset(folder, split, masks=True)
        assert dataset.classes == ("car", "traffic light")
        assert dataset.names == [f"COCO_{split}2014_{n:012}" for n in (1, 2)]  # the third shows nothing
        assert dataset.tags.tolist() == [[1, 1], [1, 0]]

        expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        expected[2:12, 2:17] = 1
        expected[6:10, 6:10] = 2  # the smaller object lies on top
        assert torch.equal(dataset[0]["mask"].as_subclass(torch.Tensor), torch.from_numpy(expected))
        expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        expected[:, :5] = 1
        assert torch.equal(dataset[1]["mask"].as_subclass(torch.Tensor), torch.from_numpy(expected))


def test_tags_alone_of_one_split_and_only_once(published: dict[str, Any], tmp_path: Path) -> None:
    published["given"] = published["given"][:2]
    folder = get_coco(tmp_path / "data", splits=("train",), masks=False, **published)
    assert not (folder / "SegmentationClass").exists()
    assert len(VocDataset(folder, "train")) == 2
    with pytest.raises(UserError, match="expected a split"):
        VocDataset(folder, "val")
    assert get_coco(tmp_path / "data", given=["nowhere"]) == folder


def test_wrong_arguments_and_archives(published: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="splits: expected of train, val, got 'test'"):
        get_coco(tmp_path / "data", splits=("test",), **published)
    with pytest.raises(UserError, match="--from: expected files named annotations_trainval2014.zip, .*, got other.zip"):
        get_coco(tmp_path / "data", **published | {"given": ["other.zip"]})
    path, other = zipped(tmp_path / "train2014.zip", {"elsewhere/a.jpg": b""})
    published["pictures"]["train"] = other
    with pytest.raises(UserError, match="train2014.zip: expected train2014 in it, got no such entry"):
        get_coco(tmp_path / "data", **published)
    assert os.listdir(tmp_path / "data") == []
