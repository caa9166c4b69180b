"""The checker of the exercises: a student's function beside the package's, on the same inputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rsepm_edu.course.exercises import EXERCISES, Exercise


def check(name: str, answer: Callable[..., Any]) -> bool:
    """Run `answer` on random inputs, compare it with the package's result, print what was found.

    Prints the shapes and the largest absolute difference for each input, then one line that says
    whether the exercise is solved. Nothing that `answer` does (wrong shape, no return value, an
    error, `NotImplementedError` because it is still to be written) raises here.

    Args:
        name: an exercise of `rsepm_edu.course.exercises.EXERCISES`, such as "01.tag_scores".
        answer: the student's function.

    Returns:
        True if every result has the right shape and lies within the exercise's tolerance.
    """
    exercise = EXERCISES.get(name)
    if exercise is None:
        print(f"There is no exercise {name!r}; there are {', '.join(EXERCISES)}.")
        return False
    print(f"Exercise {name}")
    for inputs in exercise.inputs(torch.Generator().manual_seed(0)):
        right, line = _compare(exercise, answer, inputs)
        print(f"  {line}")
        if not right:
            return False
    print("  Solved: your function and the package agree.")
    return True


def _compare(exercise: Exercise, answer: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[bool, str]:
    wanted = _tensor(exercise.reference(*_copy(inputs)))
    try:
        given = answer(*_copy(inputs))
    except NotImplementedError:
        return False, "Not done yet: write the function, then run this cell again."
    except Exception as error:  # whatever a student's code may raise is an answer, not a crash
        reason = str(error).strip().split("\n")[0]
        return False, f"Not yet: your function raised {type(error).__name__}: {reason}"
    if given is None:
        return False, "Not yet: your function returned nothing. Is a `return` missing?"
    try:
        found = _tensor(given)
    except (TypeError, ValueError, RuntimeError):
        return False, f"Not yet: expected numbers, got {type(given).__name__}."
    if found.shape != wanted.shape:
        return False, f"Not yet: expected shape {tuple(wanted.shape)}, got {tuple(found.shape)}."
    difference = float((found - wanted).abs().max()) if wanted.numel() else 0.0
    text = f"shape {tuple(found.shape)}, largest difference {difference:.1e}"
    if difference <= exercise.tolerance:  # false for NaN too
        return True, f"{text}: right"
    return False, f"Not yet: {text}, allowed {exercise.tolerance:.0e}."


def _copy(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """So that a function that works in place cannot change what the other one sees."""
    return tuple(
        value.clone()
        if isinstance(value, Tensor)
        else [item.clone() for item in value]
        if isinstance(value, list)
        else value
        for value in inputs
    )


def _tensor(value: Any) -> Tensor:
    """A tensor, a number, or a sequence of them, as float64 on the CPU."""
    if isinstance(value, list | tuple):
        return torch.stack([_tensor(item) for item in value])
    return torch.as_tensor(value).detach().to("cpu", torch.float64)
