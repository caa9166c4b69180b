import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.scored_split import scored_split


def coloured(path: Path) -> None:
    with Image.open(path) as mask:
        picture = mask.convert("RGB")
    picture.save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "expected a mask of val, got no such file"),
        (lambda path: path.write_text("no picture"), "expected a readable mask of val, got: "),
        (coloured, "expected a palette or 8-bit grey mask of val, got mode RGB"),
    ],
)
def test_a_mask_that_cannot_be_scored_is_found_first(
    creatures: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    root = shutil.copytree(creatures, tmp_path / "set")
    whole = scored_split(root, "val")
    assert whole.masks and whole.names == VocDataset(root, "val").names
    path = whole.mask_path(whole.names[-1])
    spoil(path)
    with pytest.raises(UserError) as info:
        scored_split(root, "val")
    assert str(info.value).startswith(f"{path}: {message}")
