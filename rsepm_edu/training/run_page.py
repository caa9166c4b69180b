"""A run as one page of HTML that needs nothing beside itself: scores, curves, pictures, cases, settings."""

import base64
import io
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from rsepm_edu.errors import UserError
from rsepm_edu.training.config import TrainConfig
from rsepm_edu.training.described import describe
from rsepm_edu.training.run_folder import RunFolder, curves, scores_without_masks
from rsepm_edu.viz.run_curves import run_figure

PANELS = 6
"""So many states of a run are shown at most, the last among them."""


class Setting(NamedTuple):
    """A line of the list of settings."""

    name: str
    value: str
    comment: str
    changed: bool


def run_page(run: RunFolder, cases: Mapping[str, Figure], cases_note: str) -> str:
    """The page.

    Args:
        run: see ``read_run``.
        cases: figures by what they show.
        cases_note: how the cases were made, or why there are none.

    Raises:
        UserError: a panel that cannot be read.
    """
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        (files("rsepm_edu.training") / "run_page.html").read_text("utf-8")
    )
    name = run.folder.resolve().name
    figure = run_figure({name: curves(run)}, {name: scores_without_masks(run)}, phases=_phases(run))
    page: str = template.render(
        name=name,
        summary=_summary(run),
        scores=[
            {
                "method": method,
                "choice": choice,
                **{
                    key: _number(getattr(line, key).mean, digits) for key, digits in (("miou", 2), ("fp", 3), ("fn", 3))
                },
            }
            for (method, choice), line in run.scores.items()
        ],
        curves=_figure_source(figure),
        panels=[{"epoch": int(path.stem[-3:]), "source": _picture_source(path)} for path in _some(run.panels)],
        cases=[{"title": title, "source": _figure_source(figure)} for title, figure in cases.items()],
        cases_note=cases_note,
        settings=_settings(run.settings),
    )
    return page


def _summary(run: RunFolder) -> str:
    last = run.epochs[-1]
    minutes = sum(epoch.seconds for epoch in run.epochs) / 60
    of = run.settings.get("epochs")
    done = f"{last.number} of {of} epochs" if isinstance(of, int) else f"{last.number} epochs"
    phases = " → ".join(name for _, name in _phases(run))
    parts = [phases, done, f"{minutes:.0f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"]
    return " · ".join(part for part in parts if part)


def _phases(run: RunFolder) -> list[tuple[int, str]]:
    """The epoch in which each phase begins, and its name."""
    found: list[tuple[int, str]] = []
    for epoch in run.epochs:
        if epoch.phase and (not found or found[-1][1] != epoch.phase):
            found.append((epoch.number, epoch.phase))
    return found


def _settings(settings: Mapping[str, Any]) -> list[Setting]:
    """With meaning and default where they are those of train; a file by its name alone."""
    shown = {**settings}
    if isinstance(shown.get("weights"), str):
        shown["weights"] = Path(shown["weights"]).name
    try:
        known = TrainConfig.from_dict(dict(settings)).to_dict()
    except (UserError, TypeError):
        return [Setting(name, str(value), "", False) for name, value in shown.items()]
    default = TrainConfig().to_dict()
    return [
        Setting(name, str(shown.get(name, known[name])), comment, known[name] != default[name])
        for _, name, comment in describe(TrainConfig)
    ]


def _some(panels: list[Path]) -> list[Path]:
    """The last one first, then others spread over the run."""
    if len(panels) <= PANELS:
        return panels[::-1]
    return [panels[round(step * (len(panels) - 1) / (PANELS - 1))] for step in reversed(range(PANELS))]


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _figure_source(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return _source(Image.open(buffer))


def _picture_source(path: Path) -> str:
    try:
        return _source(Image.open(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: expected a readable picture, got: {error}") from error


def _source(picture: Image.Image) -> str:
    """A picture as part of the page: WebP, a quarter of what PNG takes."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
