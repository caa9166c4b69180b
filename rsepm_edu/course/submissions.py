"""Checking a student's notebook from outside: does each function that it was to write give the right answers?

The notebook's cells run in a sandbox (sandbox.py). Then the sandbox is given each exercise's inputs, and only the
numbers that the student's function makes of them come back; the right answers are computed, and compared, here. So it
does not matter what a cell prints or what became of `check` or of the package in there: right numbers pass, everything
else does not. The inputs are drawn from another seed than in the notebook.

Cells tagged `solution` are left out: a function that calls the solution below it fails. A function that copies it, or
that calls the package, gives the right numbers and passes: who wrote it is for the instructor to judge.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rsepm_edu.course.checks import Answer, ask, judge
from rsepm_edu.course.exercises import EXERCISES, stub_of
from rsepm_edu.course.sandbox import START_SECONDS, Sandbox, one_line
from rsepm_edu.errors import UserError

SEED = 1
"""Of the inputs; the notebook's own checker draws them with 0."""
CELL_SECONDS = 300.0
"""Time limit of a cell, and of an exercise: the longest cell of lesson 09, on a slow machine."""
LARGEST = 1_000_000
"""A result with more numbers than that is no answer."""
MIME = "application/vnd.rsepm-edu.answers"


@dataclass(frozen=True)
class Grade:
    """One exercise: its name, whether it is solved, and the checker's line."""

    name: str
    passed: bool
    line: str


@dataclass(frozen=True)
class Submission:
    """What was found out about one file.

    file: as it was given. lesson: its number, or None where no lesson was recognised. problem: why it could not be
    checked at all, or the first cell that went wrong; None if all is well.
    """

    file: str
    lesson: str | None
    grades: tuple[Grade, ...]
    problem: str | None

    @property
    def solved(self) -> int:
        """How many exercises are solved."""
        return sum(grade.passed for grade in self.grades)


def check_submission(path: str | Path, *, cell_seconds: float = CELL_SECONDS) -> Submission:
    """Run a notebook in a sandbox and check the functions that it was to define.

    Whatever is wrong with the notebook is in the result: the file is no notebook, or none of this course, a cell fails,
    never ends or ends the kernel.

    Args:
        path: a notebook file.
        cell_seconds: time limit of each cell and of each exercise.

    Raises:
        UserError: there is no such file, the limit is not positive, or Jupyter is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a notebook, got no such file")
    if cell_seconds <= 0:
        raise UserError(f"cell_seconds: expected more than 0, got {cell_seconds:g}")
    try:
        cells = _code_cells(path)
    except ValueError as error:
        return Submission(str(path), None, (), f"expected a Jupyter notebook, got {error}")
    lesson = _lesson("\n".join(source for _, source in cells))
    if lesson is None:
        return Submission(str(path), None, (), "expected a lesson of this course with exercises, got another notebook")
    names = [name for name in EXERCISES if name.startswith(f"{lesson}.")]
    with Sandbox(cell_seconds) as sandbox:
        sandbox.run(f"import {__name__}", seconds=START_SECONDS)  # torch is slow to come; no cell's fault
        problem = None
        for number, source in cells:
            found = sandbox.run(source).problem
            problem = problem or (found and f"code cell {number} {found}")
            if not sandbox.alive:
                problem = f"code cell {number} {found}"
                break
        grades = tuple(_grade(sandbox, name) for name in names)
    return Submission(str(path), lesson, grades, problem)


def _code_cells(path: Path) -> list[tuple[int, str]]:
    """Number (from 1, among the code cells) and source of the cells to run; ValueError says what else the file is."""
    try:
        import nbformat
    except ModuleNotFoundError:
        raise UserError("check: expected nbformat (pip install 'rsepm-edu[notebooks]'), got none") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # missing cell ids and the like: not the student's doing
            notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
            nbformat.validate(notebook)
    except OSError:
        raise
    except Exception as error:  # nbformat meets half a notebook with whatever breaks first
        raise ValueError(one_line(f"{type(error).__name__}: {error}")) from None
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    solution = ["solution" in cell.metadata.get("tags", []) for cell in code]
    return [(i + 1, cell.source) for i, cell in enumerate(code) if not solution[i]]


def _lesson(source: str) -> str | None:
    """The lesson that a notebook's code says it is, if that lesson has exercises."""
    for pattern in (r"""\bstart\(\s*["'](\d\d)["']""", r"""\bcheck\(\s*["'](\d\d)\."""):
        for number in re.findall(pattern, source):
            if any(name.startswith(f"{number}.") for name in EXERCISES):
                return str(number)
    return None


def _grade(sandbox: Sandbox, name: str) -> Grade:
    exercise = EXERCISES[name]
    if not sandbox.alive:
        return Grade(name, False, "Not checked: the kernel had stopped.")
    result = sandbox.run(f"__import__({__name__!r}, fromlist=['_']).send_answers({name!r})")
    if result.problem is not None:
        return Grade(name, False, f"Not yet: your function {result.problem}.")
    cases = exercise.inputs(torch.Generator().manual_seed(SEED))
    answers = _decode(result.displayed)
    if len(answers) != len(cases):
        return Grade(name, False, "Not checked: no answers came back that can be read.")
    line = ""
    for inputs, answer in zip(cases, answers, strict=True):
        right, line = judge(exercise, inputs, answer)
        if not right:
            return Grade(name, False, line)
    return Grade(name, True, f"Solved on {len(cases)} inputs; the last: {line}")


# --- what crosses from the sandbox -----------------------------------------------------------------------------------


def send_answers(name: str) -> None:
    """In the sandbox: run the student's function of that exercise on its inputs, hand out what it gives.

    Nothing that is sent from there is believed but the numbers, and they are compared outside.
    """
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    assert shell is not None, "send_answers runs in a sandbox only"
    answers = answers_of(name, shell.user_ns)
    display({MIME: json.dumps([_encode(answer) for answer in answers])}, raw=True)


def answers_of(name: str, namespace: Mapping[str, Any]) -> list[Answer]:
    """What the student's function of that exercise, found by the name of its stub, gives for each input."""
    stub, cases = stub_of(name), EXERCISES[name].inputs(torch.Generator().manual_seed(SEED))
    function = namespace.get(stub)
    if not callable(function):
        return [Answer(None, f"Not yet: the notebook defines no function {stub}.")] * len(cases)
    if str(getattr(function, "__module__", None)).startswith("rsepm_edu."):
        return [Answer(None, f"Not yet: {stub} is the package's own function.")] * len(cases)
    return [ask(function, inputs) for inputs in cases]


def _encode(answer: Answer) -> dict[str, Any]:
    if answer.values is None:
        return {"problem": answer.problem}
    if answer.values.numel() > LARGEST:
        return {"problem": f"Not yet: got {answer.values.numel()} numbers, far too many."}
    return {"shape": list(answer.values.shape), "values": answer.values.flatten().tolist()}


def _decode(displayed: Sequence[dict[str, Any]]) -> list[Answer]:
    """The answers in what a sandbox displayed; none where that is not what `send_answers` sends."""
    texts = [data[MIME] for data in displayed if MIME in data]
    try:
        return list(_read_answers(json.loads(texts[-1])))
    except (IndexError, KeyError, TypeError, ValueError, RuntimeError, RecursionError, OverflowError):
        return []


def _read_answers(sent: list[dict[str, Any]]) -> Iterator[Answer]:
    for item in sent:
        if "problem" in item:
            yield Answer(None, one_line(str(item["problem"])))
        else:
            yield Answer(torch.tensor(item["values"], dtype=torch.float64).reshape(item["shape"]))
