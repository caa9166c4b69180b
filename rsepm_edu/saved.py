"""Reading what ``torch.save`` or NumPy wrote: first its sums are checked, then what is in it. Nothing in it is run.

A flipped bit in a file of weights makes other weights, not an error: torch and miniz do not look at the sums that the
archive holds, so ``expect_sums`` does, before anything is read.
"""

import math
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from rsepm_edu.errors import UserError, one_line

_PARALLEL = "module."  # what DataParallel puts before every name
_ADAM = {"step", "exp_avg", "exp_avg_sq"}  # what a step of AdamW needs to find

Source = str | os.PathLike[str]


def expect_sums(path: Source, what: str) -> None:
    """Check every part of a zip archive against the sum stored with it; other files have no sums.

    Args:
        path: of the file.
        what: was expected there, such as "a whole checkpoint".

    Raises:
        UserError: the archive cannot be read, or a part has another sum.
    """
    try:
        if not _is_archive(path):
            return
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # on a damaged file zipfile raises many kinds: its own, of struct, of codecs, of zlib
        raise UserError(f"{path}: expected {what}, got: an archive that cannot be read ({one_line(error)})") from error
    if damaged is not None:
        raise UserError(f"{path}: expected {what}, got: a damaged one, {damaged!r} in it has another sum")


def read_saved(path: Source, what: str) -> Any:
    """Read what ``torch.save`` wrote onto the CPU, with ``weights_only=True``, its sums checked before.

    Args:
        path: of a file that is there.
        what: was expected there, such as "a whole checkpoint".

    Raises:
        UserError: damaged, or something else than tensors, numbers and text in lists and dictionaries.
    """
    expect_sums(path, what)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: pickle, zip, runtime, end of file
        # In own words: torch's go on for lines, with advice that would run what is in the file.
        raise UserError(f"{path}: expected {what}, got: {_reason(path, error)}") from error


def _reason(path: Source, error: Exception) -> str:
    with Path(path).open("rb") as file:
        pickled = file.read(1) == b"\x80"
    if isinstance(error, pickle.UnpicklingError) and (pickled or _is_archive(path)):
        return "other objects than tensors, numbers and text (a whole model, pickled? save its state_dict() instead)"
    return "damaged content" if pickled else "a file that torch.save did not write"


def _is_archive(path: Source) -> bool:
    with Path(path).open("rb") as file:
        return file.read(2) == b"PK"


def fill(network: nn.Module, state: Any, source: Source) -> None:
    """Give a network the weights of a state dict, all of them; the "module." of DataParallel before names is dropped.

    Args:
        network: takes them.
        state: tensors by name, as ``state_dict`` gives it; left as it is but for that prefix.
        source: the file, for errors.

    Raises:
        UserError: the state is of another kind or for another network, or holds a number that is not finite.
    """
    expected = f"{source}: expected weights of {type(network).__name__}"
    if not isinstance(state, dict):
        raise UserError(f"{expected}, tensors by name, got {kind_of(state)}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{expected}, tensors by name, got {kind_of(value)} named {name!r:.80}")
    drop_parallel(state)
    own = network.state_dict()
    for name, value in state.items():
        if name in own and value.shape != own[name].shape:
            raise UserError(f"{expected}, {name} of shape {tuple(own[name].shape)}, got {tuple(value.shape)}")
        if name in own and value.is_floating_point() != own[name].is_floating_point():
            raise UserError(f"{expected}, {name} of {own[name].dtype}, got {value.dtype}")
    expect_finite(state, source)
    try:
        network.load_state_dict(state)
    except Exception as error:  # runtime errors, and others where the state's hidden version numbers are odd
        missing, strange = own.keys() - state.keys(), state.keys() - own.keys()
        others = f"{len(missing)} of {len(own)} names missing" + (f" ({min(missing)}, …)" if missing else "")
        others += f", {len(strange)} strange" + (f" ({min(strange):.80}, …)" if strange else "")
        raise UserError(f"{expected}, got {others}") from error


def drop_parallel(state: dict[Any, Any]) -> None:
    """Drop the "module." before the names of a state dict, in place, where all of them have it."""
    if state and all(isinstance(name, str) and name.startswith(_PARALLEL) for name in state):
        consume_prefix_in_state_dict_if_present(state, _PARALLEL)


