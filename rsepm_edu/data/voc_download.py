"""Getting PASCAL VOC 2012, and SBD's masks for the split trainaug, onto the disk in VOC's own layout.

Training wants VOC alone: its pictures, and its annotations for the tags. SBD adds masks for pictures that have none in
VOC, to evaluate on. Every set is unpacked beside its place and renamed: a folder that is there is whole.
"""

import os
import shutil
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rsepm_edu.data.download import Archive, expect_space, fetch, unpacked
from rsepm_edu.data.palette import write_mask
from rsepm_edu.data.voc import SBD_MASKS, find_devkit, read_split
from rsepm_edu.errors import UserError

VOC_2012 = Archive(
    name="VOCtrainval_11-May-2012.tar",
    urls=(
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",  # the authors, since 2025
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",  # the authors, before
        "https://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",  # the mirror of d2l.ai
        "https://data.pjreddie.com/files/VOCtrainval_11-May-2012.tar",  # the mirror of YOLO's author
    ),
    size=1_999_639_040,
    md5="6cd6e144f989b92b3379bac3b3de84fd",
    unpacked=2_000_000_000,
    licence="pictures from Flickr, under Flickr's terms of use",
)
SBD = Archive(
    name="benchmark.tgz",
    urls=(
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    ),
    size=1_419_539_633,
    md5="82b4d87ceb2ed10f6038a1cba92111cb",
    unpacked=100_000_000,  # of all that is in it, 10,582 masks are kept
    licence="no licence given; pictures from Flickr, under Flickr's terms of use",
)


def get_voc(
    root: str | os.PathLike[str],
    *,
    given: str | os.PathLike[str] | None = None,
    archive: Archive = VOC_2012,
    progress: bool = True,
) -> Path:
    """Put VOC 2012 (``trainval``: pictures, annotations, masks, lists) into ``root``/VOCdevkit/VOC2012.

    Args:
        root: folder for data; the archive is kept there too, and may be removed afterwards.
        given: the archive, if it is there already.
        archive: what to get.
        progress: show a bar.

    Returns:
        The devkit, as ``VocDataset`` takes it. If it is there already, nothing is done.

    Raises:
        UserError: see ``fetch``; or the archive holds something else.
    """
    root = Path(root)
    devkit = root / "VOCdevkit" / "VOC2012"
    if (devkit / "JPEGImages").is_dir():
        return devkit
    if devkit.exists():
        raise UserError(f"{devkit}: expected VOC 2012 or nothing, got something without the folder JPEGImages")
    path = fetch(archive, root, given=given, progress=progress)
    expect_space(root, archive.unpacked, archive.name)
    with unpacked(path, devkit) as folder:
        inner = folder / "VOCdevkit" / "VOC2012"
        if not (inner / "JPEGImages").is_dir():
            raise UserError(f"{path}: expected VOCdevkit/VOC2012/JPEGImages in it, got no such folder")
        os.replace(inner, devkit)
    return devkit


def get_sbd(
    root: str | os.PathLike[str],
    *,
    given: str | os.PathLike[str] | None = None,
    archive: Archive = SBD,
    progress: bool = True,
) -> Path:
    """Write masks for all of ``trainaug`` into the devkit's folder SegmentationClassAug, for evaluation alone.

    VOC's own mask where there is one; elsewhere SBD's (Hariharan et al., ICCV 2011), which has no void.

    Args:
        root: where VOC 2012 is, see ``get_voc``.
        given, archive, progress: see ``get_voc``.

    Returns:
        The folder. If it is there already, nothing is done.

    Raises:
        UserError: VOC is not there, scipy is missing, or see ``fetch``.
    """
    devkit = find_devkit(root)
    folder = devkit / SBD_MASKS
    if folder.is_dir():
        return folder
    loadmat = _loadmat()
    names = read_split(devkit, "trainaug")
    own = {name for name in names if (devkit / "SegmentationClass" / f"{name}.png").is_file()}
    wanted = set(names) - own
    path = fetch(archive, root, given=given, progress=progress)
    expect_space(devkit, archive.unpacked, archive.name)
    with tempfile.TemporaryDirectory(prefix=f".{SBD_MASKS}.", suffix=".part", dir=devkit) as temporary:
        masks = Path(temporary) / SBD_MASKS
        masks.mkdir()
        for name in own:
            shutil.copyfile(devkit / "SegmentationClass" / f"{name}.png", masks / f"{name}.png")
        with tarfile.open(path) as tar, tqdm(desc="masks", total=len(wanted), disable=not progress) as bar:
            for member in tar:
                where, name = Path(member.name).parent.name, Path(member.name).stem
                if where != "cls" or name not in wanted:
                    continue
                file = tar.extractfile(member)
                assert file is not None
                labels = loadmat(BytesIO(file.read()), squeeze_me=True, struct_as_record=False)["GTcls"].Segmentation
                write_mask(masks / f"{name}.png", labels)
                wanted.remove(name)
                bar.update()
        if wanted:
            raise UserError(f"{path}: expected a mask of every picture of trainaug, got none of {min(wanted)}")
        os.replace(masks, folder)
    return folder


def _loadmat() -> Any:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError("scipy: expected it to read SBD's masks; pip install 'rsepm-edu[data]'") from error
    return loadmat
