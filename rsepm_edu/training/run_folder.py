"""What a run has left in its folder, read back: settings, epochs, tables of scores, pictures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.tables import ORACLE, Summary, read_rows, summary
from rsepm_edu.files import read_bytes, read_lines
from rsepm_edu.saved import is_number
from rsepm_edu.viz.run_curves import Curve, Score


@dataclass(frozen=True)
class Epoch:
    """A line of the log: the epoch counted from 1, its phase, its losses by name, and its seconds."""

    number: int
    phase: str
    losses: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class RunFolder:
    """A run of train, of demo, or of one training of multistage.

    settings: by name. scores: method over its seeds, by what a table calls it and by how its threshold was chosen, from
    every table.json in the folder and directly below it. panels: pictures of its state, by epoch.
    """

    folder: Path
    settings: dict[str, Any]
    epochs: list[Epoch]
    scores: dict[tuple[str, str], Summary]
    panels: list[Path]


def read_run(folder: Path) -> RunFolder:
    """Read the folder of a run.

    Raises:
        UserError: it is none, or a file in it is broken.
    """
    if not folder.is_dir():
        came = "a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: expected the folder of a run, got {came}")
    if not (folder / "log.jsonl").is_file() or not (folder / "config.json").is_file():
        raise UserError(f"{folder}: expected the folder of a run, with config.json and log.jsonl, got another one")
    return RunFolder(
        folder,
        _read_settings(folder / "config.json"),
        _read_log(folder / "log.jsonl"),
        _read_scores([*sorted(folder.glob("table.json")), *sorted(folder.glob("*/table.json"))]),
        sorted((folder / "panels").glob("epoch_*.png")),
    )


def _read_scores(paths: list[Path]) -> dict[tuple[str, str], Summary]:
    """Of several tables, each method is told with the folder of its table."""
    scores: dict[tuple[str, str], Summary] = {}
    for path in paths:
        try:
            lines = summary(read_rows(path))
        except ValueError as error:  # two rows of one seed
            raise UserError(f"{path}: {error}") from error
        prefix = f"{path.parent.name}: " if len(paths) > 1 else ""
        scores |= {(prefix + line.method, line.choice): line for line in lines}
    return scores


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(read_bytes(path, "the settings of a run").decode("utf-8-sig"))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected the settings of a run in JSON, got something else")
    return settings


def _read_log(path: Path) -> list[Epoch]:
    epochs, lines = [], read_lines(path, "the log of a run")
    for number, line in enumerate(lines, start=1):
        epoch = _epoch(line)
        if epoch is None and number == len(lines) > 1:  # the last one may have broken off
            break
        if epoch is None:
            raise UserError(f"{path}, line {number}: expected an epoch of the log in JSON, got {line!r:.80}")
        epochs.append(epoch)
    if not epochs:
        raise UserError(f"{path}: expected at least one epoch that is done, got none")
    return epochs


def _epoch(line: str) -> Epoch | None:
    """A line of the log; None if it is no such line. A training on label maps has one loss without a name."""
    try:
        row = json.loads(line)
        losses = row["losses"] if "losses" in row else {"loss": row["loss"]}
        epoch = Epoch(row["epoch"], str(row.get("phase", "")), dict(losses), row["seconds"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    numbers = [epoch.number, epoch.seconds, *epoch.losses.values()]
    return epoch if all(is_number(number) for number in numbers) else None


def curves(run: RunFolder) -> dict[str, Curve]:
    """Every loss of a run over the epochs that had it."""
    found: dict[str, Curve] = {}
    for epoch in run.epochs:
        for name, value in epoch.losses.items():
            curve = found.setdefault(name, Curve([], []))
            curve.epochs.append(epoch.number)
            curve.values.append(value)
    return found


def scores_without_masks(run: RunFolder) -> dict[str, Score]:
    """The scores of a run by method, at thresholds chosen without masks; of several such choices the first."""
    found: dict[str, Score] = {}
    for (method, choice), line in run.scores.items():
        if choice != ORACLE:
            found.setdefault(method, Score(line.miou.mean, line.fp.mean, line.fn.mean))
    return found
