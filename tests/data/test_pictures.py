"""Pictures in every mode, held upright, and files that are not whole."""

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from rsepm_edu.data.pictures import read_image
from rsepm_edu.errors import UserError

ORIENTATION, RESOLUTION = 0x0112, 0x011A
GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (10, 12, 3), dtype=np.uint8)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def refused(path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern) as info:
        read_image(path)
    assert str(info.value).startswith(f"{path}: expected ") and str(info.value).isprintable()


# modes


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    grey = GENERATOR.integers(0, 65536, (10, 12), dtype=np.uint16)
    grey[0, :3] = 0, 65535, 32896
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    wanted = np.floor(grey.astype(np.float64) / 257 + 0.5)
    image = read_image(tmp_path / f"a{suffix}")
    assert image[:, 0, :3].tolist() == [[0, 255, 128]] * 3
    assert np.array_equal(image.numpy(), np.broadcast_to(wanted, (3, 10, 12)))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_whose_range_nothing_says_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.linspace(0, 1, 120).reshape(10, 12).astype(dtype)).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "got: pixels of mode [FI], whose range nothing says; save it as ")


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    alpha = GENERATOR.integers(0, 256, (10, 12, 1), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255  # hidden colours, and none hidden
    Image.fromarray(np.concatenate([PIXELS, alpha], axis=2)).save(tmp_path / "a.png")
    share = alpha.astype(np.float64) / 255
    wanted = PIXELS * share + 255 * (1 - share)
    image = read_image(tmp_path / "a.png").permute(1, 2, 0).numpy().astype(np.float64)
    assert np.abs(image - wanted).max() <= 1
    assert np.array_equal(image[0], np.full((12, 3), 255)) and np.array_equal(image[1], PIXELS[1])
    Image.fromarray(np.concatenate([PIXELS[..., :1], alpha], axis=2)).save(tmp_path / "b.png")  # grey and alpha
    assert (read_image(tmp_path / "b.png")[:, 0] == 255).all()


def test_a_colour_that_is_transparent_is_white_and_palettes_are_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.png", transparency=1)
    picture.save(tmp_path / "c.gif", transparency=2)
    Image.fromarray(PIXELS).save(tmp_path / "d.png", transparency=tuple(PIXELS[2, 3].tolist()))
    assert read_image(tmp_path / "a.png").permute(1, 2, 0).tolist() == [
        [[10, 20, 30], [40, 50, 60]],
        [[70, 80, 90], [40, 50, 60]],
    ]
    assert read_image(tmp_path / "b.png").permute(1, 2, 0)[:, 1].tolist() == [[255] * 3, [255] * 3]
    assert read_image(tmp_path / "c.gif").permute(1, 2, 0)[1].tolist() == [[255] * 3, [40, 50, 60]]
    image = read_image(tmp_path / "d.png")
    assert image[:, 2, 3].tolist() == [255] * 3
    image[:, 2, 3] = torch.from_numpy(PIXELS[2, 3])
    assert torch.equal(image, as_tensor(PIXELS))


# upright


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 0, 9])
def test_exif_holds_a_picture_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    rows = PIXELS.tolist()  # the words of the standard: where the stored row 0 and column 0 are, seen upright
    upright = {
        2: [row[::-1] for row in rows],  # top, right
        3: [row[::-1] for row in rows[::-1]],  # bottom, right
        4: rows[::-1],  # bottom, left
        5: [list(column) for column in zip(*rows, strict=True)],  # left, top
        6: [list(column)[::-1] for column in zip(*rows, strict=True)],  # right, top
        7: [list(column)[::-1] for column in zip(*rows, strict=True)][::-1],  # right, bottom
        8: [list(column) for column in zip(*rows, strict=True)][::-1],  # left, bottom
    }.get(orientation, rows)
    assert read_image(tmp_path / "a.png").permute(1, 2, 0).tolist() == upright


def test_exif_that_cannot_be_written_again_does_no_harm(tmp_path: Path) -> None:
    """Pillow's own turning writes the rest of EXIF anew, which some rationals of cameras do not let it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    exif[RESOLUTION] = TiffImagePlugin.IFDRational(Fraction(1, 3))
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "JPEG", exif=exif, quality=95)
    rational = content.getvalue().index(struct.pack(">II", 1, 3)) if b"MM\0*" in content.getvalue() else None
    data = bytearray(content.getvalue())
    at = rational if rational is not None else data.index(struct.pack("<II", 1, 3))
    data[at : at + 8] = struct.pack(">iI", -1, 0)
    (tmp_path / "a.jpg").write_bytes(data)
    image = read_image(tmp_path / "a.jpg").permute(1, 2, 0).numpy().astype(int)
    with Image.open(tmp_path / "a.jpg") as picture:
        assert np.array_equal(image, np.array(picture).astype(int)[::-1, ::-1])


# files that are not whole


def test_a_jpeg_whose_rest_is_zeros_behind_a_thumbnail_is_noticed(tmp_path: Path) -> None:
    thumbnail = io.BytesIO()
    Image.fromarray(PIXELS).save(thumbnail, "JPEG")
    segment = b"Exif\0\0" + thumbnail.getvalue()  # with its own start, scan and end
    content = io.BytesIO()
    Image.fromarray(GENERATOR.integers(0, 256, (80, 96, 3), dtype=np.uint8)).save(content, "JPEG")
    data = content.getvalue()
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert read_image(path).shape == (3, 80, 96)
    path.write_bytes(data[: len(data) * 2 // 3].ljust(len(data), b"\0"))
    refused(path, "got a JPEG that breaks off, without an end-of-image marker$")


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}])
def test_whole_jpegs_of_every_kind_are_read(tmp_path: Path, settings: dict[str, object]) -> None:
    Image.fromarray(PIXELS).resize((96, 80)).save(tmp_path / "a.jpg", **settings)
    Image.new("L", (4096, 4096), 77).save(tmp_path / "b.jpg", **settings)  # as few bytes as so many pixels can take
    with Image.open(tmp_path / "a.jpg") as picture:
        assert np.array_equal(read_image(tmp_path / "a.jpg").permute(1, 2, 0).numpy(), np.array(picture))
    assert (read_image(tmp_path / "b.jpg") == 77).all()


def test_sizes_that_a_damaged_header_promises_are_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "JPEG")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    path = tmp_path / "a.jpg"
    for height, width, words in (
        (9000, 9000, r"got only \d+ bytes for 9000×9000 pixels$"),
        (13000, 13000, "expected at most 89478485 pixels, got 13000×13000$"),
        (60000, 60000, "exceeds limit"),
    ):
        data = bytearray(content.getvalue())
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
        path.write_bytes(data)
        refused(path, words)
    chunk = struct.pack(">IIBBBBB", 12000, 12000, 8, 3, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", chunk), (b"PLTE", b"\0\0\0"), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")):
        bomb += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(bomb)
    refused(path, "expected at most 89478485 pixels, got 12000×12000$")


def test_every_bit_of_a_png_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 13):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        refused(path, "got ")
