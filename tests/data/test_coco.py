import hashlib
import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.data.coco import ANNOTATIONS, PICTURES, get_coco, read_instances
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


def edited(change: Any) -> bytes:
    data = instances("train")
    change(data)
    return json.dumps(data).encode()


def annotation(**values: Any) -> Any:
    return lambda data: data["annotations"][1].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (annotation(segmentation=[]), ", annotation 2: expected a polygon of 6 numbers or more, .*, got []"),
        (annotation(segmentation=[[1, 2, 3, 4]]), ", annotation 2: expected a polygon of 6 numbers or more, .*"),
        (annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), ", annotation 2: expected a polygon of 6 numbers .*"),
        (
            annotation(segmentation=[[1, 2, 3, 4, 5, float("nan")]]),
            ", annotation 2: expected polygons, lists of numb.*",
        ),
        (annotation(segmentation=[[1, 2, 3, 4, 5, 1e30]]), ", annotation 2: expected polygons about its picture .*"),
        (annotation(segmentation=None), ", annotation 2: expected polygons or a list of runs, got None"),
        (annotation(segmentation={"counts": [600]}), ", annotation 2: expected runs for its picture .*"),
        (annotation(segmentation={"counts": [6], "size": [20, 30]}), ", annotation 2: expected runs for its .*, 6"),
        (annotation(segmentation={"counts": "01", "size": [20, 30]}), ", annotation 2: expected polygons or a list .*"),
        (annotation(category_id=4), ", annotation 2: expected a picture and a category of the file, got others"),
        (annotation(image_id=7), ", annotation 2: expected a picture and a category of the file, got others"),
        (annotation(area=float("nan")), ", annotation 2: expected an area, got nan"),
        (annotation(area=None), ": expected annotations with area, got entry 1 = .*"),
        (annotation(id=1), ": expected annotations with an id each, got one twice"),
        (lambda data: data.pop("categories"), ": expected a list of categories, got none"),
        (lambda data: data["images"][0].update(height=10**9), ": expected 1 to 134217728 pixels, got 30×1000000000 .*"),
        (lambda data: data["images"][0].update(file_name=data["images"][1]["file_name"]), ": .* got one twice"),
    ],
)
def test_instances_that_pycocotools_would_misread_or_fail_on(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(edited(change))
    with pytest.raises(UserError) as info:
        read_instances(path)
    assert re.fullmatch(re.escape(str(path)) + message.replace("[]", r"\[\]"), str(info.value)), str(info.value)


def test_a_line_among_polygons_encloses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(edited(annotation(segmentation=[[1, 1, 9, 9], *box(2, 2, 15, 10)])))
    assert read_instances(path)["annotations"][1]["segmentation"] == box(2, 2, 15, 10)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe{}", b"[" * 100_000])
def test_files_that_are_no_instances(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json: expected "):
        read_instances(tmp_path / "a.json")
