"""The sample of photographs with lists of one's own: some of a split, or some held out of all training."""

from collections.abc import Sequence
from pathlib import Path

from make_results import VOC_SAMPLE, from_environment

from rsepm_edu.data.voc import SBD_MASKS, find_devkit, read_split
from rsepm_edu.files import atomic_write_text


def sample_names(split: str) -> list[str]:
    """The names of one of the sample's own splits."""
    return read_split(_devkit(), split)


def sample_with_lists(folder: Path, **splits: Sequence[str]) -> Path:
    """A devkit whose splits are these lists of names, all else links to the sample.

    Args:
        folder: of the new devkit; links of an earlier run there are made anew.
        splits: names of photographs, by split.

    Returns:
        ``folder``.
    """
    devkit = _devkit()
    tags = folder / "ImageSets" / "Main"
    tags.mkdir(parents=True, exist_ok=True)
    for name in ("JPEGImages", "SegmentationClass", SBD_MASKS):
        if (devkit / name).is_dir():
            _link(folder / name, devkit / name)
    for path in (devkit / "ImageSets" / "Main").iterdir():
        _link(tags / path.name, path)
        if path.name.endswith("_trainaug.txt"):  # what is read for a split that has no tags of its own
            _link(tags / path.name.replace("_trainaug", "_trainval"), path)
    for split, names in splits.items():
        path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, "".join(f"{name}\n" for name in names))
    return folder


def _devkit() -> Path:
    return find_devkit(from_environment(VOC_SAMPLE)).resolve()


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():  # of an earlier run, maybe to another place
        link.unlink()
    link.symlink_to(target)
