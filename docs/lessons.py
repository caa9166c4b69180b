"""What the site says of each lesson, taken from where it is written: the notebooks and the syllabus."""

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"
_ROW = re.compile(r"^\| (\d\d) \| \[(.+?)\]\((.+?)\.ipynb\) \| (.+?) \| (\d+) \|", re.MULTILINE)
_ATTACHED = re.compile(r'<img src="attachment:[^>]*>\n\n')
_PHOTOGRAPH = re.compile(r'src="attachment:([a-z_]+\.webp)"')
_BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\((https:[^)]*)\)")


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


def page_of(lesson: Lesson, source: str, repository: str, explorer: str = "") -> str:
    """The notebook as the site shows it: buttons for the badge, a picture on the first screen, alt texts.

    Args:
        lesson: whose notebook it is.
        source: the notebook.
        repository: its address.
        explorer: HTML for the live view, which has no kernel here; without it the view's still stays.
    """
    notebook = json.loads(source)
    for i, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            text = _PHOTOGRAPH.sub(r'src="../docs/pictures/photographs/\1"', text)
            cell["source"] = _opened(lesson, _ATTACHED.sub("", text), repository) if i == 0 else text
            cell.pop("attachments", None)  # the site has a first picture of its own, and one copy of each photograph
            continue
        for output in cell["outputs"]:
            data = output.get("data", {})
            picture = output.get("metadata", {}).get("image/png", {})
            said = picture.get("alt") or "".join(data.get("text/plain", "")).strip("<>") or "figure"
            parts = picture.get("parts")
            if WIDGET in data and explorer:
                output["data"] = {"text/html": explorer, "text/plain": said}
            elif parts:
                name = _file_name(base64.b64decode(data["image/png"]))
                output["data"] = {"text/html": in_tiles(f"../figures/{name}", said, parts), "text/plain": said}
                output["metadata"] = {}
            elif "image/png" in data:
                cell["metadata"].setdefault("mystnb", {})["image"] = {"alt": said}
    return json.dumps(notebook, ensure_ascii=False)


def figures(lesson: Lesson) -> Iterator[tuple[str, bytes]]:
    """File name and PNG of the figures that `page_of` shows in tiles."""
    for cell in lesson.notebook["cells"]:
        for output in cell.get("outputs", []):
            if "parts" in output.get("metadata", {}).get("image/png", {}):
                png = base64.b64decode(output["data"]["image/png"])
                yield _file_name(png), png


def _file_name(png: bytes) -> str:
    return f"{sha256(png).hexdigest()[:16]}.png"


def in_tiles(address: str, said: str, parts: dict[str, Any]) -> str:
    """A figure as HTML: whole where there is room for it, else tile by tile, each cut out of the same file.

    Args:
        address: of the PNG.
        said: what it shows, in words.
        parts: of a figure, see `rsepm_edu.viz.panels`.
    """
    tiles, row = [], ""
    for tile in parts["tiles"]:
        if tile["row"] != row:
            row = tile["row"]
            tiles.append(f'<p class="tile-row">{escape(row)}</p>')
        x, y, w, h = tile["box"]
        name = escape(" ".join(tile["name"].split()))
        alt = f"{'numbers' if parts['kind'] == 'numbers' else 'picture'}: {name}{f', {escape(row)}' if row else ''}"
        tiles.append(
            f'<figure class="tile" style="--x:{x};--y:{y};--w:{w};--h:{h}"><span><img src="{address}" loading="lazy" '
            f'alt="{alt}"></span><figcaption>{name}</figcaption></figure>'
        )
    squares = (
        f'<span><i style="background:{colour}"></i> {escape(name)}</span>' for name, colour in parts["legend"].items()
    )
    return (
        f'<div class="in-tiles {parts["kind"]}"><img class="whole" src="{address}" alt="{escape(said)}">'
        f'<div class="tiles">{"".join(tiles)}</div><p class="tile-legend">{" ".join(squares)}</p></div>'
    )


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
