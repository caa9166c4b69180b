"""Look over the built site: every link, anchor and picture is there, and nothing comes from the network.

python docs/check_site.py site
"""

import json
import re
import sys
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser loads by itself, and the attribute that says from where. A plain link may lead into the network.
LOADED = dict.fromkeys(("img", "script", "iframe", "source", "video", "audio", "embed"), "src")
MOST = 28e6  # 25 with Creatures of one colour each; coats and grounds make larger images, and there are photographs
"""Bytes of a whole site."""
STYLE_URL = re.compile(r"""(?:url\(|@import\s+)\s*["']?(?!data:|#)([^"')\s;]+)""")


@dataclass
class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    told: str | None = None
    """What stands in the script of data that is being read: an explorer's, which names its tiles."""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser for every tag."""
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and {"stylesheet", "icon", "preload"} & set(values.get("rel", "").split()):
            self.loads.append(values.get("href", ""))
        elif LOADED.get(tag) in values:
            self.loads.append(values[LOADED[tag]])
        elif tag == "script" and values.get("type") == "application/json":
            self.told = ""

    def handle_data(self, data: str) -> None:
        """Called for text."""
        if self.told is not None:
            self.told += data

    def handle_endtag(self, tag: str) -> None:
        """Called at the end of an element."""
        if tag == "script" and self.told is not None:
            self.loads += json.loads(self.told)["tiles"]
            self.told = None


@cache
def read(path: Path) -> Page:
    """The page in a file."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def problems(site: Path) -> list[str]:
    """One line for each thing that is wrong, with the page where it is."""
    found = []
    pages = sorted(site.rglob("*.html"))
    if not pages:
        return [f"{site}: expected a built site, got no pages"]
    for path in pages:
        name, page = path.relative_to(site), read(path)
        found += [f"{name}: {link}: {why}" for link in page.links if (why := _wrong_link(path, link))]
        found += [f"{name}: {address}: {why}" for address in page.loads if (why := _wrong_load(path, address))]
    for path in sorted(site.rglob("*.css")):
        for address in STYLE_URL.findall(path.read_text(encoding="utf-8")):
            if why := _wrong_load(path, address):
                found.append(f"{path.relative_to(site)}: {address}: {why}")
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    return found if size <= MOST else [*found, f"{site}: expected at most {MOST / 1e6:.0f} MB, got {size / 1e6:.1f} MB"]


def _wrong_link(page: Path, link: str) -> str | None:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
    if not target.is_file():
        return "leads nowhere"
    if parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in read(target).anchors:
        return "no such anchor"
    return None


def _wrong_load(page: Path, address: str) -> str | None:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return None
    if parts.scheme or parts.netloc:
        return "is loaded from the network"
    target = page.parent / unquote(parts.path)
    return None if target.is_file() and target.stat().st_size else "is missing or empty"


def main() -> int:
    """Print what is wrong; returns the exit code."""
    [site] = [Path(argument) for argument in sys.argv[1:]] or [Path("site")]
    found = problems(site)
    for line in found:
        print(line, file=sys.stderr)
    print(f"{site}: {len(list(site.rglob('*.html')))} pages, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
