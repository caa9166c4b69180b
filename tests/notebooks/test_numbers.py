"""A number in a lesson's text is one that the lesson computes, or stands in the table that it names.

Asked of every number with a decimal point and of every percentage. (A number in the place of another one of the same
section is not seen.) Where it may be found:

- in a cell of code, or in the output of one, of the same section; what comes before the first section, and from "Common
  mistakes" on, speaks of the whole lesson;
- in a table of results/ to which the section has a link;
- in rsepm_edu/course/numbers/published.csv, where the cell says that the numbers are the authors' or a paper's;
- in numbers_by_hand.toml, with a reason.
"""

import csv
import re
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BY_HAND = tomllib.loads((Path(__file__).parent / "numbers_by_hand.toml").read_text("utf-8"))

WRITTEN = re.compile(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(\s?%)?(?!\w|\.\d|,\d)")
COMPUTED = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
NO_TEXT = re.compile(
    r"^## References$.*?(?=^## |\Z)|```.*?```|\]\([^)]*\)|<img[^>]*>|https?://\S+", re.DOTALL | re.MULTILINE
)


def numbers_in(text):
    """Decimal numbers and percentages of a text cell, as they are written, with whether they are percentages."""
    found = [(m[1].replace(",", ""), bool(m[2])) for m in WRITTEN.finditer(NO_TEXT.sub("", text))]
    return [(number, percent) for number, percent in found if "." in number or percent]


def values(text):
    return {float(number.replace(",", "")) for number in COMPUTED.findall(text)}


def is_among(number, percent, found):
    """Whether a number is one of those; a percentage may be found as a fraction, and three digits may be rounded."""
    digits = len(number.replace(".", "").lstrip("0"))
    half = (0.5 * 10 ** -len(number.partition(".")[2]) if digits >= 3 else 0) + 1e-9
    return any(
        abs(value - float(number)) <= half or (percent and abs(100 * value - float(number)) <= half) for value in found
    )


def outputs_of(cell):
    for output in cell.outputs:
        data = output.get("data", {})
        html = re.sub(r"base64,[^\"]+|<[^>]+>", " ", data.get("text/html", ""))
        yield from (output.get("text", ""), data.get("text/plain", ""), html)


def sections_of(cells):
    """The cells of a lesson: before its sections, each section, and from the common mistakes on."""
    found = [[]]
    for cell in cells:
        if cell.cell_type == "markdown" and re.match(r"## (\d+\. |Common mistakes)", cell.source):
            found.append([])
        found[-1].append(cell)
    return found


def computed_in(cells):
    texts = [text for cell in cells if cell.cell_type == "code" for text in (cell.source, *outputs_of(cell))]
    return values("\n".join(texts))


def named_in(cells):
    """Values of all tables of results/ that the text names, with the pages beside them."""
    links = {link for cell in cells for link in re.findall(r"\]\(\.\./(results/[^)#]+)", cell.source)}
    paths = [ROOT / link for link in links]
    folders = {path if path.is_dir() else path.parent for path in paths}
    return values("\n".join(page.read_text("utf-8") for folder in folders for page in folder.glob("*.md")))


def published():
    with (ROOT / "rsepm_edu" / "course" / "numbers" / "published.csv").open(encoding="utf-8") as file:
        return {float(row["value"]) for row in csv.DictReader(file)}


def unfound(notebook):
    """Numbers of its text that are nowhere."""
    whole = computed_in(notebook.cells)
    missing = []
    for section in sections_of(notebook.cells):
        here = computed_in(section) if re.match(r"## \d", section[0].source) else whole
        here = here | named_in(section)
        for cell in section:
            if cell.cell_type != "markdown":
                continue
            found = here | published() if re.search(r"\b(authors|paper)", cell.source) else here
            missing += [number for number, percent in numbers_in(cell.source) if not is_among(number, percent, found)]
    return missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_number_of_the_text_is_computed_or_in_the_table_it_names(path):
    allowed = {number for entry in BY_HAND.get(path.stem[:2], []) for number in entry["numbers"]}
    assert set(unfound(nbformat.read(path, as_version=4))) == allowed


def test_each_number_by_hand_has_its_reason():
    assert all(len(entry["reason"].split()) >= 3 for entries in BY_HAND.values() for entry in entries)


def lesson(*, text, printed="0.648", tail="## Common mistakes"):
    cells = [nbformat.v4.new_markdown_cell(source) for source in ("# 05", "## 1. One", text, "## 2. Two", tail)]
    output = nbformat.v4.new_output("stream", text=printed)
    cells.insert(3, nbformat.v4.new_code_cell("theta = 0.25", outputs=[output]))
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.parametrize("text", ["0.648", "64.8%", "64.8 %", "at 0.25", "25 %", "1,234 images", "[a](x/1.26)"])
def test_a_number_that_is_computed_is_found(text):
    assert unfound(lesson(text=text)) == []


def test_only_three_digits_or_more_may_be_rounded():
    assert unfound(lesson(text="0.648", printed="0.6478")) == []
    assert unfound(lesson(text="0.65", printed="0.6478")) == ["0.65"]


@pytest.mark.parametrize(
    ("text", "number"), [("0.649", "0.649"), ("66 %", "66"), ("0.5", "0.5"), ("1,234.5", "1234.5"), ("`3.3`", "3.3")]
)
def test_a_number_that_is_not_is_seen(text, number):
    assert unfound(lesson(text=text)) == [number]


def test_another_section_does_not_do_but_the_end_of_a_lesson_speaks_of_all():
    assert unfound(lesson(text="a", tail="again 0.648")) == ["0.648"]
    assert unfound(lesson(text="a", tail="## Common mistakes\n\n0.648")) == []


def test_published_numbers_need_a_word_whose_they_are():
    assert unfound(lesson(text="51.53 %")) == ["51.53"]
    assert unfound(lesson(text="The authors: 51.53 %")) == []


def test_a_table_is_read_where_it_is_named():
    assert unfound(lesson(text="72.51")) == ["72.51"]
    assert unfound(lesson(text="72.51: [table](../results/creatures/table.md)")) == []
