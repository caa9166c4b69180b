"""Checking a student's notebook from outside: does each function that it was to write give the right answers?

The notebook's cells run in a sandbox (sandbox.py). Then the functions that fill the stubs are tried on each exercise's
inputs in there, and only the numbers that they give come back; the right answers are computed, and compared, here. So
it does not matter what a cell prints or what became of `check` or of the package in there: right numbers pass,
everything else does not. The inputs are drawn from another seed than in the notebook.

Cells tagged `solution` are left out: a function that calls the solution below it fails. A function that copies it, or
that calls the package, gives the right numbers and passes: who wrote it is for the instructor to judge.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import rsepm_edu
from rsepm_edu.course.checks import Answer, judge
from rsepm_edu.course.exercises import EXERCISES
from rsepm_edu.course.in_sandbox import SEED
from rsepm_edu.course.notebook_file import code_cells, lesson_of
from rsepm_edu.course.sandbox import one_line, run_notebook
from rsepm_edu.course.walls import why_no_walls
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.errors import UserError

CELL_SECONDS = 300.0
"""Time limit of a cell, and of an exercise: the longest cell of lesson 09, on a slow machine."""
MEMORY_GB = 4.0
"""Memory of a notebook's process; every lesson runs within it."""


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


def check_submission(
    path: str | Path,
    *,
    cell_seconds: float = CELL_SECONDS,
    memory_gb: float = MEMORY_GB,
    walls: bool | None = None,
) -> Submission:
    """Run a notebook in a sandbox and check the functions that it was to define.

    Whatever is wrong with the notebook is in the result: the file is not there, no notebook, or none of this course;
    a cell fails, never ends or ends its process.

    Args:
        path: a notebook file.
        cell_seconds: time limit of each cell and of each exercise; more than 0, at most a day.
        memory_gb: limit of its process in GB (2³⁰ bytes), at least 1; more than that and an allocation fails in there.
        walls: False does without bubblewrap; by default it is used where it is there.

    Raises:
        UserError: a limit is out of its range, no sandbox starts, or the notebook changed the installed package (which
            it cannot do within walls).
    """
    if not 0 < cell_seconds <= 86400:  # not NaN either
        raise UserError(f"cell_seconds: expected more than 0 and at most 86400, got {cell_seconds:g}")
    if not 1 <= memory_gb <= 1024:
        raise UserError(f"memory_gb: expected 1 to 1024, got {memory_gb:g}")
    try:
        cells = code_cells(Path(path))
    except ValueError as error:
        return Submission(str(path), None, (), f"expected a Jupyter notebook, {error}")
    source = "\n".join(source for _, source in cells)
    lesson = lesson_of(source)
    if lesson is None:
        return Submission(str(path), None, (), "expected a lesson of this course with exercises, got another notebook")
    names = [name for name in EXERCISES if name.startswith(f"{lesson}.")]
    if walls is None:
        walls = why_no_walls() is None
    before = None if walls else _package_files()
    found = run_notebook(
        [source for _, source in cells],
        names,
        seconds=cell_seconds,
        memory=int(memory_gb * 2**30),
        drawn=ensure_creatures() if "start(" in source else None,
        walls=walls,
    )
    if before is not None:
        _expect_unchanged(before, path)
    problems = [f"code cell {cells[i][0]} {problem}" for i, problem in enumerate(found.problems) if problem]
    ended_in_a_cell = found.end is not None and len(found.problems) < len(cells)
    if ended_in_a_cell:
        problems.insert(0, f"code cell {cells[len(found.problems)][0]} {found.end}")
    grades = []
    for i, name in enumerate(names):
        if i < len(found.answers):
            grades.append(_grade(name, found.answers[i]))
        elif i == len(found.answers) and not ended_in_a_cell:
            grades.append(Grade(name, False, f"Not yet: your function {found.end}."))
        else:
            grades.append(Grade(name, False, "Not checked: the notebook's process had ended."))
    return Submission(str(path), lesson, tuple(grades), problems[0] if problems else None)


def _grade(name: str, sent: Any) -> Grade:
    exercise = EXERCISES[name]
    cases = exercise.inputs(torch.Generator().manual_seed(SEED))
    answers = _read_answers(sent)
    if len(answers) != len(cases):
        return Grade(name, False, "Not checked: no answers came back that can be read.")
    line = ""
    for inputs, answer in zip(cases, answers, strict=True):
        right, line = judge(exercise, inputs, answer)
        if not right:
            return Grade(name, False, line)
    return Grade(name, True, f"Solved on {len(cases)} inputs; the last: {line}")


def _read_answers(sent: Any) -> list[Answer]:
    """The answers in what a sandbox sent; none where that is not what `in_sandbox.encode` makes."""

    def read() -> Iterator[Answer]:
        for item in sent:
            if "problem" in item:
                yield Answer(None, one_line(str(item["problem"])))
            else:
                yield Answer(torch.tensor(item["values"], dtype=torch.float64).reshape(item["shape"]))

    try:
        return list(read())
    except (IndexError, KeyError, TypeError, ValueError, RuntimeError, RecursionError, OverflowError):
        return []


def _package_files() -> dict[str, str]:
    package = Path(rsepm_edu.__file__).parent
    files = (path for path in sorted(package.rglob("*")) if path.is_file())
    return {str(path.relative_to(package)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _expect_unchanged(before: dict[str, str], path: str | Path) -> None:
    after = _package_files()
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if changed:
        raise UserError(
            f"{path}: expected a notebook that leaves the installed package alone, got one that changed "
            f"{one_line(', '.join(changed))}; install the package anew before anything else is checked"
        )
