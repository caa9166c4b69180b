"""The scoreboard of the lessons: one plane of FP and FN for all of them, one more point in each, under one card.

The numbers are computed by ``data_scripts/make_scoreboard.py``. Those of lesson 08, of which no network comes with the
course, are read from results/creatures and marked: they were not computed under the card.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from rsepm_edu.course.results import read_tables
from rsepm_edu.course.scoreboard_plane import Dot, plane_svg
from rsepm_edu.course.settings_card import SettingsCard
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.evaluation.tables import NONE, ORACLE, Row

FILE = files("rsepm_edu.course") / "scoreboard.json"
LESSONS = (*(f"{number:02d}" for number in range(9)), "12")
"""The lessons that show it; the last shows all points."""

NOTHING_NEW = {
    "07": "The mixings of this lesson change what a network learns from; no lesson network was trained with them.",
    "12": "All points of the course.",
}
"""Why a lesson adds no point, where more can be said than that."""

TABLE = "creatures"
FULL_RUNS = {
    "RS*: arg-max": "RS (decoder, arg-max)",
    "RS + EPM*: arg-max": "RS + EPM (decoder, arg-max)",
}
"""Point of lesson 08 to row of that table; both rows of a seed are of equally long trainings."""

NEW = "#d9480f"


@dataclass(frozen=True)
class Point:
    """What a lesson adds.

    Attributes:
        lesson: its number.
        method: what was scored.
        network: of the package, see ``rsepm_edu.course.networks``; None: there was none.
        threshold: θ; None where none is needed.
        choice: how θ was chosen, as in ``rsepm_edu.evaluation.tables.Row``.
        fp, fn: means over the animals, fractions of the union.
        miou: mean over background and animals, a fraction.
        source: table and seeds that it is the mean of; empty: it was computed under the card.
    """

    lesson: str
    method: str
    network: str | None
    threshold: float | None
    choice: str
    fp: float
    fn: float
    miou: float
    source: str = ""


class Scoreboard:
    """The scoreboard as the result of a cell, in the colours of the drawings: see ``rsepm_edu.course.drawing``.

    Args:
        lesson: that shows it.
        points: up to that lesson, in the order of the lessons.
        card: under which they were computed.
    """

    def __init__(self, lesson: str, points: Sequence[Point], card: SettingsCard) -> None:
        self.lesson, self.points, self.card = lesson, tuple(points), card
        self.marks = _marks(self.points)
        self.alt = self._alt()

    def is_new(self, point: Point) -> bool:
        """Whether the lesson adds this point."""
        return point.lesson == self.lesson

    @property
    def note(self) -> str:
        """Why there is no new point; empty where there is one."""
        if any(map(self.is_new, self.points)):
            return ""
        return NOTHING_NEW.get(self.lesson, "This lesson adds no point: the course has no network for it.")

    def __repr__(self) -> str:
        return f"Scoreboard: {self.alt}"

    def _alt(self) -> str:
        said = [f"The plane of FP and FN, lesson {self.lesson}."]
        for name, new in (("Before", False), ("New", True)):
            found = [
                f"{point.method} at FP {point.fp:.2f}, FN {point.fn:.2f}"
                for point in self.points
                if self.is_new(point) == new
            ]
            said += [f"{name}: {'; '.join(found)}."] if found else []
        return " ".join([*said, self.note]).strip()

    def svg(self) -> str:
        """The plane."""
        dots = [
            Dot(point.fp, point.fn, f"{mark} {point.method}" if self.is_new(point) else mark, new=self.is_new(point))
            for mark, point in zip(self.marks, self.points, strict=True)
        ]
        return plane_svg(dots, f"Scoreboard, lesson {self.lesson}", self.alt)

    def table(self) -> str:
        """All points in numbers, the new ones in bold, as HTML."""
        rows = []
        for mark, point in zip(self.marks, self.points, strict=True):
            cells = [mark, point.method, _theta(point), f"{point.fp:.2f}", f"{point.fn:.2f}", f"{point.miou:.1%}"]
            shown = [f"<b>{escape(cell)}</b>" if self.is_new(point) else escape(cell) for cell in cells]
            if self.is_new(point):
                shown[0] = f'<span style="color: {NEW}">●</span> {shown[0]}'
            rows.append(_row("td", shown))
        return (
            '<table style="font-size: 0.85em; margin: 0">'
            f"<thead>{_row('th', ['lesson', 'method', 'θ', 'FP', 'FN', 'mIoU'])}</thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        data = base64.b64encode(self.svg().encode()).decode()
        image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(self.alt)}" style="width: 100%">'
        networks = dict.fromkeys(point.network for point in self.points if point.network is not None)
        below = [f"<b>{escape(self.note)}</b>"] if self.note else []
        below += [f"<b>Settings card</b>, the same in all lessons: {escape(str(self.card))}."]
        below += [f"Networks: {escape(', '.join(networks))}, as they come with the course."] if networks else []
        sources = dict.fromkeys(point.source for point in self.points if point.source)
        below += [
            f"* <b>Not under the card</b>: {escape(source)}; more images, three scales. Compare only these two."
            for source in sources
        ]
        below += [
            "A diagonal joins all points of one IoU, the mean over the animals; mIoU has the background in it, too."
        ]
        html = (
            '<div style="display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start">'
            f'<div style="flex: 1 1 330px; min-width: 0; max-width: 540px">{image}</div>'
            f'<div style="flex: 1 1 300px; min-width: 0; overflow-x: auto">{self.table()}</div></div>'
            f'<p style="font-size: 0.85em">{"<br>".join(below)}</p>'
        )
        return {"text/html": html, "text/plain": repr(self)}


def show_scoreboard(lesson: str) -> Scoreboard:
    """The plane of FP and FN with the points of all lessons up to this one, their numbers, and the settings card.

    Args:
        lesson: its number, one of ``LESSONS``.

    Raises:
        UserError: another lesson.
    """
    if lesson not in LESSONS:
        raise UserError(f"lesson: expected one of {', '.join(LESSONS)}, got {lesson!r}")
    points, card = read_scoreboard()
    return Scoreboard(lesson, [point for point in points if point.lesson <= lesson], card)


def read_scoreboard() -> tuple[list[Point], SettingsCard]:
    """All points, in the order of the lessons, and the card under which those without a source were computed."""
    points, card = from_json(json.loads(FILE.read_text("utf-8")))
    return sorted([*points, *full_runs(read_tables()[TABLE])], key=lambda point: point.lesson), card


def full_runs(rows: Sequence[Row]) -> list[Point]:
    """What lesson 08 adds: means over the seeds that have RS and RS + EPM.

    Args:
        rows: of results/creatures; there is no point if no seed has both.
    """
    by_seed = [{row.seed: row for row in rows if row.method == name} for name in FULL_RUNS.values()]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not seeds:
        return []
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {', '.join(map(str, seeds))}"
    points = []
    for method, found in zip(FULL_RUNS, by_seed, strict=True):
        fp, fn, miou = (
            round(sum(values) / len(seeds), 4)
            for values in zip(*((row.fp, row.fn, row.miou / 100) for row in map(found.get, seeds) if row), strict=True)
        )
        points.append(Point("08", method, None, None, NONE, fp, fn, miou, f"results/{TABLE}, {which}"))
    return points


def from_json(stored: Mapping[str, Any]) -> tuple[list[Point], SettingsCard]:
    """What ``data_scripts/make_scoreboard.py`` has written."""
    card = dict(stored["card"])
    options = dict(card.pop("options"))
    options["scales"] = tuple(options["scales"])
    return [Point(**point) for point in stored["points"]], SettingsCard(options=SeedOptions(**options), **card)


def _marks(points: Sequence[Point]) -> list[str]:
    """A short name for each: its lesson, with a letter where the lesson has several."""
    lessons = [point.lesson for point in points]
    return [
        lesson + ("abcdefgh"[lessons[:i].count(lesson)] if lessons.count(lesson) > 1 else "")
        for i, lesson in enumerate(lessons)
    ]


def _theta(point: Point) -> str:
    if point.threshold is None:
        return "none"
    return f"{point.threshold:.2f} {'oracle' if point.choice == ORACLE else point.choice}"


def _row(tag: str, cells: Sequence[str]) -> str:
    styles = ("left", "left", "left; white-space: nowrap", "right", "right", "right")
    return (
        "<tr>"
        + "".join(
            f'<{tag} style="padding: 2px 6px; text-align: {style}">{cell}</{tag}>'
            for style, cell in zip(styles, cells, strict=True)
        )
        + "</tr>"
    )
