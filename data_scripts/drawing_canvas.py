"""What all drawings of the course share: one style, boxes, arrows and grids of numbers, written as SVG.

A drawing has its own ground, so that it can be read on any page, and follows the reader's dark or light setting. It is
540 wide at most and its smallest letters are 15 high: shown 358 wide, as on a phone, they are still 10.
"""

import re
from collections.abc import Sequence
from html import escape

WIDTH = 540

STYLE = """
.ground{fill:#ffffff}.panel{fill:#f3f4f6;stroke:#9aa1ab;stroke-dasharray:5 4}
text{fill:#1b1f24;font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:17px}
.sub{font-size:15px}.small{font-size:15px}.head{font-weight:600}.note{fill:#4b535d}
.net{fill:#d6e6fa;stroke:#2f6db3}.step{fill:#e6dcf5;stroke:#7447b0}.data{fill:#ffffff;stroke:#59616b}
.map{fill:#fde3cf;stroke:#c0601a}.mask{fill:#d3efdc;stroke:#22804a}.loss{fill:#fbd9dd;stroke:#b8283c}
.box{stroke-width:1.6}.cell{stroke:#59616b;stroke-width:1}.void{fill:#e4e6ea}
.line{fill:none;stroke:#3b424b;stroke-width:1.8}.tip{fill:#3b424b}.dash{stroke-dasharray:6 5}
.here{fill:none;stroke:#d9480f;stroke-width:5}.badge{fill:#d9480f}.badgetext{fill:#ffffff;font-weight:600}
@media (prefers-color-scheme:dark){
.ground{fill:#14181d}.panel{fill:#1e242b;stroke:#6b7580}text{fill:#e8ebef}.note{fill:#b3bbc5}
.net{fill:#173a61;stroke:#7db4f0}.step{fill:#3a2759;stroke:#b795ea}.data{fill:#232a32;stroke:#a2abb6}
.map{fill:#5a3315;stroke:#f0a468}.mask{fill:#164329;stroke:#6fce97}.loss{fill:#5c1a25;stroke:#f08a98}
.cell{stroke:#a2abb6}.void{fill:#39414a}.line{stroke:#c3cad3}.tip{fill:#c3cad3}
.here{stroke:#ff9a5c}.badge{fill:#ff9a5c}.badgetext{fill:#14181d}}
"""

Point = tuple[float, float]


class Canvas:
    """Things are drawn in the order in which they are added.

    Args:
        title: what the drawing shows, in a few words.
        description: what somebody who cannot see it should know; with the title it is the text in place of the picture.
        width: of the drawing, at most ``WIDTH``.
    """

    def __init__(self, title: str, description: str, width: float = WIDTH) -> None:
        self.title, self.description, self.width = title, description, width
        self.height = 0.0
        self._parts: list[str] = []

    def _reach(self, bottom: float) -> None:
        self.height = max(self.height, bottom + 12)

    def panel(self, x: float, y: float, width: float, height: float, heading: str = "") -> None:
        """A dashed region with a heading at its top left."""
        self._parts.append(f'<rect class="panel" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="9"/>')
        if heading:
            self.text(x + 10, y + 21, heading, anchor="start", style="head")
        self._reach(y + height)

    def box(
        self, x: float, y: float, width: float, height: float, lines: str | Sequence[str], kind: str, round_: float = 6
    ) -> None:
        """A box with one or more centred lines; ``kind`` is a class of ``STYLE``: net, step, data, map, mask, loss."""
        self._parts.append(
            f'<rect class="box {kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round_:g}"/>'
        )
        rows = [lines] if isinstance(lines, str) else list(lines)
        first = y + height / 2 - 11 * (len(rows) - 1) + 6
        for i, row in enumerate(rows):
            self.text(x + width / 2, first + 22 * i, row)
        self._reach(y + height)

    def loss(self, x: float, y: float, text: str, width: float = 74) -> None:
        """A loss, as a pill around its centre."""
        self.box(x - width / 2, y - 18, width, 36, text, "loss", round_=18)

    def text(self, x: float, y: float, text: str, *, anchor: str = "middle", style: str = "") -> None:
        """One line; ``M_{rs}`` sets a subscript, ``M^{re}`` a superscript."""
        first, *pieces = re.split(r"([_^])\{([^}]*)\}", text)
        marked = escape(first)
        for way, piece, rest in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
            shift = 4 if way == "_" else -6
            back = f'<tspan dy="{-shift}">{escape(rest)}</tspan>' if rest else ""
            marked += f'<tspan class="sub" dy="{shift}">{escape(piece)}</tspan>{back}'
        style = f' class="{style}"' if style else ""
        self._parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{marked}</text>')
        self._reach(y)

    def arrow(self, *points: Point, dashed: bool = False) -> None:
        """A line through the points, with a tip at the last; every piece is level or upright."""
        (x0, y0), (x1, y1) = points[-2:]
        length = max(abs(x1 - x0), abs(y1 - y0))
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        path = " ".join(f"{x:g},{y:g}" for x, y in [*points[:-1], (x1 - 7 * dx, y1 - 7 * dy)])
        self._parts.append(f'<polyline class="line{" dash" if dashed else ""}" points="{path}"/>')
        tip = [(x1, y1), (x1 - 9 * dx - 5 * dy, y1 - 9 * dy + 5 * dx), (x1 - 9 * dx + 5 * dy, y1 - 9 * dy - 5 * dx)]
        self._parts.append(f'<polygon class="tip" points="{" ".join(f"{x:g},{y:g}" for x, y in tip)}"/>')

    def here(self, x: float, y: float, width: float, height: float) -> None:
        """A thick frame: you are here."""
        self._parts.append(
            f'<rect class="here" x="{x - 6:g}" y="{y - 6:g}" width="{width + 12:g}" height="{height + 12:g}" rx="11"/>'
        )
        self._reach(y + height)

    def badge(self, x: float, y: float, width: float, text: str) -> None:
        """A filled label."""
        self._parts.append(f'<rect class="badge" x="{x:g}" y="{y:g}" width="{width:g}" height="28" rx="14"/>')
        self.text(x + width / 2, y + 20, text, style="badgetext")

    def grid(self, x: float, y: float, rows: Sequence[Sequence[str]], *, side: float = 40, kind: str = "data") -> None:
        """Numbers in cells.

        Args:
            x, y: the top left corner.
            rows: what stands in the cells; "?" is void and grey.
            side: width of a cell; its height is 30.
            kind: the class of all other cells, see ``box``.
        """
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                fill = "void" if value == "?" else kind
                left, top = x + side * j, y + 30 * i
                self._parts.append(f'<rect class="{fill} cell" x="{left:g}" y="{top:g}" width="{side:g}" height="30"/>')
                self.text(left + side / 2, top + 21, value, style="small" if len(value) * 9.2 > side - 4 else "")
        self._reach(y + 30 * len(rows))

    def svg(self) -> str:
        """The file's text."""
        width, height = f"{self.width:g}", f"{self.height:g}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' role="img" aria-labelledby="title desc">\n<title id="title">{escape(self.title)}</title>\n'
            f'<desc id="desc">{escape(self.description)}</desc>\n<style>{STYLE}</style>\n'
            f'<rect class="ground" width="{width}" height="{height}" rx="10"/>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )
