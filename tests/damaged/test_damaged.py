"""What is damaged is read as it was, or refused in one line; never a traceback of another kind.

About a thousand inputs in an ordinary run, the same ones every time; ten times as many with ``make damaged``. Which
damage an input has is told by its number alone, so that one can be tried by itself.
"""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from rsepm_edu.errors import UserError
from tests.damaged.readers import READERS

MANY = 10


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(finite, value))


def try_damaged(name: str, folder: Path, numbers: range) -> None:
    """Read damaged files of a reader, one by one."""
    reader = READERS[name]
    path = reader.make(folder)
    whole, right = path.read_bytes(), reader.read(path)
    assert finite(right)
    path.write_bytes(whole)
    refused = 0
    for number in numbers:
        draw = random.Random(f"{name} {number}")
        damage = draw.choice(reader.damages)
        content = damage(whole, draw)
        path.write_bytes(content)
        what = f"{name}, number {number}: {damage.__name__}"
        try:
            value = reader.read(path)
        except UserError as error:
            refused += 1
            message = str(error)
            assert message.isprintable() and len(message) < 2000, f"{what}: {message!r}"
            assert "expected " in message and str(folder) in message, f"{what}: {message!r}"
            assert "weights_only" not in message and " at 0x" not in message, f"{what}: {message!r}"
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
        else:
            assert finite(value), f"{what}: NaN or infinity was read"
            if damage in reader.exact:
                assert same(value, right), f"{what}: something else was read, in silence"
    assert refused >= len(numbers) // 4, "hardly anything is refused: is it damaged at all?"


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_right_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    try_damaged(name, tmp_path, range(READERS[name].count))


@pytest.mark.damaged
@pytest.mark.parametrize("name", READERS)
def test_many_more_damaged_files(name: str, tmp_path: Path) -> None:
    count = READERS[name].count
    try_damaged(name, tmp_path, range(count, MANY * count))


def test_there_are_about_a_thousand() -> None:
    assert 1000 <= sum(reader.count for reader in READERS.values()) <= 1300
