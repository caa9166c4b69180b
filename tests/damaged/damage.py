"""Ways in which files come to harm: broken downloads, flipped bits, other programs, hands that edit them."""

import json
import random
from collections.abc import Callable
from typing import Any

import torch

Damage = Callable[[bytes, random.Random], bytes]


def flip(content: bytes, draw: random.Random) -> bytes:
    """One to four bits."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def flip_in_front(content: bytes, draw: random.Random) -> bytes:
    """A bit of the header, where sizes and kinds are."""
    damaged = bytearray(content)
    damaged[draw.randrange(min(96, len(damaged)))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def cut(content: bytes, draw: random.Random) -> bytes:
    """A download that broke off."""
    return content[: draw.randrange(len(content))]


def zero_tail(content: bytes, draw: random.Random) -> bytes:
    """A download that reserved its space first and broke off."""
    return content[: draw.randrange(len(content))].ljust(len(content), b"\0")


def zero_block(content: bytes, draw: random.Random) -> bytes:
    """A lost sector."""
    start = draw.randrange(len(content))
    return content[:start] + bytes(min(64, len(content) - start)) + content[start + 64 :]


def noise(content: bytes, draw: random.Random) -> bytes:
    """A sector of another file."""
    start, length = draw.randrange(len(content)), draw.randrange(1, 64)
    return content[:start] + draw.randbytes(length) + content[start + length :]


def insert(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + draw.randbytes(draw.randrange(1, 9)) + content[start:]


def remove(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + content[start + draw.randrange(1, 64) :]


def replace_all(content: bytes, draw: random.Random) -> bytes:
    """Another file altogether."""
    empty_pickle, empty_zip = b"\x80\x02]q\x00.", b"PK\5\6" + bytes(18)
    others = (b"", bytes(100), b"<html>\x1b[31m404</html>", draw.randbytes(300), empty_pickle, empty_zip, b"PK\3\4")
    return draw.choice(others)


BYTES: tuple[Damage, ...] = (
    *(flip, flip, flip, flip_in_front, flip_in_front, cut, zero_tail, zero_block, noise, insert, remove),
    replace_all,
)


BROKEN_OFF: tuple[Damage, ...] = (cut, zero_tail)


def other_encoding(content: bytes, draw: random.Random) -> bytes:
    return content.decode("utf-8").encode(draw.choice(("utf-16", "utf-16-le", "utf-8-sig", "utf-32")))


def control(content: bytes, draw: random.Random) -> bytes:
    """Characters that a terminal would obey, or that cannot be seen."""
    start = draw.randrange(len(content))
    return content[:start] + draw.choice((b"\x1b[2J", b"\0", b"\x07", "\ufeff\u200b\u202e".encode())) + content[start:]


def other_lines(content: bytes, draw: random.Random) -> bytes:
    """All on one line, lines twice, another order, other ends, fields and cases."""
    lines = content.splitlines()
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: b" ".join(lines),
        lambda: b"\n".join([*lines, draw.choice(lines)]),
        lambda: b"\r\n".join(draw.sample(lines, len(lines))),
        lambda: b"\r".join(lines),
        lambda: b"\n".join(line + draw.choice((b" 1", b" -1", b".jpg", b" x y")) for line in lines),
        lambda: b"\n".join(b"/data/voc/" + line for line in lines),
        lambda: content.upper(),
        lambda: content.replace(b" ", b"\t"),
    )
    return draw.choice(ways)()


def other_declaration(content: bytes, draw: random.Random) -> bytes:
    """XML that declares an encoding, its own or another."""
    encoding = draw.choice(("gb2312", "shift_jis", "iso-8859-1", "utf-16", "rot13", "nonsense", ""))
    return content.replace(b"UTF-8", encoding.encode())


TEXT: tuple[Damage, ...] = (*BYTES, *[other_encoding, control] * 2, *[other_lines] * 7)

STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 10**30, 1.5, float("nan"), float("inf"), "", "\x1b[31m", "x" * 1000, [], [[]], {}, {"a": 1}),
)


def edit(value: Any, draw: random.Random, strange: tuple[Any, ...] = STRANGE) -> Any:
    """A copy of nested lists and dictionaries with one entry missing, or of another kind, shape or value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw.choice(keys)
    inner = value[key]
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if isinstance(inner, dict | list) and inner and draw.random() < 0.7:
        copy[key] = edit(inner, draw, strange)
    elif draw.random() < 0.25:
        del copy[key]
    elif isinstance(inner, torch.Tensor) and draw.random() < 0.7:
        copy[key] = draw.choice((inner[..., None], inner.int(), inner.cfloat(), inner * torch.nan, inner.flatten()[:1]))
    else:
        copy[key] = draw.choice(strange)
    return copy


def edit_json(content: bytes, draw: random.Random) -> bytes:
    return json.dumps(edit(json.loads(content), draw)).encode()


def edit_json_line(content: bytes, draw: random.Random) -> bytes:
    """In JSON with an object a line."""
    lines = content.splitlines()
    number = draw.randrange(len(lines))
    lines[number] = edit_json(lines[number], draw)
    return b"\n".join(lines)
