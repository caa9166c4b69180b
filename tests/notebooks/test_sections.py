"""The sections that all lessons share: written in notebooks/sections, shown in the notebooks."""

import base64
import io
import re
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "notebooks" / "sections").glob("*.md"))
NAMES = ["Where we stand", "Common mistakes", "On one page", "Quiz", "Open experiment"]


@pytest.fixture(scope="module", autouse=True)
def put_sections():
    sys.path.insert(0, str(ROOT / "data_scripts"))
    import put_sections

    yield put_sections
    sys.path.remove(str(ROOT / "data_scripts"))


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def sections(path, put_sections):
    return put_sections.sections_of(path.read_text(encoding="utf-8"))


def test_every_lesson_has_all_sections(put_sections):
    lessons = [path.stem[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert [path.stem for path in SOURCES] == lessons
    for path in SOURCES:
        assert list(put_sections.sections_of(path.read_text(encoding="utf-8"))) == NAMES


def test_a_quiz_has_five_or_six_questions_with_one_right_option_each(sections, put_sections):
    questions = put_sections.questions_of(sections["Quiz"])
    assert 5 <= len(questions) <= 6
    for question, options in questions.items():
        assert question.endswith("?"), question
        assert len(options) >= 3, question
        assert [option.right for option in options].count(True) == 1, question
        assert all(len(option.reason.split()) >= 3 for option in options), question
        assert len({option.text for option in options}) == len(options), question


def test_no_option_of_a_quiz_is_left_out(sections, put_sections):
    lines = re.findall(r"^- .*$", sections["Quiz"], re.MULTILINE)
    assert len(lines) == sum(map(len, put_sections.questions_of(sections["Quiz"]).values()))


def test_right_options_stand_at_every_place(sections, put_sections):
    options = put_sections.questions_of(sections["Quiz"]).values()
    assert {[each.right for each in row].index(True) for row in options} == {0, 1, 2}


def test_an_experiment_has_a_rubric_of_ten_points(sections):
    points = map(int, re.findall(r"^\| (\d+) \|", sections["Open experiment"], re.MULTILINE))
    assert sum(points) == 10


def test_mistakes_are_a_short_list(sections):
    assert 3 <= len(re.findall(r"^- ", sections["Common mistakes"], re.MULTILINE)) <= 6


def test_a_lesson_shows_its_sections_as_they_are_written(path, sections, put_sections):
    """Where not: python data_scripts/put_sections.py"""
    [notebook] = (ROOT / "notebooks").glob(f"{path.stem}_*.ipynb")
    stored = nbformat.read(notebook, as_version=4)
    again = nbformat.from_dict(stored)
    put_sections.put(again, path.stem, sections)
    put_sections.open_with_drawing(again, path.stem)
    put_sections.put_first_lines(again)
    put_sections.link_first_uses(again)
    shown = [
        [(cell.source, cell.get("outputs"), cell.get("attachments")) for cell in one.cells] for one in (again, stored)
    ]
    assert shown[0] == shown[1]


def test_lessons_with_a_scoreboard_show_theirs_below_where_we_stand(path):
    """Where not: python data_scripts/put_sections.py"""
    [notebook] = (ROOT / "notebooks").glob(f"{path.stem}_*.ipynb")
    cells = nbformat.read(notebook, as_version=4).cells
    shown = [i for i, cell in enumerate(cells) if "show_scoreboard(" in cell.source]
    if path.stem in ("09", "10", "11"):
        assert shown == []
        return
    [i] = shown
    assert cells[i].source.endswith(f'show_scoreboard("{path.stem}")')
    assert cells[i - 2].source.startswith("## Where we stand")
    assert "nbval-check-output" not in cells[i].metadata.tags
    [output] = cells[i].outputs
    assert "data:image/svg+xml;base64," in output.data["text/html"]
    assert output.data["text/plain"].startswith("Scoreboard: ")


def test_a_lesson_opens_with_its_drawing_as_it_is_now(path):
    """Where not: python data_scripts/draw_openings.py, then put_sections.py"""
    import draw_openings

    [notebook] = (ROOT / "notebooks").glob(f"{path.stem}_*.ipynb")
    first = nbformat.read(notebook, as_version=4).cells[0]
    title, _, picture = first.source.split("\n\n")[:3]
    assert title.startswith(f"# {path.stem}") and picture.startswith(f'<img src="attachment:flow_{path.stem}.png"')
    [png] = first.attachments.values()
    with Image.open(io.BytesIO(base64.b64decode(png["image/png"]))) as image:
        assert image.info[draw_openings.SOURCE] == draw_openings.source_of(path.stem)
        width = int(re.search(r' width="(\d+)"', picture)[1])
        assert width <= image.width // 2 and width * image.height / image.width <= 400 and " height=" not in picture


def test_a_folded_quiz_explains_every_option(put_sections):
    quiz = (
        "## Quiz\n\n### Is 1 < `x`?\n\n- [ ] *no* — it is not so\n- [x] yes — it is so\n- [ ] a < b — no such thing\n"
    )
    folded = put_sections.folded_quiz(quiz)
    assert "**Question 1.** Is 1 < `x`?" in folded
    assert "<summary>A. <em>no</em></summary>\n\n**No.** it is not so\n\n</details>" in folded
    assert "<summary>B. yes</summary>\n\n**Right.** it is so" in folded
    assert "C. a &lt; b" in folded


def test_sections_are_put_once_and_replaced_when_put_again(put_sections):
    def lesson():
        start = nbformat.v4.new_code_cell("course", execution_count=1)
        ending = nbformat.v4.new_markdown_cell("text\n\n## Summary\n\n- a\n\n## Exercises\n\nthree\n\n### Exercise 1")
        stub = nbformat.v4.new_code_cell("stub", execution_count=2)
        return nbformat.v4.new_notebook(
            cells=[start, ending, stub, nbformat.v4.new_markdown_cell("## References\n\n- b")]
        )

    notebook, texts = lesson(), {name: f"## {name}\n\nold" for name in NAMES}
    put_sections.put(notebook, "01", texts)
    once = [cell.source for cell in notebook.cells]
    put_sections.put(notebook, "01", texts)
    assert [cell.source for cell in notebook.cells] == once
    put_sections.put(notebook, "01", texts | {"Common mistakes": "## Common mistakes\n\nnew"})
    text = "\n\n".join(cell.source for cell in notebook.cells)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [*NAMES[:2], "Summary", *NAMES[2:4], "Exercises", "Open experiment", "References"]
    assert "new" in text and text.count("## Common mistakes") == 1
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert [cell.source.split("\n")[-1] for cell in code] == [
        "course",
        'show_drawing("here_01")',
        'show_scoreboard("01")',
        'show_drawing("flow_01")',
        "stub",
    ]
    nbformat.validate(notebook)
