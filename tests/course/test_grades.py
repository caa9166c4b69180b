"""Every lesson's grades: untouched nothing passes, its own solutions all pass, a wrong body does not.

A lesson runs here without its work: of every cell the imports and definitions, which is all that can carry the name of
a function that is to be written. `make grade-lessons` runs the whole lessons in the sandbox.
"""

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

from rsepm_edu.course import checks
from rsepm_edu.course.exercises import EXERCISES, stub_of
from rsepm_edu.course.in_sandbox import SEED, answers_of
from rsepm_edu.course.submissions import check_submission

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
TODO = "raise NotImplementedError"

lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def exercises(path: Path) -> list[str]:
    return [name for name in EXERCISES if name.startswith(f"{path.stem[:2]}.")]


def handout(path: Path) -> list[str]:
    """The sources of a lesson's code cells, solutions left out."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if "solution" not in cell.metadata.get("tags", [])]


def functions(source: str) -> list[str]:
    return [each.name for each in statements(source) if isinstance(each, ast.FunctionDef)]


def own_solutions(path: Path) -> list[str]:
    """One for each stub, as a student would write it there; the first stub's cell imports `check` for all.

    A folded cell that measures what was to be predicted belongs to no stub and is left out.
    """
    cells = nbformat.read(path, as_version=4).cells
    folded = [cell.source for cell in cells if "solution" in cell.metadata.get("tags", [])]
    bodies = []
    for stub in [name for source in handout(path) if TODO in source for name in functions(source)]:
        found = [source for source in folded if f"{stub}_solution" in functions(source)]
        assert len(found) == 1, f"{path.name}: {len(found)} folded cells define {stub}_solution, expected 1"
        bodies.append(f"from rsepm_edu.course.checks import check\n{found[0].replace('_solution', '')}")
    return bodies


def filled_in(path: Path, bodies: list[str]) -> list[str]:
    """The lesson with a body in the place of each stub."""
    left = iter(bodies)
    sources = [next(left) if TODO in source else source for source in handout(path)]
    assert next(left, None) is None, "as many stubs as bodies"
    return sources


def wrong_bodies(path: Path) -> list[str]:
    """Zeros of the right shape and kind: the package's own answer times 0."""
    return [
        f"def {stub_of(name)}(*inputs):\n"
        "    import torch\n"
        "    from rsepm_edu.course.exercises import EXERCISES\n"
        f"    given = EXERCISES[{name!r}].reference(*inputs)\n"
        "    return torch.as_tensor(given) * 0"
        for name in exercises(path)
    ]


def statements(source: str) -> Iterator[ast.stmt]:
    with suppress(SyntaxError):  # a cell that does not compile binds nothing
        yield from ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.MULTILINE)).body


def imports_and_definitions(sources: list[str]) -> dict[str, Any]:
    """The names that are bound once these cells have run, as far as functions go."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for source in sources:
        for statement in statements(source):
            if isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
                with suppress(NameError):  # a default that is something computed
                    exec(compile(ast.Module([statement], []), "<cell>", "exec"), namespace)
    return namespace


def solved(path: Path, sources: list[str]) -> dict[str, bool]:
    namespace = imports_and_definitions(sources)
    found = {}
    for name in exercises(path):
        cases = EXERCISES[name].inputs(torch.Generator().manual_seed(SEED))
        answers = answers_of(name, namespace)
        assert len(answers) == len(cases)
        judged = [checks.judge(EXERCISES[name], *pair)[0] for pair in zip(cases, answers, strict=True)]
        found[name] = all(judged)
    return found


@lessons
def test_an_untouched_lesson_has_nothing_solved(path: Path) -> None:
    assert not any(solved(path, handout(path)).values())


@lessons
def test_a_lessons_own_solutions_all_pass(path: Path) -> None:
    found = solved(path, filled_in(path, own_solutions(path)))
    assert found == dict.fromkeys(exercises(path), True)


@pytest.mark.parametrize(
    ("path", "number"),
    [pytest.param(path, n, id=f"{path.stem}-{n}") for path in LESSONS for n in range(len(exercises(path)))],
)
def test_one_wrong_body_among_right_ones_is_the_one_that_fails(path: Path, number: int) -> None:
    bodies = own_solutions(path)
    bodies[number] = wrong_bodies(path)[number]
    failed = [name for name, right in solved(path, filled_in(path, bodies)).items() if not right]
    assert failed == [exercises(path)[number]]


@lessons
@pytest.mark.parametrize("body", ["def {stub}(:\n", "", "{stub} = 3"], ids=["broken", "deleted", "a number"])
def test_a_stub_that_does_not_compile_or_is_gone_finds_no_other_function(path: Path, body: str) -> None:
    bodies = [body.format(stub=stub_of(name)) for name in exercises(path)]
    assert not any(solved(path, filled_in(path, bodies)).values())


@lessons
def test_each_stub_has_the_name_that_the_grader_looks_for(path: Path) -> None:
    cells = [source for source in handout(path) if TODO in source]
    assert len(cells) == len(exercises(path))
    for name, source in zip(exercises(path), cells, strict=True):
        assert functions(source) == [stub_of(name)]
        assert f'check("{name}", {stub_of(name)})' in source


@lessons
def test_no_other_cell_has_a_function_of_a_stubs_name(path: Path) -> None:
    stubs = {stub_of(name) for name in exercises(path)}
    bound = imports_and_definitions([source for source in handout(path) if TODO not in source])
    assert not stubs & {name for name, value in bound.items() if isinstance(value, Callable)}  # type: ignore[arg-type]


def test_the_packages_own_function_under_a_stubs_name_is_no_answer() -> None:
    from rsepm_edu.evaluation.metrics import confusion_matrix

    answers = answers_of("00.confusion_matrix", {"count_pixels": confusion_matrix})
    assert {answer.problem for answer in answers} == {"Not yet: count_pixels is the package's own function."}


@pytest.mark.grades
@lessons
@pytest.mark.parametrize("filled", [False, True], ids=["untouched", "solved"])
def test_a_whole_lesson_in_the_sandbox(path: Path, filled: bool, tmp_path: Path) -> None:
    sources = filled_in(path, own_solutions(path)) if filled else handout(path)
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    file = tmp_path / path.name
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    found = check_submission(file, cell_seconds=3600)  # no test of time: the machine may be busy
    assert found.problem is None
    assert {grade.name: grade.passed for grade in found.grades} == dict.fromkeys(exercises(path), filled)
