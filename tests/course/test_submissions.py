"""`rsepm-edu check`: what it says of solved, stubbed, broken and dishonest notebooks."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

import rsepm_edu
from rsepm_edu import cli
from rsepm_edu.course import checks, in_sandbox, notebook_file, submissions, walls
from rsepm_edu.course.exercises import EXERCISES
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


def mine() -> list[str]:
    """The solutions in cells that are the student's own."""
    return [source.replace("# @title Solution", "# mine:") for source in solutions()]


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
    solved = write(tmp_path / "solved.ipynb", START, *mine())
    stubbed = write(tmp_path / "stubbed.ipynb", START, *stubs())
    broken = tmp_path / "broken.ipynb"
    broken.write_text(solved.read_text()[:400])
    marked = tmp_path / "marked.ipynb"  # as editors on Windows save it; a class's own solution is no cell to run
    marked.write_bytes(b"\xef\xbb\xbf" + stubbed.read_bytes())
    files = [str(path) for path in (solved, marked, broken)]
    assert cli.main(["check", *files, "--json", "--quiet"]) == 1
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["file"], first["lesson"], first["problem"], first["solved"]) == (files[0], "01", None, 3)
    assert all(re.match(r"Solved on [24] inputs; the last: ", exercise["line"]) for exercise in first["grades"])
    assert (second["lesson"], second["problem"], second["solved"], second["of"]) == ("01", None, 0, 3)
    assert all(exercise["line"].startswith("Not done yet: ") for exercise in second["grades"])
    assert (third["lesson"], third["problem"]) == (None, "expected a Jupyter notebook, got no JSON")


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
            "EXERCISES['01.tag_scores'] = EXERCISES['01.seen_pixels'] = nothing",
            "def tag_scores(*_):\n    return torch.zeros(1)\n\n\ncheck('01.tag_scores', tag_scores);",
            *[source for source in solutions() if "def merge_scales(" not in source],
            "# @title Solution 2\nimport torch.nn.functional as F\ndef merge_scales_solution(a, b, size):\n"
            "    return sum(F.interpolate(c, size=size) for c in a)",
            "def merge_scales(cams, mirrored, size):\n    return merge_scales_solution(cams, mirrored, size)",
        )
    )


def test_printing_redefining_and_patching_do_not_pass(dishonest: submissions.Submission) -> None:
    assert dishonest.lesson == "01"
    assert passed(dishonest) == {"tag_scores": False, "merge_scales": False, "seen_pixels": False}
    assert "expected shape (1, 2), got (1,)" in lines(dishonest)["tag_scores"]


def test_a_function_that_calls_the_folded_solution_does_not_pass(dishonest: submissions.Submission) -> None:
    assert "raised NameError: name 'merge_scales_solution' is not defined" in lines(dishonest)["merge_scales"]


def test_endless_code_is_stopped_and_the_rest_is_checked(tmp_path: Path) -> None:
    path = write(
        tmp_path / "endless.ipynb",
        START,
        "while True:\n    pass",
        mine()[0],
        "def merge_scales(cams, mirrored, size):\n    while True:\n        pass",
        "1 / 0",
        "def seen_pixels(layers)\n    return 1",
    )
    found = check_submission(path, cell_seconds=10)
    assert passed(found) == {"tag_scores": True, "merge_scales": False, "seen_pixels": False}
    assert found.problem == "code cell 2 ran longer than 10 s and was stopped"
    assert lines(found)["merge_scales"] == "Not yet: your function ran longer than 10 s and was stopped."
    assert lines(found)["seen_pixels"] == "Not yet: the notebook defines no function seen_pixels."


def test_a_notebook_that_ends_its_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "ends.ipynb", START, mine()[0], "import os\nos._exit(0)", stubs()[1])
    assert cli.main(["check", str(path)]) == 1
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"{path}: lesson 01"
    assert printed.count("Not checked: the notebook's process had ended.") == 3
    assert "note: code cell 3 ended its process" in printed
    assert printed.splitlines()[-1].strip() == "0 of 3 exercises solved"


def test_a_function_that_ends_its_process_costs_what_comes_after(tmp_path: Path) -> None:
    first, _, third = mine()
    path = write(tmp_path / "ends.ipynb", START, first, "import os\ndef merge_scales(*_):\n    os._exit(0)", third)
    found = check_submission(path)
    assert passed(found) == {"tag_scores": True, "merge_scales": False, "seen_pixels": False}
    assert lines(found)["merge_scales"] == "Not yet: your function ended its process."
    assert found.problem is None


