"""Figures of whole runs: how their losses went, where their maps lie in the plane of FP and FN."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rsepm_edu.viz.panels import LINE_COLOURS, MARKERS, draw_plane

COLUMNS = 3
"""Parts of a figure side by side."""


class Curve(NamedTuple):
    """A loss over the epochs in which it was there."""

    epochs: list[int]
    values: list[float]


class Score(NamedTuple):
    """mIoU in percent; FP and FN as fractions of the union."""

    miou: float
    fp: float
    fn: float


def run_figure(
    curves: Mapping[str, Mapping[str, Curve]],
    scores: Mapping[str, Mapping[str, Score]],
    *,
    phases: Sequence[tuple[int, str]] = (),
) -> Figure:
    """A part for each loss, one for mIoU and one for the plane; a colour and a marker for each run.

    Args:
        curves: by run, then by loss.
        scores: by run, then by method; what is not finite is left out.
        phases: where one begins, the epoch and its name, to be marked in the curves.

    Raises:
        ValueError: no runs.
    """
    if not curves:
        raise ValueError("curves: expected at least one run, got none")
    losses = list(dict.fromkeys(itertools.chain.from_iterable(curves.values())))
    finite = {
        run: {name: score for name, score in of_run.items() if all(map(math.isfinite, score))}
        for run, of_run in scores.items()
    }
    methods = list(dict.fromkeys(itertools.chain.from_iterable(finite.values())))
    parts = len(losses) + (2 if methods else 0)
    columns = min(COLUMNS, parts)
    rows = -(-parts // columns)
    height = max(2.9, 0.9 + 0.22 * len(methods))
    figure = Figure(figsize=(3.9 * columns, height * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    styles = dict(zip(curves, zip(itertools.cycle(LINE_COLOURS), itertools.cycle(MARKERS), strict=False), strict=False))
    for ax, loss in zip(axes, losses, strict=False):
        _draw_loss(ax, loss, curves, styles, phases)
    if methods:
        _draw_scores(axes[len(losses)], methods, finite, styles)
        points = {run: [(s.fp, s.fn) for s in of_run.values()] for run, of_run in finite.items() if of_run}
        plane = axes[len(losses) + 1]
        draw_plane(plane, points)
        plane.set_title("false positives and negatives", fontsize=9)
        plane.get_legend().remove()
        for line, (colour, marker) in zip(plane.get_lines()[9:], [styles[run] for run in points], strict=True):
            line.set(color=colour, marker=marker, markersize=6)
    for ax in axes[parts:]:
        ax.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    if len(curves) > 1:
        figure.legend(handles, labels, fontsize=9, frameon=False, ncols=4, loc="outside lower center")
    return figure


def _draw_loss(
    ax: Axes,
    loss: str,
    curves: Mapping[str, Mapping[str, Curve]],
    styles: Mapping[str, tuple[str, str]],
    phases: Sequence[tuple[int, str]],
) -> None:
    for run, of_run in curves.items():
        curve = of_run.get(loss, Curve([], []))
        colour, marker = styles[run]
        ax.plot(curve.epochs, curve.values, color=colour, marker=marker, markersize=3.5, linewidth=1.3, label=run)
    last = max(epoch for of_run in curves.values() for curve in of_run.values() for epoch in curve.epochs)
    most = max(value for of_run in curves.values() if loss in of_run for value in of_run[loss].values)
    ax.set(xlim=(0.5, last + 0.5), ylim=(0, 1.1 * most or 1))
    ax.set_title(f"loss: {loss}", fontsize=9)
    ax.set_xlabel("epoch", fontsize=8)
    for epoch, name in phases:
        ax.axvline(epoch - 0.5, color="0.6", linestyle=":", linewidth=1)
        ax.text(epoch - 0.45, 0.98, name, fontsize=7, color="0.4", va="top", transform=ax.get_xaxis_transform())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(labelsize=8)
    ax.grid(axis="y", color="0.92")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_scores(
    ax: Axes,
    methods: Sequence[str],
    scores: Mapping[str, Mapping[str, Score]],
    styles: Mapping[str, tuple[str, str]],
) -> None:
    for run, of_run in scores.items():
        colour, marker = styles[run]
        rows = [methods.index(name) for name in of_run]
        values = [score.miou for score in of_run.values()]
        ax.plot(values, rows, marker, color=colour, markeredgecolor="white", markersize=7)
    ax.set_yticks(range(len(methods)), methods, fontsize=8)
    most = max(score.miou for of_run in scores.values() for score in of_run.values())
    ax.set(ylim=(len(methods) - 0.5, -0.5), xlim=(0, 1.08 * most or 1))
    ax.set_title("mIoU, %", fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="x", color="0.92")
    ax.spines[["top", "right"]].set_visible(False)
