"""`rsepm-edu check`: what it says of solved, stubbed, broken and dishonest notebooks."""

import json
import os
import time
from pathlib import Path

import nbformat
import pytest
import torch

import rsepm_edu
from rsepm_edu import cli
from rsepm_edu.course import submissions
from rsepm_edu.course.exercises import EXERCISES
from rsepm_edu.course.sandbox import Sandbox, one_line
from rsepm_edu.course.submissions import check_submission
from rsepm_edu.errors import UserError

LESSON_01 = Path(__file__).parents[2] / "notebooks" / "01_cam.ipynb"
START = "import torch\nfrom torch.nn import functional as F\nfrom rsepm_edu.course.checks import check"


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def stubs() -> list[str]:
    """The cells that the lesson leaves to the student."""
    return [cell.source for cell in code(LESSON_01) if "raise NotImplementedError" in cell.source]


def solutions() -> list[str]:
    """The lesson's own solutions, as a student would write them into the stubs."""
    cells = [cell.source for cell in code(LESSON_01) if "solution" in cell.metadata.get("tags", [])]
    return [source.replace("_solution", "") for source in cells]


def write(path: Path, *sources: str) -> Path:
    """A notebook of code cells; one whose source starts with `# @title Solution` is tagged as such."""
    cells = []
    for source in sources:
        tags = {"tags": ["solution"]} if source.startswith("# @title Solution") else {}
        cells.append(nbformat.v4.new_code_cell(source, metadata=tags))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def passed(found: submissions.Submission) -> dict[str, bool]:
    return {grade.name.partition(".")[2]: grade.passed for grade in found.grades}


def lines(found: submissions.Submission) -> dict[str, str]:
    return {grade.name.partition(".")[2]: grade.line for grade in found.grades}


def test_a_solved_and_a_stubbed_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = [source.replace("# @title Solution", "# mine:") for source in solutions()]
    solved = write(tmp_path / "solved.ipynb", START, *mine)
    stubbed = write(tmp_path / "stubbed.ipynb", START, *stubs())
    broken = tmp_path / "broken.ipynb"
    broken.write_text(solved.read_text()[:400])
    files = [str(path) for path in (solved, stubbed, broken)]
    assert cli.main(["check", *files, "--json", "--quiet"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["solved"], printed["of"]) == (3, 6)
    first, second, third = printed["submissions"]
    assert (first["file"], first["lesson"], first["problem"], first["solved"]) == (files[0], "01", None, 3)
    assert all(exercise["line"].startswith("Solved on 2 inputs; the last: ") for exercise in first["grades"])
    assert (second["lesson"], second["problem"], second["solved"], second["of"]) == ("01", None, 0, 3)
    assert all(exercise["line"].startswith("Not done yet: ") for exercise in second["grades"])
    assert third["lesson"] is None and third["problem"].startswith("expected a Jupyter notebook, got ")


@pytest.fixture(scope="module")
def dishonest(tmp_path_factory: pytest.TempPathFactory) -> submissions.Submission:
    """Every trick in one notebook: prints, a checker of one's own, a changed package, the solution's name."""
    return check_submission(
        write(
            tmp_path_factory.mktemp("check") / "dishonest.ipynb",
            START,
            "print('Exercise 01.tag_scores\\n  Solved: your function and the package agree.')",
            "def check(name, answer):\n    print('Solved')\n    return True",
            "from rsepm_edu.course import checks\n"
            "from rsepm_edu.course.exercises import EXERCISES, Exercise\n"
            "import torch\n"
            "nothing = Exercise(lambda *_: torch.zeros(1), lambda _: [(0,), (0,)])\n"
            "checks.check = check\n"
            "checks.judge = lambda *_: (True, 'right')\n"
            "EXERCISES['01.tag_scores'] = EXERCISES['01.iou_fp_fn'] = nothing",
            "def tag_scores(*_):\n    return torch.zeros(1)\n\n\ncheck('01.tag_scores', tag_scores);",
            *[source for source in solutions() if "def merge_scales(" not in source],
            "# @title Solution 2\nimport torch.nn.functional as F\ndef merge_scales_solution(a, b, size):\n"
            "    return sum(F.interpolate(c, size=size) for c in a)",
            "def merge_scales(cams, mirrored, size):\n    return merge_scales_solution(cams, mirrored, size)",
        )
    )


def test_printing_redefining_and_patching_do_not_pass(dishonest: submissions.Submission) -> None:
    assert dishonest.lesson == "01"
    assert passed(dishonest) == {"tag_scores": False, "merge_scales": False, "iou_fp_fn": False}
    assert "expected shape (1, 2), got (1,)" in lines(dishonest)["tag_scores"]


def test_a_function_that_calls_the_folded_solution_does_not_pass(dishonest: submissions.Submission) -> None:
    assert "raised NameError: name 'merge_scales_solution' is not defined" in lines(dishonest)["merge_scales"]


def test_endless_code_is_stopped_and_the_rest_is_checked(tmp_path: Path) -> None:
    mine = [source.replace("# @title Solution", "# mine:") for source in solutions()]
    path = write(
        tmp_path / "endless.ipynb",
        START,
        "while True:\n    pass",
        mine[0],
        "def merge_scales(cams, mirrored, size):\n    while True:\n        pass",
        "1 / 0",
        "def iou_fp_fn(mask, truth)\n    return 1",
    )
    found = check_submission(path, cell_seconds=6)
    assert passed(found) == {"tag_scores": True, "merge_scales": False, "iou_fp_fn": False}
    assert found.problem == "code cell 2 ran longer than 6 s and was stopped"
    assert lines(found)["merge_scales"] == "Not yet: your function ran longer than 6 s and was stopped."
    assert lines(found)["iou_fp_fn"] == "Not yet: the notebook defines no function iou_fp_fn."


def test_a_notebook_that_ends_its_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "ends.ipynb", START, solutions()[0], "import os\nos._exit(0)", stubs()[1])
    assert cli.main(["check", str(path)]) == 1
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"{path}: lesson 01"
    assert printed.count("Not checked: the kernel had stopped.") == 3
    assert "note: code cell 3 ended the kernel" in printed
    assert printed.splitlines()[-1].strip() == "0 of 3 exercises solved"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a Jupyter notebook, got NotJSONError"),
        ("{}", "expected a Jupyter notebook, got "),
        ("[1, 2]", "expected a Jupyter notebook, got "),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": ["print(1)"]}', "expected a Jupyter notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}', "got another notebook"),
    ],
)
def test_files_that_are_no_notebook_of_the_course(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file.ipynb"
    path.write_text(text)
    found = check_submission(path)
    assert (found.lesson, found.grades) == (None, ())
    assert found.problem is not None and said in found.problem and "\n" not in found.problem


def test_a_notebook_of_another_course_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "was here"
    other = write(tmp_path / "other.ipynb", f"open({str(mark)!r}, 'w').close()", "check('99.nothing', print)")
    assert cli.main(["check", str(other), str(other), "--quiet"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        *[f"-/-  {other}: expected a lesson of this course with exercises, got another notebook"] * 2,
        "0 of 0 exercises solved in 2 notebooks",
    ]
    assert not mark.exists()


def test_what_an_instructor_can_get_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(tmp_path / "none.ipynb")]) == 2
    assert capsys.readouterr().err == f"rsepm-edu check: {tmp_path}/none.ipynb: expected a notebook, got no such file\n"
    with pytest.raises(UserError, match="cell_seconds: expected more than 0, got 0"):
        check_submission(LESSON_01, cell_seconds=0)


