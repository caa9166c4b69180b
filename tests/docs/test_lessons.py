"""What is said of a lesson is said alike in the notebook, the syllabus, README and on the site."""

import io
import json
import re
import runpy
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from docs.lessons import cards, download, lessons, page_of, thumbnail

ROOT = Path(__file__).parents[2]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=lessons(), ids=lambda lesson: lesson.page)
def lesson(request):
    return request.param


def opening(lesson) -> str:
    return "".join(lesson.notebook["cells"][0]["source"])


def test_every_notebook_has_a_row():
    assert [lesson.page for lesson in lessons()] == [path.stem for path in NOTEBOOKS]
    assert [lesson.number for lesson in lessons()] == [path.stem[:2] for path in NOTEBOOKS]


def test_title_and_minutes_are_the_same_everywhere(lesson):
    assert opening(lesson).splitlines()[0] == f"# {lesson.number} · {lesson.title}"
    assert f"about {lesson.minutes} minutes" in opening(lesson).split("## Time")[1]
    assert lesson.question.endswith("?")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = f"| {lesson.number} | [{lesson.title}](notebooks/{lesson.page}.ipynb) | {lesson.minutes} | "
    assert row in readme and f"| {lesson.question} |" in readme.split(row)[1].splitlines()[0]


def test_the_index_shows_each_lesson_once_and_leads_to_it():
    class Links(HTMLParser):
        found: list[tuple[str, str]] = []

        def handle_starttag(self, tag, attrs):
            values = dict(attrs)
            if tag in ("a", "img"):
                self.found.append((tag, values.get("href") or values["src"]))
            if tag == "img":
                assert len(values["alt"]) > 20

    Links().feed(cards())
    wanted = [
        pair
        for lesson in lessons()
        for pair in (("a", f"../notebooks/{lesson.page}.html"), ("img", f"../thumbnails/{lesson.page}.png"))
    ]
    assert Links.found == wanted
    for lesson in lessons():
        assert f"<small>{lesson.minutes} minutes</small>" in cards()


def test_a_thumbnail_is_a_small_picture(lesson):
    png = thumbnail(lesson)
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG" and 300 < image.width <= 640
    assert len(png) < 100_000


def test_the_download_is_the_notebook_without_outputs(lesson):
    notebook, stored = json.loads(download(lesson)), lesson.notebook
    assert [cell["source"] for cell in notebook["cells"]] == [cell["source"] for cell in stored["cells"]]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])


def test_a_page_has_buttons_a_picture_on_its_first_screen_and_a_link_to_the_next(lesson):
    page = json.loads(page_of(lesson, json.dumps(lesson.notebook), REPOSITORY))
    first = page["cells"][0]["source"]
    before = first.split("## What you will learn")[0]
    assert "badge" not in first
    for address in (
        f"https://colab.research.google.com/github/rsepm-edu/rsepm-edu/blob/main/notebooks/{lesson.page}.ipynb",
        f"../downloads/{lesson.page}.ipynb",
        f"{REPOSITORY}/blob/main/notebooks/{lesson.page}.ipynb",
    ):
        assert f'<a href="{address}"' in before
    assert re.search(r"<img [^>]*alt=.{20}|!\[.{10,}\]\(", before)
    text = "\n".join(cell["source"] for cell in page["cells"] if cell["cell_type"] == "markdown")
    following = {one.number: two.page for one, two in zip(lessons(), lessons()[1:], strict=False)}
    if lesson.number in following:
        after = text.split("## Next")[1]
        assert f"]({following[lesson.number]}.ipynb)" in after


def test_every_figure_of_a_page_has_words(lesson):
    page = json.loads(page_of(lesson, json.dumps(lesson.notebook), REPOSITORY))
    figures = [c for c in page["cells"] if any("image/png" in o.get("data", {}) for o in c.get("outputs", []))]
    assert figures and all(len(cell["metadata"]["mystnb"]["image"]["alt"]) >= 6 for cell in figures)
    assert not any("display.Image object" in cell["metadata"]["mystnb"]["image"]["alt"] for cell in figures)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_the_examples_of_the_api_pages_run_and_show_a_picture(path, capsys):
    module_name, _, name = path.stem.rpartition(".")
    figure = runpy.run_path(str(path))["figure"]
    assert len(figure.axes) >= 3 and repr(figure).startswith("pictures: image")
    assert capsys.readouterr().out.count("\n") == 1
    source = path.read_text(encoding="utf-8")
    assert source.startswith('r"""') and ".. math::" in source
    assert f"{name}(" in source and f"from {module_name} import" in source
