import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from rsepm_edu.data.download import Archive
from rsepm_edu.data.palette import read_mask
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.data.voc_download import SBD, VOC_2012, get_sbd, get_voc
from rsepm_edu.errors import UserError


def describe(path: Path) -> Archive:
    """A file as if it were published, at no address."""
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return Archive(path.name, (), size=path.stat().st_size, md5=md5, unpacked=0, licence="ours")


@pytest.fixture
def voc_tar(creatures: Path, tmp_path: Path) -> Path:
    path = tmp_path / VOC_2012.name
    with tarfile.open(path, "w") as tar:
        tar.add(creatures, "VOCdevkit/VOC2012")
    return path


def test_voc_lies_where_the_reader_looks_and_is_got_once(voc_tar: Path, creatures: Path, tmp_path: Path) -> None:
    devkit = get_voc(tmp_path / "data", given=voc_tar, archive=describe(voc_tar), progress=False)
    assert devkit == tmp_path / "data" / "VOCdevkit" / "VOC2012"
    assert os.listdir(tmp_path / "data") == ["VOCdevkit"] and os.listdir(devkit.parent) == ["VOC2012"]
    ours, theirs = VocDataset(tmp_path / "data", "val", masks=True), VocDataset(creatures, "val", masks=True)
    assert torch.equal(ours[0]["image"], theirs[0]["image"]) and torch.equal(ours[0]["mask"], theirs[0]["mask"])
    assert get_voc(tmp_path / "data", given=tmp_path / "none", progress=False) == devkit


def test_another_archive_is_refused_and_leaves_nothing(voc_tar: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"expected VOCtrainval_11-May-2012.tar, got .* where it has {VOC_2012.size}"):
        get_voc(tmp_path / "data", given=voc_tar, progress=False)
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w") as tar:
        tar.add(voc_tar, "something")
    with pytest.raises(UserError, match="other.tar: expected VOCdevkit/VOC2012/JPEGImages in it"):
        get_voc(tmp_path / "data", given=other, archive=describe(other), progress=False)
    assert os.listdir(tmp_path / "data" / "VOCdevkit") == []


def test_a_folder_that_is_something_else_is_left_alone(voc_tar: Path, tmp_path: Path) -> None:
    (tmp_path / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    with pytest.raises(UserError, match="expected VOC 2012 or nothing"):
        get_voc(tmp_path, given=voc_tar, archive=describe(voc_tar), progress=False)


@pytest.fixture
def devkit(creatures: Path, tmp_path: Path) -> Path:
    """A devkit whose split trainaug has pictures with and without a mask of VOC's own."""
    devkit = Path(shutil.copytree(creatures, tmp_path / "VOC2012"))
    names = (devkit / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    (devkit / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("\n".join(names))
    for name in names[2:]:
        (devkit / "SegmentationClass" / f"{name}.png").unlink()
    return devkit


def sbd_tgz(path: Path, names: list[str], labels: np.ndarray) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in [*names, "2008_000000"]:
            for kind, key in (("cls", "GTcls"), ("inst", "GTinst")):
                data = io.BytesIO()
                savemat(data, {key: {"Segmentation": labels, "CategoriesPresent": [1]}})
                info = tarfile.TarInfo(f"benchmark_RELEASE/dataset/{kind}/{name}.mat")
                info.size = data.tell()
                data.seek(0)
                tar.addfile(info, data)
    return path


def test_trainaug_has_vocs_own_masks_first_and_sbds_for_the_rest(devkit: Path, tmp_path: Path) -> None:
    names = (devkit / "ImageSets" / "Segmentation" / "trainaug.txt").read_text().split()
    labels = np.arange(64 * 64).reshape(64, 64).astype(np.uint8) % 4
    path = sbd_tgz(tmp_path / SBD.name, names, labels)
    own = {name: read_mask(devkit / "SegmentationClass" / f"{name}.png") for name in names[:2]}

    folder = get_sbd(devkit, given=path, archive=describe(path), progress=False)
    assert sorted(os.listdir(folder)) == sorted(f"{name}.png" for name in names)
    assert not list(devkit.glob(".*"))
    dataset = VocDataset(devkit, "trainaug", masks=True)
    for index, name in enumerate(names):
        expected = own[name] if name in own else torch.from_numpy(labels)
        assert torch.equal(dataset[index]["mask"].as_subclass(torch.Tensor), expected), name
        assert torch.equal(read_mask(folder / f"{name}.png"), expected), name
    assert get_sbd(devkit, given=tmp_path / "none", progress=False) == folder


def test_a_picture_without_a_mask_is_named_and_nothing_is_half_written(devkit: Path, tmp_path: Path) -> None:
    names = (devkit / "ImageSets" / "Segmentation" / "trainaug.txt").read_text().split()
    path = sbd_tgz(tmp_path / SBD.name, names[:-1], np.zeros((64, 64), dtype=np.uint8))
    with pytest.raises(UserError, match=f"expected a mask of every picture of trainaug, got none of {names[-1]}"):
        get_sbd(devkit, given=path, archive=describe(path), progress=False)
    assert not (devkit / "SegmentationClassAug").exists() and not list(devkit.glob(".*"))