EMPTY: dict[str, Any] = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got an empty file"),
        (b"\xef\xbb\xbf", "got an empty file"),
        (b"{", "got no JSON"),
        (b"[" * 100_000, "got no JSON"),
        (b'{"nbformat": ' + b"4" * 5000 + b"}", "got no JSON"),
        (b"\xff\xfe{\x00}\x00", "got a file that is not UTF-8 text"),
        (b"{}", "got other JSON"),
        (b"[1, 2]", "got other JSON"),
        ({**EMPTY, "nbformat": "4"}, "got other JSON"),
        ({"nbformat": 3, "worksheets": []}, "got another format than 4"),
        ({"nbformat": 4}, "got one without cells"),
        ({**EMPTY, "cells": {}}, "got one without cells"),
        ({**EMPTY, "cells": ["print(1)"]}, "got one without cells"),
        ({**EMPTY, "cells": [{"cell_type": "code"}]}, "got one whose code cell 1 has no text"),
        ({**EMPTY, "cells": [{"cell_type": "code", "source": ["a", 3]}]}, "got one whose code cell 1 has no text"),
        ({**EMPTY, "cells": [{"cell_type": "code", "source": "1", "metadata": 3}]}, "got another notebook"),
        (EMPTY, "got another notebook"),
    ],
    ids=str,
)
def test_files_that_are_no_notebook_of_the_course(content: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    found = check_submission(path)
    assert (found.lesson, found.grades) == (None, ())
    assert found.problem is not None and said in found.problem and "\n" not in found.problem


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_submission(tmp_path / "none.ipynb").problem == "expected a Jupyter notebook, got no such file"
    assert check_submission(tmp_path).problem == "expected a Jupyter notebook, got a folder"
    path = write(tmp_path / "file.ipynb", START)
    monkeypatch.setattr(notebook_file, "LARGEST_FILE", 100)
    assert "clear its outputs" in str(check_submission(path).problem)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.undo()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = check_submission(path)
    assert found.problem == "expected a Jupyter notebook, got a file that cannot be read: Permission denied"


def test_a_source_may_be_lines_or_one_text_and_solutions_are_left_out(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "code", "source": ["a\n", "b"], "metadata": {"tags": ["mine"]}},
        {"cell_type": "markdown", "source": "text"},
        {"cell_type": "code", "source": "c", "metadata": {"tags": ["solution"]}},
        {"cell_type": "code", "source": "d"},
    ]
    path = tmp_path / "file.ipynb"
    path.write_text(json.dumps({**EMPTY, "cells": cells}))
    assert notebook_file.code_cells(path) == [(1, "a\nb"), (3, "d")]


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
    assert cli.main(["check", str(LESSON_01), str(tmp_path / "none.ipynb")]) == 2
    assert capsys.readouterr().err == f"rsepm-edu check: {tmp_path}/none.ipynb: expected a notebook, got no such file\n"
    assert cli.main(["check", str(tmp_path)]) == 2
    assert f"{tmp_path}: expected a notebook, got a folder; name the files in it\n" in capsys.readouterr().err
    for seconds in ("0", "-1", "nan", "inf", "1e9"):
        assert cli.main(["check", str(LESSON_01), f"--cell-seconds={seconds}"]) == 2
        assert "cell_seconds: expected more than 0 and at most 86400, got" in capsys.readouterr().err
    for memory in ("0", "nan", "inf"):
        with pytest.raises(UserError, match="memory_gb: expected 1 to 1024, got"):
            check_submission(LESSON_01, memory_gb=float(memory))


def graded(name: str, *_: Any, **__: Any) -> submissions.Submission:
    return submissions.Submission(str(name), "01", (submissions.Grade("01.tag_scores", True, "Solved"),), None)


