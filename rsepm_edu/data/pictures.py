"""Reading pictures: files that are whole, each mode by what its numbers mean, held upright as EXIF says.

Pillow takes much that is damaged for a picture: a JPEG that ends in zeros, a PNG with flipped bits. The formats' marks
and sums show it: a JPEG ends with a marker behind its last segment, every chunk of a PNG has a checksum.
"""

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rsepm_edu.errors import UserError, one_line
from rsepm_edu.files import read_bytes

PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
# 00 and the restart markers stand within a scan. A pattern that begins with one fixed byte is found six times as fast.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_PIXELS_PER_BYTE = 512  # of a JPEG, the most: each block of 64 pixels takes a bit at least

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
_WITH_ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read a picture as uint8 3×H×W, whatever its colours; EXIF orientation applied.

    16-bit grey becomes 8-bit; what is transparent lies on white.

    Raises:
        UserError: missing, unreadable, truncated, damaged, too large, or its pixels are of a kind without a meaning
            (floating, 32-bit).
    """
    return read_turned_image(path)[0]


def read_turned_image(path: str | os.PathLike[str]) -> tuple[Tensor, Image.Transpose | None]:
    """As ``read_image``, and how the stored pixels were turned to be upright; None: not at all."""
    picture = open_picture(path, read_bytes(path, "a picture"), "picture")
    try:
        with _quiet():
            turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
            upright = picture if turn is None else picture.transpose(turn)
            pixels = np.array(_rgb(upright, picture))
    except Exception as error:  # of damaged EXIF come many kinds: OSError, SyntaxError, struct.error, KeyError
        raise UserError(f"{path}: expected a readable picture, got: {one_line(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1), turn


def open_picture(path: str | os.PathLike[str], content: bytes, what: str) -> Image.Image:
    """Decode the content of a file, as it is stored: no mode changed, nothing turned.

    Args:
        path: of the file, for errors.
        content: of the file.
        what: for errors, "picture" or "mask".

    Raises:
        UserError: no picture, truncated, damaged, or with more pixels than Pillow's ``MAX_IMAGE_PIXELS``.
    """
    fault = None
    if content.startswith(PNG_START):
        fault = _png_fault(content)
    elif content.startswith(_JPEG_START):
        fault = _jpeg_fault(content)
    if fault is not None:
        raise UserError(f"{path}: expected a readable {what}, got {fault}")
    try:
        with _quiet():
            picture = Image.open(io.BytesIO(content))
            _expect_size(path, picture, len(content))
            picture.load()
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: expected a readable {what}, got a file of no kind that Pillow knows") from error
    except Exception as error:  # on damaged files Pillow raises many kinds, struct.error and KeyError among them
        raise UserError(f"{path}: expected a readable {what}, got: {one_line(error)}") from error
    return picture


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings: of odd EXIF, which changes no pixel, and of many pixels, which are refused anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _expect_size(path: str | os.PathLike[str], picture: Image.Image, size: int) -> None:
    """Before anything is decoded: a damaged header may promise any size, and memory would be taken for it."""
    width, height = picture.size
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise UserError(f"{path}: expected at most {most} pixels, got {width}×{height}")
    if picture.format in ("JPEG", "MPO") and width * height > _PIXELS_PER_BYTE * size:
        raise UserError(f"{path}: expected a whole JPEG, got only {size} bytes for {width}×{height} pixels")


def _png_fault(content: bytes) -> str | None:
    """What is wrong with the chunks of a PNG; None: nothing. Bytes behind its end do not matter."""
    view, at = memoryview(content), len(PNG_START)
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return f"a damaged PNG: its chunk {kind.decode('latin-1')} has another checksum"
        if kind == b"IEND":
            return None
        at = end
    return "a PNG that breaks off"


def _jpeg_fault(content: bytes) -> str | None:
    """What is wrong with the segments of a JPEG; None: nothing. Bytes behind its end do not matter.

    A thumbnail within the EXIF segment has an end of its own, so segments are gone through one by one.
    """
    at, scan = 2, False
    while marker := _JPEG_MARKER.search(content, at):
        code, at = marker[1][0], marker.end()
        if code == _JPEG_END:
            return None if scan else "a JPEG without a scan"
        scan = scan or code == _JPEG_SCAN
        if code != 0x01:  # which has no length
            at += int.from_bytes(content[at : at + 2], "big")
    return "a JPEG that breaks off, without an end-of-image marker"


def _rgb(picture: Image.Image, stored: Image.Image) -> Image.Image:
    """The picture in RGB; ``stored`` still knows of which format it is.

    Raises:
        ValueError: its mode has no clear meaning.
    """
    mode, key = picture.mode, stored.info.get("transparency")
    if mode.startswith("I;16") or (mode == "I" and stored.format == "PNG"):  # older Pillow calls 16-bit PNG "I"
        grey = np.asarray(picture).astype(np.int64)
        eight = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        if isinstance(key, int):
            eight[grey == key] = 255
        return Image.fromarray(eight).convert("RGB")
    if mode in _WITH_ALPHA or (mode in _PLAIN and key is not None):
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema() != (255, 255):  # the colours behind what is transparent are anything
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    elif mode not in _PLAIN:
        raise ValueError(f"pixels of mode {mode}, whose range nothing says; save it as 8- or 16-bit grey or as RGB")
    return picture.convert("RGB")
