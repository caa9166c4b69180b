"""The check of the built site sees what is broken."""

from pathlib import Path

import pytest

from docs.check_site import problems

PNG = b"\x89PNG"


def site(folder: Path, body: str, style: str = "") -> Path:
    (folder / "sub").mkdir()
    (folder / "sub" / "page.html").write_text(f"<html><link rel='stylesheet' href='../a.css'>{body}</html>")
    (folder / "index.html").write_text("<a href='sub/page.html'>page</a><h2 id='there'>There</h2>")
    (folder / "a.css").write_text(f"p {{ color: red }} {style}")
    (folder / "a b.png").write_bytes(PNG)
    (folder / "empty.png").touch()
    return folder


@pytest.mark.parametrize(
    ("body", "style"),
    [
        ('<a href="../index.html#there">x</a><a href="#">x</a><a href="#here">x</a><p id="here">', ""),
        ('<img src="../a%20b.png"><img src="data:image/png;base64,AA=="><a href="https://example.org">x</a>', ""),
        ("", "p { background: url(data:image/png;base64,AA==) } q { background: url('a%20b.png') }"),
    ],
)
def test_what_is_right_passes(body: str, style: str, tmp_path: Path) -> None:
    assert problems(site(tmp_path, body, style)) == []


@pytest.mark.parametrize(
    ("body", "style", "said"),
    [
        ('<a href="nothing.html">', "", "nothing.html: leads nowhere"),
        ('<a href="../index.html#nowhere">', "", "../index.html#nowhere: no such anchor"),
        ('<a href="#nowhere">', "", "#nowhere: no such anchor"),
        ('<img src="../nothing.png">', "", "../nothing.png: is missing or empty"),
        ('<img src="../empty.png">', "", "../empty.png: is missing or empty"),
        ('<img src="https://example.org/a.png">', "", "https://example.org/a.png: is loaded from the network"),
        ('<script src="//example.org/a.js"></script>', "", "//example.org/a.js: is loaded from the network"),
        ('<link rel="stylesheet" href="https://example.org/a.css">', "", "is loaded from the network"),
        ("", "@import 'https://example.org/b.css';", "is loaded from the network"),
        ("", "p { background: url(nothing.woff) }", "nothing.woff: is missing or empty"),
    ],
)
def test_what_is_broken_is_named(body: str, style: str, said: str, tmp_path: Path) -> None:
    [line] = problems(site(tmp_path, body, style))
    assert said in line and line.startswith("a.css: " if style else "sub/page.html: ")


def test_no_site_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path) == [f"{tmp_path}: expected a built site, got no pages"]
