"""Options and checks that several commands share."""

import argparse
import ast
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from rsepm_edu.data.voc import VocDataset
from rsepm_edu.device import resolve_device
from rsepm_edu.errors import UserError

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def shows_bars(options: argparse.Namespace) -> bool:
    """Whether progress bars are wanted and seen: in a file or a pipe they would be thousands of lines."""
    return not options.quiet and sys.stderr.isatty()


def expect_folder(option: str, folder: Path) -> None:
    """Check that files can be written into a folder, which need not be there yet.

    Raises:
        UserError: it, or what it would have to lie in, is a file or may not be written into.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{option}: expected a folder, got {folder}: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{option}: expected a folder that may be written into, got {folder}: {there} may not")


def parse_changes(texts: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``--set``, by name.

    Args:
        texts: NAME=VALUE each.
        known: a value of every setting, which says of which kind a new one must be.

    Raises:
        UserError: not NAME=VALUE, an unknown name, one that is named twice, or a value of another kind.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        name, value = _parse_change(text, known)
        if name in changes:
            raise UserError(f"--set {name}: expected one value, got {changes[name]!r} and {value!r}")
        changes[name] = value
    return changes


def _parse_change(text: str, known: Mapping[str, Any]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set: expected NAME=VALUE, got {text!r}")
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"--set: expected a setting ({', '.join(known)}), got {name!r}{hint}")
    default = known[name]
    if isinstance(default, str):
        return name, value
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = None
    expected = float if default is None or isinstance(default, float) else type(default)  # None: a number if any
    if expected is float and type(parsed) is int:
        parsed = float(parsed)
    if type(parsed) is not expected:
        raise UserError(f"--set {name}: expected a value like {default!r}, got {value!r}")
    return name, parsed


def on_device(network: AnyNetwork, device: str | torch.device | None) -> AnyNetwork:
    """The network where ``--device`` wants it."""
    return network.to(resolve_device(device)).to(memory_format=torch.channels_last)


def expect_classes(dataset: VocDataset, classes: tuple[str, ...]) -> None:
    """Check that data and checkpoint speak of the same classes.

    Raises:
        UserError: they do not.
    """
    if dataset.classes != classes:
        raise UserError(
            f"{dataset.devkit}: expected the checkpoint's classes {', '.join(classes)}, "
            f"got {', '.join(dataset.classes)}"
        )
