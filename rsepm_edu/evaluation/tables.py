"""Results as tables: rows, their mean and range over seeds, and the folder that documents a run."""

import json
import math
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision

from rsepm_edu.errors import UserError, one_line
from rsepm_edu.evaluation.metrics import Scores
from rsepm_edu.files import atomic_path, atomic_write_text, read_bytes
from rsepm_edu.saved import is_number

ORACLE = "oracle"
"""Choice of a row whose threshold or checkpoint masks have chosen."""

NONE = "none"
"""Choice of a row in which there was nothing to choose."""


@dataclass(frozen=True)
class Row:
    """One result of one run.

    Attributes:
        method: what was scored, such as "CAM + PAMR".
        miou: in percent.
        fp, fn: fractions of the union, means over foreground classes (see `metrics`); NaN where no
            foreground class occurs.
        threshold: background score θ, None where there is none (arg-max of a decoder).
        oracle: whether masks were used to choose the threshold or the checkpoint.
        seed: the random seed of the run.
        choice: how the threshold was chosen: "oracle" where masks were used, else the name of the criterion (see
            `choosing.CRITERIA`), or "none" where there was nothing to choose. Left out, `oracle` decides.

    Raises:
        ValueError: a choice that says another thing about masks than `oracle`.
    """

    method: str
    miou: float
    fp: float
    fn: float
    threshold: float | None
    oracle: bool
    seed: int
    choice: str = ""

    def __post_init__(self) -> None:
        if not self.choice:
            object.__setattr__(self, "choice", ORACLE if self.oracle else NONE)
        if self.oracle != (self.choice == ORACLE):
            raise ValueError(
                f"choice: expected {ORACLE!r} if and only if oracle, got {self.choice!r} and {self.oracle}"
            )

    @classmethod
    def from_scores(
        cls, method: str, scores: Scores, *, threshold: float | None, oracle: bool, seed: int, choice: str = ""
    ) -> "Row":
        """A row from `Scores`, whose mIoU is a fraction and becomes percent here."""
        return cls(method, 100 * scores.miou, scores.fp, scores.fn, threshold, oracle, seed, choice)


class Spread(NamedTuple):
    """Mean, lowest and highest of a number over seeds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """A method over its seeds; `miou` in percent, `fp` and `fn` as fractions."""

    method: str
    choice: str
    seeds: int
    miou: Spread
    fp: Spread
    fn: Spread


def summary(rows: Sequence[Row]) -> list[Summary]:
    """Mean and range over seeds of each method, in the order in which methods first appear.

    Rows whose thresholds were chosen by different criteria are never averaged together.

    Raises:
        ValueError: a method has two rows of one seed.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        group = groups.setdefault((row.method, row.choice), [])
        if any(row.seed == other.seed for other in group):
            raise ValueError(f"rows: expected one row a seed, got seed {row.seed} twice for {row}")
        group.append(row)
    return [
        Summary(
            method,
            choice,
            len(group),
            _spread([row.miou for row in group]),
            _spread([row.fp for row in group]),
            _spread([row.fn for row in group]),
        )
        for (method, choice), group in groups.items()
    ]


def text(rows: Sequence[Row]) -> str:
    """The rows as aligned columns for a terminal."""
    return text_table(_ROW_HEAD, [_row_cells(row) for row in rows])


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, then, where there are several seeds, each method's mean (lowest – highest)."""
    means = summary(rows)
    over_seeds = ["Mean over seeds (lowest – highest):", ""]
    over_seeds += [*markdown_table(_SUMMARY_HEAD, [_summary_cells(line) for line in means]), ""]
    return "\n".join(
        [
            *markdown_table(_ROW_HEAD, [_row_cells(row) for row in rows]),
            "",
            *(over_seeds if any(line.seeds > 1 for line in means) else []),
            "mIoU in %; FP and FN as fractions of the union, means over foreground classes. "
            "Choice, how θ was found: oracle, by masks (θ or the checkpoint); none, there was nothing to choose; any "
            "other, without masks, by the criterion of that name.",
            "",
        ]
    )


def overview(rows: Sequence[Row], *, criterion: str = "colour") -> str:
    """A Markdown table with a line a method: at the oracle's threshold, and beside it without masks.

    Without masks: at the threshold chosen by that criterion, or where there is nothing to choose. A mean over several
    seeds is followed by (lowest – highest).
    """
    found = {(line.method, line.choice): line for line in summary(rows)}
    body = []
    for method in dict.fromkeys(row.method for row in rows):
        oracle = found.get((method, ORACLE))
        without = found.get((method, criterion)) or found.get((method, NONE))
        body.append((method, *_overview_cells(oracle), *_overview_cells(without)))
    head = ("method", "mIoU, oracle θ", "FP", "FN", "mIoU, no masks", "FP", "FN")
    return "".join(f"{line}\n" for line in markdown_table(head, body))