def test_grades_are_there_as_they_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens at the third, the first two are printed, by then and not at the end."""
    printed: list[str] = []

    def check(file: str, **_: Any) -> submissions.Submission:
        printed.append(capsys.readouterr().out)
        if "c.ipynb" in file:
            raise KeyboardInterrupt
        return graded(file)

    monkeypatch.setattr("rsepm_edu.cli.check.check_submission", check)
    files = [str(write(tmp_path / name, START)) for name in ("a.ipynb", "b.ipynb", "c.ipynb", "d.ipynb")]
    assert cli.main(["check", *files, "--quiet"]) == 130
    assert [text.strip() for text in printed] == ["", *[f"1/1  {file}: 01.tag_scores passed" for file in files[:2]]]
    after = capsys.readouterr()
    assert after.out == "" and after.err.endswith("rsepm-edu check: stopped\n")


def test_names_of_files_cannot_write_lines_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsepm_edu.cli.check.check_submission", graded)
    odd = [os.fsdecode(name) for name in (b"a\n3 of 3.ipynb", b"b\x1b[31m.ipynb", b"\xff.ipynb")]
    files = [str(write(tmp_path / name, START)) for name in odd]
    assert cli.main(["check", *files, "--quiet"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 and all(line.isprintable() for line in printed)


def test_no_bar_is_drawn_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsepm_edu.cli.check.check_submission", graded)
    assert cli.main(["check", *(str(write(tmp_path / name, START)) for name in ("a.ipynb", "b.ipynb"))]) == 0
    assert "notebook/s" not in (told := capsys.readouterr().err) and "\r" not in told


def test_a_terminal_that_lacks_a_letter_costs_no_grade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsepm_edu.cli.check.check_submission", graded)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    files = [str(write(tmp_path / name, START)) for name in ("Łukasz θ.ipynb", "Zoë.ipynb")]
    assert cli.main(["check", *files, "--quiet"]) == 0
    printed = sys.stdout.buffer.getvalue().decode("latin-1").splitlines()  # type: ignore[attr-defined]
    assert "?ukasz ?.ipynb" in printed[0] and "Zoë.ipynb" in printed[1]


def test_it_is_said_once_that_there_are_no_walls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsepm_edu.cli.check.check_submission", graded)
    monkeypatch.setattr("rsepm_edu.cli.check.why_no_walls", lambda: "bubblewrap is not installed")
    file = str(write(tmp_path / "a.ipynb", START))
    assert cli.main(["check", file, file, "--quiet"]) == 0
    warned = capsys.readouterr().err
    assert warned.count("\n") == 1
    assert warned.startswith("rsepm-edu check: bubblewrap is not installed: the notebooks run with your rights")


def test_without_walls_a_notebook_that_changes_the_package_ends_the_run(tmp_path: Path) -> None:
    mark = Path(rsepm_edu.__file__).parent / "course" / "mark_of_a_test.py"
    path = write(tmp_path / "edits.ipynb", START, f"open({str(mark)!r}, 'w').close()", *mine())
    try:
        with pytest.raises(UserError, match=r"edits.ipynb: expected .*, got one that changed course.mark_of_a_test.py"):
            check_submission(path, walls=False)
    finally:
        mark.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_without_walls_a_notebook_that_kills_the_command_leaves_the_grades_before_it(tmp_path: Path) -> None:
    files = [tmp_path / "0.ipynb", write(tmp_path / "1.ipynb", START, "import os\nos.kill(os.getppid(), 9)", *mine())]
    files[0].write_text("{}")
    found = subprocess.run(
        [sys.executable, "-m", "rsepm_edu", "check", *map(str, files), "--quiet"],
        env={**os.environ, "PATH": str(tmp_path)},  # no bubblewrap in there
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == -signal.SIGKILL
    assert found.stdout == f"-/-  {files[0]}: expected a Jupyter notebook, got other JSON\n"
    assert "bubblewrap is not installed: the notebooks run with your rights" in found.stderr


@pytest.mark.skipif(walls.why_no_walls() is not None, reason=str(walls.why_no_walls()))
def test_one_hostile_notebook_costs_nobody_else_a_grade(tmp_path: Path) -> None:
    """The whole command, from another process: it would be the one that is killed."""
    here = "import os\nfor process in (os.getppid(), int(open('/proc/self/stat').read().split()[3]), 1):\n"
    hostile = [
        f"{here}    os.kill(process, 9)",
        "import os\nos.kill(-1, 2)",
        f"open({submissions.__file__!r}, 'w').write('')",
        "for fd in range(3, 64):\n    try:\n        os.write(fd, b'7\\n' * 10**6)\n    except OSError:\n        pass",
    ]
    files = [write(tmp_path / "0.ipynb", START, mine()[0], *hostile), tmp_path / "1.ipynb", tmp_path / "2.ipynb"]
    files[1].write_bytes(b"\xff")
    write(files[2], START, *mine())
    found = subprocess.run(
        [sys.executable, "-m", "rsepm_edu", "check", *map(str, files), "--json", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1, found.stderr
    grades = [json.loads(line) for line in found.stdout.splitlines()]
    assert [grade["file"] for grade in grades] == [str(file) for file in files]
    assert grades[0]["problem"] == "code cell 6 sent what cannot be read"
    assert grades[2]["solved"] == 3


@pytest.mark.parametrize(
    "sent",
    [
        "null",
        "{}",
        "1",
        "[1]",
        "[null]",
        '[{"shape": [2]}]',
        '[{"shape": [3], "values": [1, 2]}]',
        '[{"shape": 1, "values": "x"}]',
        '[{"shape": [-5], "values": [1]}]',
        '[{"shape": [1e400], "values": [1]}]',
        '[{"shape": [1], "values": [{}]}]',
    ],
)
def test_what_cannot_be_read_is_no_answer(sent: str) -> None:
    answers = json.loads(sent)
    assert submissions._read_answers(answers) == []
    grade = submissions._grade("01.tag_scores", answers)
    assert grade.line == "Not checked: no answers came back that can be read." and not grade.passed


def test_answers_survive_the_way() -> None:
    values = torch.tensor([[0.1, float("nan")], [float("inf"), -1e-300]], dtype=torch.float64)
    answers = [checks.Answer(values), checks.Answer(torch.tensor(2.5)), checks.Answer(None, "Not yet.")]
    sent = json.dumps([in_sandbox.encode(answer) for answer in answers])
    first, second, third = submissions._read_answers(json.loads(sent))
    assert torch.equal(first.values.nan_to_num(7), values.nan_to_num(7))  # type: ignore[union-attr]
    assert second.values == 2.5 and second.values.shape == ()  # type: ignore[union-attr]
    assert third == answers[2]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_inputs_outside_are_not_those_of_the_notebook(name: str) -> None:
    inside, outside = (EXERCISES[name].inputs(torch.Generator().manual_seed(seed)) for seed in (0, in_sandbox.SEED))
    assert len(inside) == len(outside)
    for inputs in outside:
        right, line = checks.judge(EXERCISES[name], inputs, checks.ask(EXERCISES[name].reference, inputs))
        assert right, line
