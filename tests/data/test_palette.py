import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.data.palette import VOID, colourise, read_mask, voc_palette, write_mask
from rsepm_edu.errors import UserError

# The colours of the devkit's own pictures of its classes (PASCAL VOC 2012, labels 0 to 20).
DEVKIT_COLOURS = [
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128),
    (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128),
    (192, 0, 128), (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0),
    (128, 192, 0), (0, 64, 128),
]  # fmt: skip


def colour_by_bits(label: int) -> tuple[int, int, int]:
    """The devkit's VOClabelcolormap, step by step."""
    red = green = blue = 0
    for j in range(8):
        red |= (label & 1) << (7 - j)
        green |= (label >> 1 & 1) << (7 - j)
        blue |= (label >> 2 & 1) << (7 - j)
        label >>= 3
    return red, green, blue


def test_palette_is_the_devkits():
    palette = voc_palette()
    assert all(type(value) is int for value in palette)
    triples = list(zip(palette[::3], palette[1::3], palette[2::3], strict=True))
    assert triples[:21] == DEVKIT_COLOURS
    assert triples[VOID] == (224, 224, 192)
    assert triples == [colour_by_bits(label) for label in range(256)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, np.int32])
def test_masks_come_back_as_written(tmp_path, dtype):
    labels = torch.arange(256).reshape(8, 32)
    mask = labels.to(dtype) if isinstance(dtype, torch.dtype) else labels.numpy().astype(dtype)
    write_mask(tmp_path / "mask.png", mask)
    read = read_mask(tmp_path / "mask.png")
    assert read.dtype == torch.uint8
    assert torch.equal(read, labels.to(torch.uint8))
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.mode == "P"
        assert picture.getpalette() == voc_palette()
    assert os.listdir(tmp_path) == ["mask.png"]


def test_read_mask_takes_grey_and_small_palettes(tmp_path):
    labels = np.array([[0, 1], [15, 3]], dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    Image.fromarray(labels).convert("P").save(tmp_path / "four_bits.png", bits=4)
    for name in ("grey.png", "four_bits.png"):
        assert read_mask(tmp_path / name).tolist() == labels.tolist()


def test_read_mask_names_the_file_that_is_wrong(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png: expected a mask here, got no such file"):
        read_mask(tmp_path / "gone.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "colours.png")
    with pytest.raises(UserError, match=r"colours\.png: expected .* mask, got mode RGB"):
        read_mask(tmp_path / "colours.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.png: expected a readable mask"):
        read_mask(tmp_path / "text.png")
    with pytest.raises(UserError, match="expected a mask here, got what cannot be read: Is a directory"):
        read_mask(tmp_path)


def test_read_mask_refuses_every_truncation(tmp_path):
    generator = np.random.default_rng(0)
    write_mask(tmp_path / "whole.png", generator.integers(0, 256, (40, 40)))
    whole = (tmp_path / "whole.png").read_bytes()
    for length in (0, 10, 40, 500, 900, len(whole) // 2, len(whole) - 40):
        (tmp_path / "part.png").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"part\.png"):
            read_mask(tmp_path / "part.png")


def test_write_mask_rejects_what_is_no_mask(tmp_path):
    path = tmp_path / "mask.png"
    with pytest.raises(TypeError, match="expected an integer mask, got float32"):
        write_mask(path, torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"expected a mask HxW, got shape \(1, 4, 4\)"):
        write_mask(path, torch.zeros(1, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected labels 0 to 255, got 0 to 256"):
        write_mask(path, np.array([[0, 256]]))
    with pytest.raises(ValueError, match="expected labels 0 to 255, got -1 to 0"):
        write_mask(path, np.array([[0, -1]]))
    with pytest.raises(UserError, match=r"mask\.jpg: expected a name ending in \.png"):
        write_mask(tmp_path / "mask.jpg", np.zeros((4, 4), np.uint8))
    assert os.listdir(tmp_path) == []


def test_colourise_shows_labels_in_the_palettes_colours():
    labels = torch.tensor([[0, 1, 20], [255, 2, 0]])
    picture = colourise(labels)
    assert picture.dtype == np.uint8
    assert picture.shape == (2, 3, 3)
    for row in range(2):
        for column in range(3):
            assert tuple(picture[row, column]) == colour_by_bits(int(labels[row, column]))
    assert np.array_equal(colourise(labels.numpy().astype(np.uint8)), picture)
    with pytest.raises(TypeError, match="expected an integer mask"):
        colourise(np.zeros((2, 2)))


def save_again(path, target, palette_of):
    """As an image editor does: the same colours, their numbers in another order."""
    with Image.open(path) as picture:
        indices, palette = np.array(picture), np.array(picture.getpalette()).reshape(-1, 3)
    used = np.unique(indices)
    order = palette_of(used.tolist())
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[order] = np.arange(len(order))
    again = Image.fromarray(numbers[indices])
    again.putpalette(palette[order].flatten().tolist())
    again.save(target)


@pytest.mark.parametrize("order", [lambda used: used, lambda used: used[::-1], lambda used: [*used[2:], *used[:2]]])
def test_labels_are_read_by_their_colours_where_an_editor_numbered_them_anew(tmp_path, order):
    labels = np.random.default_rng(0).choice([0, 1, 7, 15, 20, 255], (9, 11)).astype(np.uint8)
    write_mask(tmp_path / "a.png", labels)
    save_again(tmp_path / "a.png", tmp_path / "b.png", order)
    with Image.open(tmp_path / "b.png") as picture:
        assert not np.array_equal(np.array(picture), labels), "the numbers are the same: nothing is tried"
    assert np.array_equal(read_mask(tmp_path / "b.png").numpy(), labels)


def test_a_palette_that_says_nothing_is_refused(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8))
    picture.putpalette([0, 0, 0, 128, 0, 0, 1, 2, 3])
    picture.save(tmp_path / "a.png")
    with pytest.raises(
        UserError, match=r"a\.png: expected VOC's palette or one of greys, got \(1, 2, 3\) for label 2; "
    ):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_refused_for_15_and_void_are_alike_in_it(tmp_path, bits):
    labels = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    write_grey(tmp_path / "a.png", labels, bits)
    with pytest.raises(UserError, match=rf"a\.png: expected a palette or 8-bit grey mask, got {bits}-bit grey$"):
        read_mask(tmp_path / "a.png")
    write_grey(tmp_path / "a.png", labels, 8)
    assert np.array_equal(read_mask(tmp_path / "a.png").numpy(), labels)


def write_grey(path, labels, bits):
    """A PNG of grey with so many bits a pixel; Pillow writes 8 alone."""
    height, width = labels.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    rows = b""
    for row in labels.tolist():
        number = int("".join(f"{value:0{bits}b}" for value in row).ljust(8 * -(-width * bits // 8), "0"), 2)
        rows += b"\0" + number.to_bytes(-(-width * bits // 8), "big")
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


def test_other_files_than_png_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(UserError, match=r"a\.png: expected a readable mask, got a file that is no PNG$"):
        read_mask(tmp_path / "a.png")


def test_every_flipped_bit_of_a_mask_is_noticed(tmp_path):
    write_mask(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 21, (20, 20)))
    whole = (tmp_path / "whole.png").read_bytes()
    for bit in range(0, 8 * len(whole), 11):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.png: expected a readable mask, got a"):
            read_mask(tmp_path / "a.png")
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "a.png").write_bytes(whole[: int(share * len(whole))].ljust(len(whole), b"\0"))
        with pytest.raises(UserError, match=r"a\.png: expected a readable mask, got a"):
            read_mask(tmp_path / "a.png")
