"""The plane of FP and FN of the scoreboard as SVG: always the same axes, dots in grey and in colour, their names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import product

WIDTH, HEIGHT = 540, 536
LEFT, TOP, SIDE = 66, 16, 456
"""Of the square in which both axes go from 0 to 1."""

LETTER = 8.6
"""Width of a letter, about; letters are 15 high, so that they are 10 where a phone shows the drawing 358 wide."""

STYLE = """
.ground{fill:#ffffff}.never{fill:#f0f1f4}.frame{fill:none;stroke:#59616b;stroke-width:1.4}
text{fill:#1b1f24;font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:15px}
.note{fill:#4b535d}.same{stroke:#c9ced6;stroke-width:1}.lead{stroke:#7b848f;stroke-width:1}
.old{fill:#7b848f;stroke:#ffffff;stroke-width:1.5}.new{fill:#d9480f;stroke:#ffffff;stroke-width:1.5}
.name{fill:#b93a08;font-weight:600}
@media (prefers-color-scheme:dark){
.ground{fill:#14181d}.never{fill:#1f262e}.frame{stroke:#a2abb6}text{fill:#e8ebef}.note{fill:#b3bbc5}
.same{stroke:#3c4650}.lead{stroke:#8b95a1}.old{fill:#98a2ae;stroke:#14181d}.new{fill:#ff9a5c;stroke:#14181d}
.name{fill:#ff9a5c}}
"""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Dot:
    """A point of the plane and its name; new ones are drawn in colour, larger, above the others."""

    fp: float
    fn: float
    name: str
    new: bool

    @property
    def place(self) -> tuple[float, float]:
        """Where it lies in the drawing."""
        return LEFT + SIDE * self.fp, TOP + SIDE * (1 - self.fn)


def plane_svg(dots: Sequence[Dot], title: str, description: str) -> str:
    """The drawing's text.

    Args:
        dots: in any order.
        title: what the drawing shows, in a few words.
        description: what somebody who cannot see it should know.
    """
    parts = [*_axes(), *_diagonals()]
    ordered = sorted(dots, key=lambda dot: dot.new)  # new ones last: above
    boxes = dict(zip(ordered, _names(ordered), strict=True))
    for dot in ordered:
        (x, y), (left, top, right, bottom) = dot.place, boxes[dot]
        near_x, near_y = min(max(x, left), right), min(max(y, top), bottom)
        if math.hypot(near_x - x, near_y - y) > 14:
            parts.append(f'<line class="lead" x1="{x:.1f}" y1="{y:.1f}" x2="{near_x:.1f}" y2="{near_y:.1f}"/>')
    for dot in ordered:
        (x, y), (left, _, _, bottom) = dot.place, boxes[dot]
        kind, radius = ("new", 8) if dot.new else ("old", 6)
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')
        parts.append(_text(left + 2, bottom - 5, dot.name, "name" if dot.new else "note", anchor="start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' role="img" aria-labelledby="title desc">\n<title id="title">{escape(title)}</title>\n'
        f'<desc id="desc">{escape(description)}</desc>\n<style>{STYLE}</style>\n'
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="10"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _axes() -> list[str]:
    right, bottom = LEFT + SIDE, TOP + SIDE
    parts = [f'<polygon class="never" points="{LEFT},{TOP} {right},{TOP} {right},{bottom}"/>']
    for tenth in range(0, 11, 2):
        at = SIDE * tenth / 10
        parts.append(_text(LEFT + at, bottom + 20, f"{tenth / 10:g}"))
        parts.append(_text(LEFT - 8, bottom - at + 5, f"{tenth / 10:g}", anchor="end"))
    parts.append(_text(LEFT + SIDE / 2, bottom + 45, "FP: too much → "))
    middle = TOP + SIDE / 2
    parts.append(_text(20, middle, "FN: too little →", turn=-90))
    parts.append(_text(right - 12, TOP + 26, "no mask lies here", "note", anchor="end"))
    parts.append(_text(LEFT + 8, bottom - 8, "perfect: this corner", "note", anchor="start"))
    parts.append(f'<polyline class="frame" points="{LEFT},{TOP} {LEFT},{bottom} {right},{bottom}"/>')
    return parts


def _diagonals() -> list[str]:
    """Where FP + FN is the same, and so is the IoU."""
    parts, bottom = [], TOP + SIDE
    for tenth in range(2, 10, 2):
        reach = SIDE * (1 - tenth / 10)
        parts.append(f'<line class="same" x1="{LEFT}" y1="{bottom - reach:g}" x2="{LEFT + reach:g}" y2="{bottom}"/>')
        parts.append(_text(LEFT + 12, bottom - reach + 6, f"IoU {tenth / 10:g}", "note", anchor="start", turn=45))
    return parts


def _text(x: float, y: float, text: str, style: str = "", *, anchor: str = "middle", turn: float = 0) -> str:
    kind = f' class="{style}"' if style else ""
    turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}{turned}>{escape(text)}</text>'


def _names(dots: Sequence[Dot]) -> list[Box]:
    """Where the names stand: near their dots, clear of dots and of one another as far as it can be."""
    bottom = TOP + SIDE
    taken: list[Box] = [(x - 9, y - 9, x + 9, y + 9) for x, y in (dot.place for dot in dots)]
    taken.append((LEFT, bottom - 24, LEFT + LETTER * 19, bottom))  # "perfect"
    found: dict[int, Box] = {}
    for i in sorted(range(len(dots)), key=lambda i: not dots[i].new):  # the new ones have the first choice
        found[i] = min(_places(dots[i]), key=lambda box: sum(_shared(box, other) for other in taken))
        taken.append(found[i])
    return [found[i] for i in range(len(dots))]


def _places(dot: Dot) -> list[Box]:
    """Boxes for a name within the square, the nearest first."""
    (x, y), wide, high = dot.place, LETTER * len(dot.name) + 4, 20
    boxes = []
    for far, turn in product((12, 26, 44, 66, 92, 122), range(16)):
        across, up = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
        centre_x, centre_y = x + across * (far + wide / 2), y - up * (far + high / 2)
        left, top = centre_x - wide / 2, centre_y - high / 2
        if left >= LEFT + 2 and left + wide <= LEFT + SIDE and top >= TOP and top + high <= TOP + SIDE:
            boxes.append((left, top, left + wide, top + high))
    return boxes


def _shared(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, across) * max(0.0, down)
