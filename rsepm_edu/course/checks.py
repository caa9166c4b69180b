"""The checker of the exercises: a student's function beside the package's, on the same inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rsepm_edu.course.exercises import EXERCISES, Exercise


@dataclass(frozen=True)
class Answer:
    """What a student's function gave for one input: `values` (float64 on the CPU), or a `problem` in one line."""

    values: Tensor | None
    problem: str = ""


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
        right, line = judge(exercise, inputs, ask(answer, inputs))
        print(f"  {line}")
        if not right:
            return False
    print("  Solved: your function and the package agree.")
    return True


def ask(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Answer:
    """Run a student's function on a copy of the inputs; whatever it does becomes an answer."""
    try:
        given = function(*_copy(inputs))
    except NotImplementedError:
        return Answer(None, "Not done yet: write the function, then run this cell again.")
    except Exception as error:  # whatever a student's code may raise is an answer, not a crash
        reason = str(error).strip().split("\n")[0]
        return Answer(None, f"Not yet: your function raised {type(error).__name__}: {reason}")
    if given is None:
        return Answer(None, "Not yet: your function returned nothing. Is a `return` missing?")
    try:
        return Answer(_tensor(given))
    except (TypeError, ValueError, RuntimeError):
        return Answer(None, f"Not yet: expected numbers, got {type(given).__name__}.")


def judge(exercise: Exercise, inputs: tuple[Any, ...], answer: Answer) -> tuple[bool, str]:
    """Whether an answer is the package's own for these inputs, and one line on how far off it is."""
    if answer.values is None:
        return False, answer.problem
    wanted, found = _tensor(exercise.reference(*_copy(inputs))), answer.values
    if found.shape != wanted.shape:
        return False, f"Not yet: expected shape {tuple(wanted.shape)}, got {tuple(found.shape)}."
    difference = float((found - wanted).abs().max()) if wanted.numel() else 0.0
    text = f"shape {tuple(found.shape)}, largest difference"
    if difference <= exercise.tolerance:  # false for NaN too
        # Not the difference itself: its last digits are another processor's, and stored outputs are to be the same.
        return True, f"{text} {f'at most {exercise.tolerance:.0e}' if exercise.tolerance else 0}: right"
    return False, f"Not yet: {text} {difference:.1e}, allowed {exercise.tolerance:.0e}."


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
