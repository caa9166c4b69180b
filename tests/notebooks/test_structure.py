"""Every lesson has the fixed form: opening, short cells, clean outputs, ending."""

import re
import statistics
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from rsepm_edu.course.exercises import EXERCISES

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
OPENING = ["What you will learn", "What to know before", "Data", "Time"]
COMPARED = "nbval-check-output"
ENDING = ["Common mistakes", "Summary", "On one page", "Quiz", "Exercises", "Open experiment", "References", "Next"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_there_are_lessons():
    assert "01_cam" in [path.stem for path in NOTEBOOKS]


def test_it_is_valid_and_small(path, notebook):
    nbformat.validate(notebook)
    assert path.stat().st_size <= 1.5e6


def test_all_together_are_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) <= 14e6


def test_it_was_run_from_top_to_bottom_without_errors(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_its_metadata_are_neutral(notebook):
    kernel = notebook.metadata.kernelspec
    assert (kernel.name, kernel.language) == ("python3", "python")
    assert kernel.display_name.startswith("Python 3") and "venv" not in kernel.display_name
    # GitHub does not show a notebook that has `widgets` without their state, and state is large.
    assert "widgets" not in notebook.metadata
    assert not any("execution" in cell.metadata for cell in notebook.cells)  # clock times


def test_live_views_have_a_static_picture_beside_them(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                assert "image/png" in output.data


def test_outputs_show_no_home_folder(notebook):
    printed = [o.get("text", "") for cell in code_cells(notebook) for o in cell.outputs]
    assert not re.search(r"/(home|root|Users|tmp|work)/", "".join(printed))


def test_cells_are_short(notebook):
    lengths = sorted(len(cell.source.splitlines()) for cell in code_cells(notebook))
    assert statistics.median(lengths) <= 11
    assert sum(length <= 20 for length in lengths) >= 0.85 * len(lengths)
    assert lengths[-1] <= 40


def test_no_line_of_code_is_cut_off(notebook):
    """The column of the site and of JupyterLab on a laptop holds 88 characters."""
    lines = [line for cell in code_cells(notebook) for line in cell.source.split("\n")]
    too_long = [line for line in lines if len(line) > 88]
    assert not too_long, "\n".join(too_long)


def test_it_opens_and_ends_in_the_fixed_form(path, notebook):
    number = path.stem[:2]
    first = notebook.cells[0].source
    assert first.startswith(f"# {number} · ")
    assert re.findall(r"^## (.*)$", first, re.MULTILINE) == OPENING
    goals = re.findall(r"^\d+\. ", first.split("## What to know")[0], re.MULTILINE)
    assert 3 <= len(goals) <= 5
    headings = re.findall(r"^## (.*)$", text(notebook), re.MULTILINE)
    assert headings[-len(ENDING) :] == ENDING


def test_its_sections_are_numbered_without_a_gap(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", text, flags=re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers


def test_no_line_of_text_is_taken_for_an_item_of_a_list(notebook):
    """Such as the year of a reference: JupyterLab makes a list of any line that begins with a number and a dot."""
    for cell in notebook.cells:
        lines = cell.source.split("\n") if cell.cell_type == "markdown" else []
        following = 1
        for before, line in pairwise(["", *lines]):
            number = re.match(r"\s*(\d+)[.)]\s", line)
            if number:
                first = number[1] == "1" and not before.strip()
                assert first or (int(number[1]) == following > 1), line
                following = int(number[1]) + 1


def test_the_first_code_cell_is_one_call_of_the_package(path, notebook):
    first = code_cells(notebook)[0].source
    assert f'course = start("{path.stem[:2]}"' in first
    assert len(first.splitlines()) <= 20
    assert first.count("%pip") == 1
    for cell in code_cells(notebook)[1:]:
        assert "pip install" not in cell.source


def test_addresses_are_those_of_the_project(path, notebook):
    owner_and_name = REPOSITORY.removeprefix("https://github.com/")
    colab = "https://colab.research.google.com/github"
    link = f"({colab}/{owner_and_name}/blob/main/notebooks/{path.name})"
    assert link in notebook.cells[0].source
    assert f"git+{REPOSITORY}\n" in code_cells(notebook)[0].source


def test_pictures_in_the_text_are_no_base64_and_answers_are_folded(notebook):
    source = text(notebook)
    assert "data:image" not in source
    assert source.count("<details>") == source.count("</details>") >= 1
    assert source.count("<summary>") == source.count("<details>")


def test_every_exercise_has_a_stub_and_a_checked_folded_solution(path, notebook):
    names = [name for name in EXERCISES if name.startswith(path.stem[:2])]
    assert 2 <= len(names) <= 3
    for name in names:
        call = f'check("{name}", '
        using = [cell for cell in code_cells(notebook) if call in cell.source]
        stubs = [cell for cell in using if "raise NotImplementedError" in cell.source]
        solutions = [cell for cell in using if f"assert {call}" in cell.source]
        assert len(stubs) == len(solutions) == 1
        assert solutions[0].metadata.jupyter.source_hidden
        assert {"solution", "hide-input"} <= set(solutions[0].metadata.tags)
        assert any("Solved" in output.get("text", "") for output in solutions[0].outputs)
        assert any("Not done yet" in output.get("text", "") for output in stubs[0].outputs)


def test_several_outputs_are_compared_when_the_notebooks_are_run_again(notebook):
    marked = [cell for cell in code_cells(notebook) if COMPARED in cell.metadata.get("tags", [])]
    assert len(marked) >= 3
    assert all(cell.outputs for cell in marked)
    assert not [cell.source for cell in code_cells(notebook) if "NBVAL" in cell.source]  # as a comment it would be read


def test_nbval_compares_the_cells_with_the_tag_and_no_others(tmp_path):
    small = nbformat.v4.new_notebook(
        metadata={"kernelspec": nbformat.read(NOTEBOOKS[0], as_version=4).metadata.kernelspec}
    )
    for count, (printed, tags) in enumerate([("2", [COMPARED]), ("3", [COMPARED]), ("3", [])], start=1):
        cell = nbformat.v4.new_code_cell("print(1 + 1)", execution_count=count, metadata={"tags": tags})
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{printed}\n")]
        small.cells.append(cell)
    nbformat.write(small, tmp_path / "small.ipynb")
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "small.ipynb"], cwd=tmp_path, capture_output=True, text=True)
    assert re.findall(r"^FAILED .*::(Cell \d)", done.stdout, re.MULTILINE) == ["Cell 1"], done.stdout


def test_the_syllabus_names_every_lesson_that_is_there():
    syllabus = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+\.ipynb)\)", syllabus)
    assert links == [path.name for path in NOTEBOOKS]
    numbers = re.findall(r"^\| (\d\d) \|", syllabus, re.MULTILINE)
    assert numbers == [f"{n:02d}" for n in range(13)]
