from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rsepm_edu.data.seeds import MAX_BYTES, read_seed, write_seed
from rsepm_edu.errors import UserError


def test_a_seed_comes_back_as_float16_holds_it(tmp_path: Path) -> None:
    seed = torch.rand(20, 33, 47)
    seed[[0, 1, 2, 4, 5, 6, 7, 8, *range(10, 20)]] = 0
    path = tmp_path / "folder" / "a.npz"
    write_seed(path, seed)
    assert torch.equal(read_seed(path), seed.half().float())
    with np.load(path) as stored:
        assert stored["maps"].shape == (2, 33, 47) and stored["classes"].tolist() == [3, 9]
    assert [entry.name for entry in path.parent.iterdir()] == ["a.npz"]  # nothing is left beside it


def test_a_seed_without_any_class_comes_back(tmp_path: Path) -> None:
    for stride in (1, 4):
        write_seed(tmp_path / "a.npz", torch.zeros(3, 10, 12), stride=stride)
        assert torch.equal(read_seed(tmp_path / "a.npz"), torch.zeros(3, 10, 12))


def test_at_a_stride_smooth_maps_stay_what_they_are(tmp_path: Path) -> None:
    coarse = torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    seed = F.interpolate(coarse, (90, 101), mode="bilinear", align_corners=False)[0]
    write_seed(tmp_path / "full.npz", seed)
    write_seed(tmp_path / "small.npz", seed, stride=4)
    with np.load(tmp_path / "small.npz") as stored:
        assert stored["maps"].shape == (2, 23, 26)
    again = read_seed(tmp_path / "small.npz")
    assert again.shape == seed.shape
    assert (again - seed).abs().mean() < 0.02 and (again - seed).abs().max() < 0.25  # kinks of the map are rounded off
    assert (tmp_path / "small.npz").stat().st_size < (tmp_path / "full.npz").stat().st_size / 8


@pytest.mark.parametrize("shape", [(20, 500, 375), (40, 480, 640)])
def test_no_file_is_larger_than_the_bound(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """Noise, which no compression makes smaller, in every class of VOC or COCO."""
    seed = torch.rand(shape)
    write_seed(tmp_path / "a.npz", seed)
    size = (tmp_path / "a.npz").stat().st_size
    assert MAX_BYTES / 3 < size <= MAX_BYTES
    assert read_seed(tmp_path / "a.npz").shape == shape


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_what_is_no_score_is_not_written(tmp_path: Path, value: float) -> None:
    seed = torch.zeros(2, 4, 4)
    seed[1, 2, 3] = value
    with pytest.raises(ValueError, match=r"^expected seed scores in \[0, 1\], got "):
        write_seed(tmp_path / "a.npz", seed)
    assert not list(tmp_path.iterdir())


def test_bad_input_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^expected a floating KxHxW and stride >= 1, got \(4, 4\), torch.float32, 1$"
    ):
        write_seed(tmp_path / "a.npz", torch.zeros(4, 4))
    with pytest.raises(UserError, match=r"a.npy: expected a name ending in .npz for a seed$"):
        write_seed(tmp_path / "a.npy", torch.zeros(1, 4, 4))
    with pytest.raises(UserError, match=r"b.npz: expected a seed, got no such file$"):
        read_seed(tmp_path / "b.npz")
    write_seed(tmp_path / "c.npz", torch.rand(3, 40, 40))
    whole = (tmp_path / "c.npz").read_bytes()
    np.savez(tmp_path / "e.npz", other=np.zeros(3))
    (tmp_path / "c.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.npz").write_bytes(b"not a zip")
    for name in "cde":
        with pytest.raises(UserError, match=rf"{name}.npz: expected a whole seed file, got: ") as info:
            read_seed(tmp_path / f"{name}.npz")
        assert "\n" not in str(info.value)


def test_a_seed_of_another_picture_or_of_other_classes(tmp_path: Path) -> None:
    write_seed(tmp_path / "a.npz", torch.rand(3, 8, 9))
    assert read_seed(tmp_path / "a.npz", (3, 8, 9)).shape == (3, 8, 9)
    for expected in ((2, 8, 9), (3, 9, 8)):
        with pytest.raises(
            UserError, match=r"a\.npz: expected a seed KxHxW = \(.*\) of this picture, got \(3, 8, 9\)$"
        ):
            read_seed(tmp_path / "a.npz", expected)


GOOD = {
    "maps": np.ones((2, 4, 5), dtype=np.float16),
    "classes": np.array([0, 2], dtype=np.uint8),
    "shape": np.array([3, 8, 10], dtype=np.int32),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maps", None),
        ("classes", None),
        ("shape", None),
        ("maps", np.ones((2, 4, 5), dtype=np.float32)),
        ("maps", np.full((2, 4, 5), np.nan, dtype=np.float16)),
        ("maps", np.full((2, 4, 5), 1.5, dtype=np.float16)),
        ("maps", np.ones((1, 4, 5), dtype=np.float16)),
        ("maps", np.ones((2, 9, 5), dtype=np.float16)),
        ("maps", np.ones((2, 0, 5), dtype=np.float16)),
        ("maps", np.array(["a"])),
        ("maps", np.array([{}], dtype=object)),
        ("classes", np.array([0, 3], dtype=np.uint8)),
        ("classes", np.array([2, 2], dtype=np.uint8)),
        ("classes", np.array([0.0, 2.0])),
        ("shape", np.array([3, 8], dtype=np.int32)),
        ("shape", np.array([3, -8, 10], dtype=np.int32)),
        ("shape", np.array([3.5, 8, 10])),
        ("shape", np.array([3, 10**6, 10**6], dtype=np.int32)),
        ("shape", np.array(3)),
    ],
)
def test_arrays_that_are_missing_or_of_another_kind(tmp_path: Path, name: str, value: np.ndarray | None) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **GOOD)
    assert read_seed(path).sum() == 2 * 80
    np.savez(path, **{key: array for key, array in (GOOD | {name: value}).items() if array is not None})
    with pytest.raises(UserError, match=r"a\.npz: expected a .*seed.*, got") as info:
        read_seed(path)
    assert str(info.value).isprintable()


def test_a_seed_with_flipped_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    seed = torch.rand(2, 20, 20)
    write_seed(path, seed)
    whole, again = path.read_bytes(), read_seed(path)
    noticed = 0
    for bit in range(0, 8 * len(whole), 101):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert torch.equal(read_seed(path), again)  # a date, say
        except UserError:
            noticed += 1
    assert noticed > 0.8 * 8 * len(whole) / 101