def fill_optimizer(optimizer: torch.optim.Optimizer, state: Any, source: Source) -> None:
    """Give an optimiser its state back.

    Raises:
        UserError: the state is of another kind, or for other parameters, or holds a number that is not finite.
    """
    expected = f"{source}: expected the state of {type(optimizer).__name__} for this network"
    own = optimizer.state_dict()["param_groups"]
    groups, kept = (state.get("param_groups"), state.get("state")) if isinstance(state, dict) else (None, None)
    if not isinstance(groups, list) or not isinstance(kept, dict):
        raise UserError(f"{expected}, got {kind_of(state)} without it")
    expect_finite(state, source)
    if len(groups) != len(own) or not all(map(_same_group, own, groups)):
        raise UserError(f"{expected}, {len(own)} groups of parameters, got others")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in kept.items():
        if type(index) is not int or not 0 <= index < len(parameters) or not isinstance(values, dict):
            raise UserError(f"{expected}, got {kind_of(values)} for parameter {index!r:.80}")
        shape = parameters[index].shape
        numbers = [value for value in values.values() if value is not None]
        if isinstance(optimizer, torch.optim.AdamW) and not values.keys() >= _ADAM:
            raise UserError(f"{expected}, {', '.join(sorted(_ADAM))} of each parameter, got {sorted(map(str, values))}")
        if not all(isinstance(n, Tensor) and n.is_floating_point() and n.shape in (shape, ()) for n in numbers):
            raise UserError(f"{expected}, tensors of shape {tuple(shape)} for parameter {index}, got others")
    optimizer.load_state_dict(state)


def _same_group(own: dict[str, Any], group: Any) -> bool:
    """Whether a group of parameters has the numbers of our own; switches differ from version to version of torch."""
    if not isinstance(group, dict) or group.get("params") != own["params"]:
        return False
    numbers = [name for name, value in own.items() if is_number(value)]
    pairs = [name for name, value in own.items() if isinstance(value, tuple)]
    return all(is_number(group.get(name)) for name in numbers) and all(
        isinstance(group.get(name), tuple) and all(map(is_number, group[name])) for name in pairs
    )


def fill_scaler(scaler: torch.amp.GradScaler, state: Any, source: Source) -> None:
    """Give a scaler of gradients its state back; the empty one of a run without a scaler leaves it new.

    Raises:
        UserError: the state is of another kind.
    """
    own = scaler.state_dict()
    if not isinstance(state, dict) or (own and state and state.keys() != own.keys()):
        raise UserError(f"{source}: expected the state of GradScaler, got {kind_of(state)} without it")
    expect_finite(state, source)
    if own and state:
        if not all(type(state[name]) is type(own[name]) for name in own):
            raise UserError(f"{source}: expected the state of GradScaler, got values of other kinds")
        scaler.load_state_dict(state)


def expect_finite(value: Any, source: Source) -> None:
    """Check every number in tensors, lists and dictionaries.

    Raises:
        UserError: one of them is infinite or not a number, or a tensor is not a plain one.
    """
    left = [("", value)]
    while left:
        name, item = left.pop()
        if isinstance(item, dict):
            left += [(f"{name}.{key}", inner) for key, inner in item.items()]
        elif isinstance(item, list | tuple):
            left += [(f"{name}.{index}", inner) for index, inner in enumerate(item)]
        elif isinstance(item, Tensor) and (item.layout != torch.strided or item.is_quantized or item.is_meta):
            raise UserError(f"{source}: expected plain tensors, got {name[1:]:.80} of another layout")
        elif isinstance(item, Tensor) and not bool(item.isfinite().all()):
            raise UserError(f"{source}: expected finite numbers, got NaN or infinity in {name[1:]:.80}")
        elif isinstance(item, float) and not math.isfinite(item):
            raise UserError(f"{source}: expected finite numbers, got {name[1:]:.80} = {item}")


def is_number(value: Any) -> bool:
    """Whether a value read from a file is a finite number that arithmetic can take; True and False are none."""
    return type(value) in (int, float) and abs(value) < 1e300


def kind_of(value: Any) -> str:
    """A value in a few words, for errors about what a file holds."""
    if value is None:
        return "nothing"
    if isinstance(value, bool | int | float | str):
        return f"{value!r:.80}"
    return f"a {type(value).__name__}"
