"""Relative links of documents and lessons lead to a file, and to a heading where they name one. No network."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ["notebooks", "docs", "results", "benchmarks", "data_scripts"]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    if path.suffix in {".md", ".ipynb"} and ".ipynb_checkpoints" not in path.parts
)
MARKDOWN_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
HTML_LINK = re.compile(r"(?:href|src)=\"([^\"]+)\"")


def text_of(path: Path) -> str:
    """What a reader sees as text: of a notebook its Markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return text


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them, and those set by hand."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#{1,6} +(.*?)\s*$", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        while anchor in found:
            anchor += "-1"
        found.add(anchor)
    return found | set(re.findall(r"\b(?:id|name)=\"([^\"]+)\"", text))


def broken_links(path: Path, text: str) -> list[str]:
    broken = []
    plain = without_code(text)
    for link in MARKDOWN_LINK.findall(plain) + HTML_LINK.findall(plain):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        is_there = target.exists() and target.is_relative_to(ROOT)
        if not is_there or (anchor and anchor not in anchors(text if target == path else text_of(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path, text_of(path)) == []


def test_there_are_pages_of_every_kind() -> None:
    found = {str(path.relative_to(ROOT)) for path in PAGES}
    assert {"README.md", "notebooks/README.md", "notebooks/04_pamr.ipynb", "docs/instructors.md"} <= found


@pytest.mark.parametrize(
    ("link", "is_broken"),
    [
        ("[a](README.md)", False),
        ("[a](README.md#lessons)", False),
        ("[a](#here-and-there)", False),
        ('<img src="README.md">', False),
        ("[a](https://example.org/nothing)", False),
        ("`[a](nothing.md)`", False),
        ("[a](nothing.md)", True),
        ("[a](README.md#nothing)", True),
        ("[a](#nothing)", True),
        ("[a](../../nothing)", True),
        ('<a href="nothing.html">', True),
        ("![a](nothing.png)", True),
    ],
)
def test_broken_links_are_seen(link: str, is_broken: bool) -> None:
    found = broken_links(ROOT / "CHANGELOG.md", f"# Here, and `there`\n\n{link}\n")
    assert bool(found) is is_broken
