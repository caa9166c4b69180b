"""What the site says of each lesson, taken from where it is written: the notebooks and the syllabus."""

import base64
import io
import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"
_ROW = re.compile(r"^\| (\d\d) \| \[(.+?)\]\((.+?)\.ipynb\) \| (.+?) \| (\d+) \|", re.MULTILINE)
_BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\((https:[^)]*)\)")
_NEXT = re.compile(r"(## Next\n\s*)Lesson (\d\d)\b(?!\])")


@dataclass(frozen=True)
class Lesson:
    """A row of the syllabus; `page` is the notebook's name without its ending."""

    number: str
    title: str
    page: str
    question: str
    minutes: int

    @property
    def notebook(self) -> dict[str, Any]:
        """The stored notebook."""
        found: dict[str, Any] = json.loads((ROOT / "notebooks" / f"{self.page}.ipynb").read_text(encoding="utf-8"))
        return found


def lessons() -> list[Lesson]:
    """All of them, as the syllabus lists them."""
    syllabus = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    return [
        Lesson(n, title, page, question, int(minutes)) for n, title, page, question, minutes in _ROW.findall(syllabus)
    ]


def thumbnail(lesson: Lesson, width: int = 640) -> bytes:
    """The still of the lesson's explorer as a smaller PNG."""
    for cell in lesson.notebook["cells"]:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                with Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))) as image:
                    small = image.convert("RGB")
                    small.thumbnail((width, width), Image.Resampling.LANCZOS)
                buffer = io.BytesIO()
                small.quantize().save(buffer, format="PNG", optimize=True)
                return buffer.getvalue()
    raise ValueError(f"{lesson.page}: expected a cell whose output is an explorer, got none")


def download(lesson: Lesson) -> str:
    """The notebook without outputs, to be run by its reader."""
    notebook = lesson.notebook
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def cards() -> str:
    """The index's list of lessons, as HTML."""
    return (
        '<div class="lesson-cards">\n'
        + "\n".join(
            f'<a class="lesson-card" href="../notebooks/{lesson.page}.html">'
            f'<img src="../thumbnails/{lesson.page}.png" alt="From lesson {lesson.number}: {escape(_shown(lesson))}">'
            f"<strong>{lesson.number} · {escape(lesson.title)}</strong>"
            f"<span>{escape(lesson.question.replace('*', ''))}</span><small>{lesson.minutes} minutes</small></a>"
            for lesson in lessons()
        )
        + "\n</div>\n"
    )


def page_of(lesson: Lesson, source: str, repository: str) -> str:
    """The notebook as the site shows it: buttons for the badge, a picture on the first screen, alt texts, a link to the
    next lesson.
    """
    notebook = json.loads(source)
    following = {n.number: n.page for n in lessons()}
    for i, cell in enumerate(notebook["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if i == 0:
                text = _opened(lesson, text, repository)
            text = _NEXT.sub(lambda found: f"{found[1]}[Lesson {found[2]}]({following[found[2]]}.ipynb)", text)
            cell["source"] = text
            continue
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                said = "".join(output["data"].get("text/plain", ""))
                cell["metadata"].setdefault("mystnb", {})["image"] = {"alt": said.strip("<>") or "figure"}
    return json.dumps(notebook, ensure_ascii=False)


def _opened(lesson: Lesson, text: str, repository: str) -> str:
    """The first cell with its buttons, and below its first words a picture where it shows none itself."""
    buttons = (
        '<p class="lesson-buttons"><a href="{}">Open in Colab</a> '
        f'<a href="../downloads/{lesson.page}.ipynb" download>Download the notebook</a> '
        f'<a href="{repository}/blob/main/notebooks/{lesson.page}.ipynb">On GitHub</a> '
        f"<span>{lesson.minutes} minutes</span></p>"
    )
    text = _BADGE.sub(lambda badge: buttons.format(badge[1]), text)
    if "![" in text:
        return text
    before, heading, after = text.partition("## What you will learn")
    return f"{before}{_first_picture(lesson)}\n\n{heading}{after}"


def _first_picture(lesson: Lesson) -> str:
    said = escape(_shown(lesson))
    return (
        f'<figure class="first-picture"><img src="../thumbnails/{lesson.page}.png" alt="{said}">'
        "<figcaption>What you will move in this lesson.</figcaption></figure>"
    )


def _shown(lesson: Lesson) -> str:
    """In words, what the explorer's still shows."""
    for cell in lesson.notebook["cells"]:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                return "".join(output["data"]["text/plain"])
    return lesson.title