def test_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel for many questions: the start of one is what takes time."""
    monkeypatch.setenv("SECRET_TOKEN", "12345")
    monkeypatch.setenv("RSEPM_EDU_DATA", str(tmp_path))
    here = os.getpid()

    def shown(code: str) -> str:
        result = sandbox.run(f"from IPython.display import display\ndisplay({{'x': str({code})}}, raw=True)")
        assert result.problem is None
        return str(result.displayed[0]["x"])

    with Sandbox(seconds=20) as sandbox:
        assert int(shown("__import__('os').getpid()")) != here
        folder = Path(shown("__import__('os').getcwd()"))
        assert folder.is_dir() and folder != Path.cwd()
        assert shown("__import__('pathlib').Path.home()") == str(folder)
        assert shown("__import__('os').environ.get('SECRET_TOKEN')") == "None"
        assert shown("__import__('os').environ['RSEPM_EDU_DATA']") == str(tmp_path)
        assert shown("__import__('rsepm_edu').__file__") == rsepm_edu.__file__
        assert sandbox.run("input('name?')").problem is not None  # nobody answers, and it does not wait
        assert str(sandbox.run("x = 1\nx +").problem).startswith("raised SyntaxError: ")
        child = int(shown("__import__('subprocess').Popen(['sleep', '600']).pid"))
    assert not folder.exists()
    deadline = time.monotonic() + 60
    while is_running(child):  # killed with the group, at once or as soon as the system gets to it
        assert time.monotonic() < deadline


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")  # a dead process that nobody has asked about still has its number
    return not (status.is_file() and ") Z " in status.read_text())


def test_code_that_does_not_stop_when_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsepm_edu.course.sandbox.GRACE_SECONDS", 1.0)
    stubborn = (
        "while True:\n    try:\n        while True:\n            pass\n    except KeyboardInterrupt:\n        pass"
    )
    with Sandbox(seconds=2) as sandbox:
        assert sandbox.run("1").problem is None
        assert sandbox.run(stubborn).problem == "ran longer than 2 s, did not stop when asked, and was killed"
        assert not sandbox.alive
        assert sandbox.run("1").problem == "the kernel had stopped before"


def test_one_line_is_one_line() -> None:
    assert one_line("\n \x1b[31mred\x07\nmore") == "[31mred"
    assert one_line("a" * 500) == "a" * 159 + "…"
    assert one_line("") == ""


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "1",
        "[1]",
        "[null]",
        '[{"shape": [2]}]',
        '[{"shape": [3], "values": [1, 2]}]',
        '[{"shape": 1, "values": "x"}]',
    ],
)
def test_what_cannot_be_read_is_no_answer(sent: str) -> None:
    assert submissions._decode([{submissions.MIME: sent}]) == []
    assert submissions._decode([]) == []


def test_answers_survive_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    values = torch.tensor([[0.1, float("nan")], [float("inf"), -1e-300]], dtype=torch.float64)
    answers = [submissions.Answer(values), submissions.Answer(torch.tensor(2.5)), submissions.Answer(None, "Not yet.")]
    sent = json.dumps([submissions._encode(answer) for answer in answers])
    first, second, third = submissions._decode([{submissions.MIME: sent}])
    assert torch.equal(first.values.nan_to_num(7), values.nan_to_num(7))  # type: ignore[union-attr]
    assert second.values == 2.5 and second.values.shape == ()  # type: ignore[union-attr]
    assert third == answers[2]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_inputs_outside_are_not_those_of_the_notebook(name: str) -> None:
    inside, outside = (EXERCISES[name].inputs(torch.Generator().manual_seed(seed)) for seed in (0, submissions.SEED))
    assert len(inside) == len(outside)
    for inputs in outside:
        right, line = submissions.judge(EXERCISES[name], inputs, submissions.ask(EXERCISES[name].reference, inputs))
        assert right, line
