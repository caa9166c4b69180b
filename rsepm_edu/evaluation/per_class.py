"""One line a class: IoU, FN, and FP split by what the superfluous pixels really are.

Of the P - TP pixels that are wrongly given to a class some are background and some belong to another class; both are
counted in a column of the confusion matrix, so they add up to P - TP exactly. Many of the first kind say that masks are
too large, many of the second that classes are confused. For background itself all are of the second kind.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from torch import Tensor

from rsepm_edu.evaluation.metrics import BACKGROUND_NAME, scores
from rsepm_edu.evaluation.scoring import ARGMAX, SeedScores
from rsepm_edu.evaluation.tables import markdown_table, text_table


@dataclass(frozen=True)
class ClassCounts:
    """The pixels of one class over a whole set, void left out; fractions are of the union, None where it is empty.

    true: T, of the class in the truth. predicted: P, given to it. right: TP. from_background, from_classes: given to
    it, but background or another foreground class in the truth; together P - TP.
    """

    name: str
    true: int
    predicted: int
    right: int
    from_background: int
    from_classes: int

    @property
    def union(self) -> int:
        """U = T + P - TP."""
        return self.true + self.predicted - self.right

    @property
    def iou(self) -> float | None:
        """TP / U."""
        return self._share(self.right)

    @property
    def fp(self) -> float | None:
        """(P - TP) / U."""
        return self._share(self.predicted - self.right)

    @property
    def fp_background(self) -> float | None:
        """The part of FP that is background in the truth."""
        return self._share(self.from_background)

    @property
    def fp_classes(self) -> float | None:
        """The part of FP that is another foreground class in the truth."""
        return self._share(self.from_classes)

    @property
    def fn(self) -> float | None:
        """(T - TP) / U."""
        return self._share(self.true - self.right)

    def _share(self, pixels: int) -> float | None:
        return pixels / self.union if self.union else None


def class_counts(confusion: Tensor, names: Sequence[str], *, classes: Sequence[str] | None = None) -> list[ClassCounts]:
    """The pixels of each class, background first.

    Args:
        confusion: integer (K+1)×(K+1), rows truth, columns prediction (see ``metrics``).
        names: the K foreground classes in label order.
        classes: only these foreground classes (and background).

    Raises:
        TypeError, ValueError, UserError: see ``metrics.scores``.
    """
    chosen = scores(confusion, names, classes=classes).iou  # checks all three
    result = []
    for label, name in enumerate([BACKGROUND_NAME, *names]):
        if name not in chosen:
            continue
        column = confusion[:, label].tolist()
        right = column[label]
        from_background = column[0] if label else 0
        result.append(
            ClassCounts(
                name,
                true=int(confusion[label].sum()),
                predicted=sum(column),
                right=right,
                from_background=from_background,
                from_classes=sum(column) - right - from_background,
            )
        )
    return result


class MapCounts(NamedTuple):
    """One map's confusion matrix, and the background threshold it was counted at (None: the decoder's arg-max)."""

    threshold: float | None
    confusion: Tensor


def seed_counts(result: SeedScores, *, classes: Sequence[str] | None = None) -> dict[str, MapCounts]:
    """The counts of every map of a network at its ORACLE threshold, and of the decoder's arg-max, by name.

    Args:
        result: of ``score_seeds``.
        classes: whose mean the thresholds are best for.
    """
    counts = {}
    for name, sweep in result.sweeps.items():
        threshold, _ = sweep.best(result.classes, classes=classes)
        counts[name] = MapCounts(threshold, sweep.confusions[sweep.thresholds.index(threshold)])
    if result.labels is not None:
        counts[ARGMAX] = MapCounts(None, result.labels)
    return counts


@dataclass(frozen=True)
class ClassTable:
    """The classes of one row of results.

    method: as in its `Row`. counts: see ``class_counts``. boundary: boundary IoU by class, if it was measured.
    """

    method: str
    counts: Sequence[ClassCounts]
    boundary: Mapping[str, float | None] | None = None


def text(tables: Sequence[ClassTable]) -> str:
    """The tables as aligned columns for a terminal, one below the other."""
    return "\n".join(f"{table.method}\n{text_table(_head(table), _cells(table))}" for table in tables)


def markdown(tables: Sequence[ClassTable]) -> str:
    """The tables in Markdown, each below its method's name."""
    lines: list[str] = []
    for table in tables:
        lines += [f"**{table.method}**", "", *markdown_table(_head(table), _cells(table)), ""]
    lines += [_NOTE, ""]
    return "\n".join(lines)


def to_objects(tables: Sequence[ClassTable]) -> list[dict[str, str | int | float | None]]:
    """One dictionary a class and method: pixels as counted, and fractions rounded to 4 decimals."""
    objects = []
    for table in tables:
        for line in table.counts:
            shares = {name: getattr(line, name) for name in ("iou", "fp", "fp_background", "fp_classes", "fn")}
            if table.boundary is not None:
                shares["boundary_iou"] = table.boundary[line.name]
            pixels = asdict(line)
            objects.append(
                {"method": table.method, "class": pixels.pop("name")}
                | pixels
                | {name: None if value is None else round(value, 4) for name, value in shares.items()}
            )
    return objects


def to_json(tables: Sequence[ClassTable]) -> str:
    """`to_objects` as JSON."""
    return json.dumps(to_objects(tables), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_NOTE = (
    "IoU and boundary IoU in %; FP and FN as fractions of the class's union. FP is the sum of two parts: what is "
    "background in the truth, and what is another foreground class. Means: IoU over all classes that occur, FP and FN "
    "over the foreground."
)


def _head(table: ClassTable) -> tuple[str, ...]:
    head = ("class", "IoU", "FP", "FP (background)", "FP (classes)", "FN")
    return head if table.boundary is None else (*head, "boundary IoU")


def _cells(table: ClassTable) -> list[tuple[str, ...]]:
    rows = []
    for line in table.counts:
        fractions = (line.fp, line.fp_background, line.fp_classes, line.fn)
        cells = (line.name, _percent(line.iou), *map(_fraction, fractions))
        rows.append(cells if table.boundary is None else (*cells, _percent(table.boundary[line.name])))
    return rows + [_means(table)]


def _means(table: ClassTable) -> tuple[str, ...]:
    """The last line: means as in ``metrics``, of IoU over all classes that occur, of FP and FN over the foreground."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    front = [line for line in table.counts if line.name != BACKGROUND_NAME]
    parts = [[getattr(line, name) for line in front] for name in ("fp", "fp_background", "fp_classes", "fn")]
    fractions = [mean(values) for values in parts]
    cells = (
        "mean",
        _percent(mean([line.iou for line in table.counts])),
        *map(_fraction, fractions),
    )
    if table.boundary is None:
        return cells
    return (*cells, _percent(mean([table.boundary[line.name] for line in table.counts])))


def _fraction(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