def to_json(rows: Sequence[Row]) -> str:
    """A JSON list with one object a row, its keys the fields of `Row`; NaN becomes null.

    mIoU is rounded to 2 decimals, FP and FN to 3: more are noise between machines.
    """
    objects = [
        {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(_rounded(row)).items()
        }
        for row in rows
    ]
    return json.dumps(objects, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Read a table.json back.

    Raises:
        UserError: the file is missing or is no list of rows.
    """
    known = {field.name for field in fields(Row)}
    required = known - {"choice"}  # tables written before there was one say it by `oracle`
    content = read_bytes(path, "a JSON table of results")
    try:
        objects = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected a JSON table of results, got: {one_line(error)}") from error
    rows = []
    for entry in objects if isinstance(objects, list) else [objects]:
        if not isinstance(entry, dict) or not required <= set(entry) <= known:
            raise UserError(f"{path}: expected rows with {sorted(known)}, got {entry!r:.200}")
        for name, value in entry.items():
            if not _fits(name, value):
                raise UserError(f"{path}: expected rows with numbers, names and switches, got {name} = {value!r:.80}")
        numbers = {name: math.nan if entry[name] is None else entry[name] for name in ("miou", "fp", "fn")}
        try:
            rows.append(Row(**{**entry, **numbers}))
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
    return rows


def _fits(name: str, value: object) -> bool:
    """Whether a value from JSON is of the kind that a field of `Row` has."""
    if name in ("method", "choice"):
        return isinstance(value, str)
    if name == "oracle":
        return isinstance(value, bool)
    if name == "seed":
        return type(value) is int
    return value is None or is_number(value)


def write_results(
    folder: str | os.PathLike[str],
    rows: Sequence[Row],
    *,
    command: str,
    config: Mapping[str, Any],
    log: str | os.PathLike[str] | None,
) -> None:
    """Write all that belongs to a table of results, each file whole or not at all.

    `table.json`, `table.md`, `command.txt`, `config.json`, `versions.json`, and the log, copied as
    `log` with its own suffix. Names of hosts and paths are not recorded here; keep them out of
    `command` and `config`.

    Raises:
        UserError: the log is missing.
        ValueError: no rows, or two rows of one method, choice and seed.
        TypeError: a config that JSON cannot hold.
    """
    if not rows:
        raise ValueError("rows: expected at least one, got none")
    if log is not None and not Path(log).is_file():
        raise UserError(f"{log}: expected the log of the run, found no such file")
    rounded = [_rounded(row) for row in rows]  # both tables show, and average, the same numbers
    contents = {
        "command.txt": command.strip() + "\n",
        "config.json": json.dumps(dict(config), indent=2, ensure_ascii=False) + "\n",
        "versions.json": json.dumps(versions(), indent=2) + "\n",
        "table.md": markdown(rounded),
        "table.json": to_json(rounded),
    }
    target = Path(folder)
    if log is not None:
        with atomic_path(target / f"log{Path(log).suffix}") as temporary:
            shutil.copyfile(log, temporary)
    for name, content in contents.items():
        atomic_write_text(target / name, content)


def versions() -> dict[str, str | int | None]:
    """What numbers may depend on: versions and kind of machine, without its name."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


_ROW_HEAD = ("method", "mIoU", "FP", "FN", "threshold", "choice", "seed")
_SUMMARY_HEAD = ("method", "choice", "seeds", "mIoU", "FP", "FN")


def _rounded(row: Row) -> Row:
    return replace(row, miou=round(row.miou, 2), fp=round(row.fp, 3), fn=round(row.fn, 3))


def _row_cells(row: Row) -> tuple[str, ...]:
    return (
        row.method,
        _percent(row.miou),
        _fraction(row.fp),
        _fraction(row.fn),
        "–" if row.threshold is None else f"{row.threshold:.2f}",
        row.choice,
        str(row.seed),
    )


def _summary_cells(line: Summary) -> tuple[str, ...]:
    return (
        line.method,
        line.choice,
        str(line.seeds),
        *(
            show(spread.mean) + (f" ({show(spread.low)} – {show(spread.high)})" if line.seeds > 1 else "")
            for spread, show in (
                (line.miou, _percent),
                (line.fp, _fraction),
                (line.fn, _fraction),
            )
        ),
    )


def _overview_cells(line: Summary | None) -> tuple[str, str, str]:
    if line is None:
        return "–", "–", "–"
    miou, fp, fn = (
        show(spread.mean) + (f" ({show(spread.low)} – {show(spread.high)})" if line.seeds > 1 else "")
        for spread, show in (
            (line.miou, "{:.1f}".format),
            (line.fp, _fraction),
            (line.fn, _fraction),
        )
    )
    return miou, fp, fn


def text_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table as aligned columns: words, in the first, to the left, numbers to the right."""
    table = [head, *body]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in table
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines) + "\n"


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, its columns aligned likewise."""
    escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in (head, *body)]
    escaped.insert(1, ["---"] + ["---:"] * (len(head) - 1))
    return [f"| {' | '.join(cells)} |" for cells in escaped]


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _fraction(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _spread(values: Sequence[float]) -> Spread:
    return Spread(sum(values) / len(values), min(values), max(values))
