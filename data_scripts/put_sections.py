"""Put what all lessons share into the notebooks: first cell, opening, scoreboard, mistakes, one page, quiz, drawings.

They are written in notebooks/sections/NN.md, where a quiz is a list that GitHub shows as it is:

    ### The question?

    - [ ] a wrong option — why it is wrong
    - [x] the right one — why it is right

In a notebook each option unfolds to its reason. That is plain HTML (``<details>``) in a text cell: JupyterLab, Colab
and the site show it alike, without a kernel and without a network, which no widget does.

The first use of a word of the glossary becomes a link to it, see glossary_links.py.

Below its title a notebook shows notebooks/sections/NN.png, see draw_openings.py; the file travels in the cell.

Run again, the script replaces what it put there before. Cells of code and their outputs are kept as they are; those
that show a drawing or the scoreboard get it as output.
"""

import argparse
import base64
import re
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from glossary_links import link_first_uses

from rsepm_edu.course.drawing import Drawing, show_drawing
from rsepm_edu.course.scoreboard import LESSONS, Scoreboard, show_scoreboard

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ROOT / "notebooks" / "sections"
TAG = "section"
"""Of all cells that this script puts there."""

GLOSSARY = """The first use of a term is a link to its entry in the [glossary](../docs/glossary.md). (Colab cannot
follow such a link; there, read the [glossary on GitHub](https://github.com/rsepm-edu/rsepm-edu/blob/main/docs/glossary.md).)"""

OPTION = re.compile(r"^- \[([ x])\] (.+?) — (.+)$", re.MULTILINE)


class Option(NamedTuple):
    """One answer to a question."""

    right: bool
    text: str
    reason: str


def sections_of(text: str) -> dict[str, str]:
    """A lesson's sections by heading, each with its heading."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].removeprefix("## "): part.strip() for part in parts}


def questions_of(quiz: str) -> dict[str, list[Option]]:
    """Question to options, of a quiz section."""
    found = {}
    for part in re.split(r"^### ", quiz, flags=re.MULTILINE)[1:]:
        question, _, rest = part.partition("\n")
        found[question.strip()] = [Option(mark == "x", text, reason) for mark, text, reason in OPTION.findall(rest)]
    return found


def as_html(text: str) -> str:
    """The little Markdown of an option, where Markdown is not read."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)


def folded_quiz(quiz: str) -> str:
    """A quiz section as a notebook shows it."""
    lines = ["## Quiz", "", "Choose an answer, then unfold it: it says why. The text of this lesson is enough.", ""]
    for number, (question, options) in enumerate(questions_of(quiz).items(), start=1):
        lines += [f"**Question {number}.** {question}", ""]
        for letter, option in zip("ABCDEF", options, strict=False):
            lines += [f"<details><summary>{letter}. {as_html(option.text)}</summary>", ""]
            lines += [f"**{'Right' if option.right else 'No'}.** {option.reason}", "", "</details>", ""]
    return "\n".join(lines).strip()


def put(notebook: Any, lesson: str, sections: dict[str, str]) -> None:
    """Put a lesson's sections into its notebook.

    Args:
        notebook: changed in place.
        lesson: its number.
        sections: see ``sections_of``.
    """
    kept = [cell for cell in notebook.cells if TAG not in cell.metadata.get("tags", [])]
    cells = _split(_split(_split(kept, "## Summary"), "## Exercises"), "## References")
    first_code = next(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    result = []
    for i, cell in enumerate(cells):
        if cell.source.startswith("## Summary"):
            result.append(_text(sections["Common mistakes"]))
        if cell.source.startswith("## Exercises"):
            page = sections["On one page"] + "\n\nAnd the example of this lesson, from its beginning to its end:"
            flow = show_drawing(f"flow_{lesson}")
            result += [_text(page), _shown(f'show_drawing("flow_{lesson}")', f"flow_{lesson}", flow)]
            result.append(_text(folded_quiz(sections["Quiz"])))
        if cell.source.startswith("## References"):
            result.append(_text(sections["Open experiment"]))
        result.append(cell)
        if i == first_code:
            result.append(_text(f"{sections['Where we stand']}\n\n{GLOSSARY}"))
            code = f'from rsepm_edu.course.drawing import show_drawing\n\nshow_drawing("here_{lesson}")'
            result.append(_shown(code, f"here_{lesson}", show_drawing(f"here_{lesson}")))
            if lesson in LESSONS:
                call = f'show_scoreboard("{lesson}")'
                code = f"from rsepm_edu.course.scoreboard import show_scoreboard\n\n{call}"
                result.append(_shown(code, f"scoreboard_{lesson}", show_scoreboard(lesson)))
    code_cells = [cell for cell in result if cell.cell_type == "code"]
    for count, cell in enumerate(code_cells, start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    notebook.cells = result


OPENING = re.compile(r'<img src="attachment:[^>]*>\n\n')
HIGHEST = 400
"""Pixels of the first picture, so that the first words are on the first screen too."""


def open_with_drawing(notebook: Any, lesson: str) -> None:
    """Put a lesson's first picture below its title.

    Args:
        notebook: changed in place.
        lesson: its number.
    """
    png = (SECTIONS / f"{lesson}.png").read_bytes()
    wide, high = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    width = min(wide // 2, wide * HIGHEST // high)  # drawn twice as large; JupyterLab heeds a width, but no height
    name, alt = f"flow_{lesson}.png", escape(show_drawing(f"flow_{lesson}").alt)
    first = notebook.cells[0]
    title, badge, rest = OPENING.sub("", first.source).split("\n\n", 2)
    first.source = f'{title}\n\n{badge}\n\n<img src="attachment:{name}" width="{width}" alt="{alt}">\n\n{rest}'
    first.attachments = {name: {"image/png": base64.b64encode(png).decode()}}


FIRST = """import sys

sys.path.append("..")  # a clone or an unpacked ZIP holds the package
try:
    from rsepm_edu.course.start import start
except ModuleNotFoundError:
    # On Colab: this adds the package; torch and numpy stay as they are.
    %pip install -qqq git+https://github.com/rsepm-edu/rsepm-edu
    try:
        from rsepm_edu.course.start import start
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"{error.name} is missing, and https://github.com/rsepm-edu/rsepm-edu "
            "cannot be installed: use a network, or make lab in a clone"
        ) from None
"""
"""What the first cell of code begins with; only its last line is the lesson's own."""


def put_first_lines(notebook: Any) -> None:
    """Let a lesson find the package beside it, or get it, or say in one line that neither can be.

    Args:
        notebook: changed in place; the output of the cell is kept.
    """
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = f"{FIRST}\n{first.source[first.source.index('course = start(') :]}"


def _split(cells: list[Any], heading: str) -> list[Any]:
    """Cells of which the one with the heading begins with it."""
    result = []
    for cell in cells:
        before, found, after = cell.source.partition(f"\n{heading}\n") if cell.cell_type == "markdown" else ("", "", "")
        if not found:
            result.append(cell)
            continue
        result.append(nbformat.v4.new_markdown_cell(before.strip(), id=cell.id, metadata=cell.metadata))
        result.append(nbformat.v4.new_markdown_cell(f"{heading}\n{after}", id=_name(heading)))
    return result


def _name(text: str) -> str:
    """The id of a cell, by its heading or code: the same in every run."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().strip()[:60]).strip("-")


def _text(source: str) -> Any:
    heading = source.partition("\n")[0]
    return nbformat.v4.new_markdown_cell(source, id=_name(heading), metadata={"tags": [TAG]})


def _shown(code: str, name: str, result: Drawing | Scoreboard) -> Any:
    """A cell with that id, and its result as output."""
    output = nbformat.v4.new_output("execute_result", data=result._repr_mimebundle_(), execution_count=1)
    return nbformat.v4.new_code_cell(code, id=_name(name), outputs=[output], metadata={"tags": [TAG]})


def main() -> None:
    """All lessons, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lessons", nargs="*", metavar="NN", help="numbers of lessons (default: all)")
    options = parser.parse_args()
    for path in sorted(SECTIONS.glob("*.md")):
        lesson = path.stem
        if options.lessons and lesson not in options.lessons:
            continue
        [target] = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
        notebook = nbformat.read(target, as_version=4)
        put(notebook, lesson, sections_of(path.read_text(encoding="utf-8")))
        open_with_drawing(notebook, lesson)
        put_first_lines(notebook)
        link_first_uses(notebook)
        nbformat.write(notebook, target)
        print(target.name)


if __name__ == "__main__":
    main()
