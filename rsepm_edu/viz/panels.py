"""Static pictures of images, maps and masks, drawn without matplotlib's global state.

Nothing here normalises. A map comes in [0, 1] and is drawn on that scale, so that two maps in two
pictures can be compared; who wants another scale changes the map first and says so.
"""

import base64
import io
import itertools
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image
from torch import Tensor

from rsepm_edu.data.palette import VOID, colourise
from rsepm_edu.files import atomic_path

Picture = npt.NDArray[np.uint8]
Array = Tensor | npt.NDArray[Any]
Judged = npt.NDArray[np.bool_]

ROUNDING = 1e-3
"""How far a map may leave [0, 1]: sums of rounded numbers do, by less than this."""

HEAT = (matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
"""256x3: the colour of a map's value 0/255, 1/255 ... 255/255, from black to pale yellow."""


WIDTH = 8.0
"""Inches of every figure: as wide as the column of the site at 100 pixels an inch."""

DENSITY = 200
"""Pixels an inch in notebooks: twice the column of the site, so that figures fill JupyterLab's too and stay sharp."""

SMALLEST, LARGEST = 1.8, 3.0
"""Inches of a picture in a row: smaller ones go on in the next row, a single one is not blown up further."""


class _Figure(Figure):
    """A figure that notebooks show by itself, whichever matplotlib backend is active, and that says what it shows.

    parts: where its tiles lie, in pixels of the PNG, and what their names are; a page for a phone takes it to pieces.
    """

    shown = "figure"
    parts: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return self.shown

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"text/plain": self.shown, "image/png": base64.b64encode(self._repr_png_()).decode()}
        return data, {} if self.parts is None else {"image/png": {"parts": self.parts}}

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DENSITY)
        return small_png(Image.open(buffer))


FLAT = 12
"""Pixels: squares of this side in one colour are an area, such as a legend's patch, and no enlarged pixel."""


COLOURS = 192
"""Of a palette: with 256 lesson 01 has 75 kB more, and nobody sees them."""


def small_png(image: Image.Image) -> bytes:
    """A picture as PNG with a palette of at most ``COLOURS`` of its own: a third of the bytes, and hardly seen.

    Colours of areas stay as they are, so that a legend's are those of the masks; the others are rounded.
    """
    pixels = image.convert("RGB")
    packed = np.asarray(pixels).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    corner, middle = packed[:-FLAT, :-FLAT], packed[FLAT // 2 : -FLAT // 2, FLAT // 2 : -FLAT // 2]
    flat = (corner == packed[FLAT:, FLAT:]) & (corner == packed[:-FLAT, FLAT:]) & (corner == packed[FLAT:, :-FLAT])
    colours, counts = np.unique(corner[flat & (corner == middle)], return_counts=True)
    kept = np.sort(colours[np.argsort(-counts)[:128]])
    exact = np.stack([kept >> 16, kept >> 8 & 255, kept & 255], axis=1).astype(np.uint8)
    rounded = pixels.quantize(COLOURS - len(kept), dither=Image.Dither.NONE)
    indices = np.asarray(rounded) + np.uint8(len(kept))
    if len(kept):
        places = np.searchsorted(kept, packed).clip(max=len(kept) - 1)
        indices = np.where(kept[places] == packed, places, indices).astype(np.uint8)
    small = Image.fromarray(indices)
    small.putpalette(exact.tobytes() + bytes(rounded.getpalette() or []))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


LINE_COLOURS = ("#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#e69f00")
"""Okabe and Ito's: they stay apart for colour-blind readers."""

LONG = 12
"""A legend of more entries, such as VOC's 22, is drawn without the colours that no label map shows."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

RIGHT, EXTRA, MISSED = (0, 158, 115), (213, 94, 0), (86, 180, 233)
"""Green, orange and blue of right, superfluous and missed pixels (Okabe and Ito's too)."""


@dataclass(frozen=True)
class PanelSample:
    """What one row of a training panel shows; whatever is None is left out of that row.

    image: uint8 3×H×W. cam, rs_map (M_rs): float K×H×W in [0, 1]. pseudo_mask, decoder, truth: labels H×W
    (0 background, 1 to K, 255 void). All of the image's size: the caller resizes.
    """

    image: Array
    name: str = ""
    cam: Array | None = None
    rs_map: Array | None = None
    pseudo_mask: Array | None = None
    decoder: Array | None = None
    truth: Array | None = None


def picture(image: Array) -> Picture:
    """An image uint8 3×H×W (or H×W×3, passed through) as a picture uint8 H×W×3."""
    array = _array(image)
    if array.dtype != np.uint8:
        raise TypeError(f"expected a uint8 image, got {array.dtype}")
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"expected an image 3xHxW or HxWx3, got shape {array.shape}")
    return np.ascontiguousarray(array)


def heat(values: Array) -> Picture:
    """One map H×W in [0, 1] in colours, black for 0 to pale yellow for 1: uint8 H×W×3."""
    array = _unit(values)
    if array.ndim != 2:
        raise ValueError(f"expected a map HxW, got shape {array.shape}")
    return HEAT[(array * 255).round().astype(np.uint8)]


def overlay(image: Array, values: Array, *, opacity: float = 0.6) -> Picture:
    """Lay a map or a mask over its image.

    - Map, float H×W in [0, 1]: `heat` colours, mixed half and half for `opacity` 0.5.
    - Maps, float K×H×W in [0, 1]: each pixel in the palette colour of its strongest class k + 1,
      mixed with weight `opacity` times that class's value.
    - Mask, integer H×W: palette colours with weight `opacity`, nothing over background, and void
      opaque, so that it is never taken for background.

    The values are drawn as they are: nothing is rescaled, clipped or squared.

    Args:
        image: uint8 3×H×W or H×W×3.
        values: a map, maps or a mask, of the image's height and width.
        opacity: 0 (only the image) to 1.

    Returns:
        uint8 H×W×3.

    Raises:
        ValueError: sizes differ, or a map leaves [0, 1]. TypeError: the image is not uint8.
    """
    under = picture(image)
    array = _array(values)
    if array.ndim not in (2, 3) or array.shape[-2:] != under.shape[:2]:
        raise ValueError(
            f"expected a map HxW, maps KxHxW or a mask HxW for an image of size "
            f"{under.shape[:2]}, got shape {array.shape}"
        )
    if np.issubdtype(array.dtype, np.integer):
        over = colourise(array)
        weight = np.where(array == 0, 0.0, opacity)
        weight[array == VOID] = 1.0
    elif array.ndim == 2:
        over, weight = heat(array), np.full(array.shape, opacity)
    else:
        array = _unit(array)
        over, weight = colourise(array.argmax(axis=0) + 1), opacity * array.max(axis=0)
    weight = weight[..., None]
    return ((1 - weight) * under + weight * over).round().astype(np.uint8)


def judge(mask: Array, truth: Array, label: int = 1) -> tuple[Judged, Judged, Judged]:
    """Which pixels of one class's mask are right, superfluous and missed.

    Args:
        mask: bool H×W, the pixels given to the class.
        truth: labels H×W; void pixels (255) are in none of the three.
        label: of the class in `truth`.

    Returns:
        Three bool H×W: in both, in the mask alone, in the truth alone.

    Raises:
        TypeError: the mask is not bool. ValueError: sizes differ.
    """
    found, labels = _array(mask), _array(truth)
    if found.dtype != bool:
        raise TypeError(f"expected a bool mask, got {found.dtype}")
    if found.shape != labels.shape:
        raise ValueError(f"expected truth {found.shape}, got {labels.shape}")
    counted, wanted = labels != VOID, labels == label
    return found & wanted, found & ~wanted & counted, ~found & wanted


def verdict(image: Array, mask: Array, truth: Array, label: int = 1) -> Picture:
    """What is right (green), superfluous (orange) and missed (blue) in a class's mask, over the darkened image.

    Args:
        image: uint8 3×H×W or H×W×3.
        mask, truth, label: see `judge`.

    Returns:
        uint8 H×W×3.
    """
    under = picture(image)
    shown = (0.35 * under + 0.65 * under.mean(axis=2, keepdims=True)) * 0.6
    for part, colour in zip(judge(mask, truth, label), (RIGHT, EXTRA, MISSED), strict=True):
        shown[part] = 0.25 * shown[part] + 0.75 * np.array(colour)
    return shown.astype(np.uint8)


def class_colours(class_names: Sequence[str]) -> dict[str, str]:
    """The palette colour ("#rrggbb") of background, of each class in order, and of void."""
    labels = np.array([[*range(len(class_names) + 1), VOID]])
    colours = [f"#{bytes(colour).hex()}" for colour in colourise(labels)[0]]
    return dict(zip(["background", *class_names, "void"], colours, strict=True))


def _colours_of(cell: Picture) -> set[str]:
    """All colours of a picture, as "#rrggbb"."""
    numbered = np.unique(cell.astype(np.int64) @ (1 << 16, 1 << 8, 1))
    return {f"#{colour:06x}" for colour in numbered.tolist()}


def panel(
    rows: Sequence[Sequence[Array | None]],
    columns: Sequence[str],
    titles: Sequence[str] | None = None,
    *,
    legend: Mapping[str, str] | None = None,
    size: float = SMALLEST,
) -> Figure:
    """A table of pictures, as wide as the page. A single row that is too long for it goes on in the next line.

    Args:
        rows: pictures uint8 (H×W×3 or 3×H×W) row by row; None leaves a cell empty.
        columns: one header for each column.
        titles: one name for each row, written at its left.
        legend: name to colour, written below the table; see `class_colours`. Of a long one only the colours that some
            label map among the pictures shows.
        size: width in inches under which no picture of a single row goes, at least `SMALLEST`.

    Raises:
        ValueError: a row or `titles` does not fit the table.
    """
    if not rows or any(len(row) != len(columns) for row in rows):
        raise ValueError(f"expected rows of {len(columns)} pictures, got {[len(row) for row in rows]}")
    if titles is not None and len(titles) != len(rows):
        raise ValueError(f"expected {len(rows)} titles, got {len(titles)}")
    drawn = [[None if cell is None else picture(cell) for cell in row] for row in rows]
    if legend is not None and len(legend) > LONG:
        palette, found = set(legend.values()), [_colours_of(cell) for row in drawn for cell in row if cell is not None]
        shown = set[str]().union(*(colours for colours in found if colours <= palette))  # a photograph has any colour
        legend = {name: colour for name, colour in legend.items() if colour in shown} or legend
    beside = 0.3 if titles is not None else 0.0
    across = len(columns)
    if len(rows) == 1:
        most = max(1, int((WIDTH - beside) / max(size, SMALLEST)))
        across = -(-across // -(-across // most))  # as many in every line, if it can be
    wide = min(LARGEST, (WIDTH - beside) / across)
    names = ["\n".join(textwrap.wrap(name, max(8, int(13 * wide)), break_long_words=False)) for name in columns]
    lines = [
        (row[start : start + across], names[start : start + across] if r == 0 else [])
        for r, row in enumerate(drawn)
        for start in range(0, len(row), across)
    ]
    heights = [wide * max(_aspect(cell) for cell in cells) for cells, _ in lines]
    above = [0.08 + 0.19 * max((name.count("\n") + 1 for name in called), default=0) for _, called in lines]
    legend_lines = 0 if legend is None else -(-len(legend) // 7)
    below = 0.0 if legend is None else 0.1 + 0.26 * legend_lines
    tall = sum(heights) + sum(above) + below
    figure = _Figure(figsize=(WIDTH, tall))
    figure.shown = f"pictures: {_listed(columns)}" + (f"; rows: {_listed(titles)}" if titles else "")
    left, top, gap = beside, tall, 0.04  # at the left, where a phone looks first
    tiles = []
    for r, (cells, called) in enumerate(lines):
        top -= above[r] + heights[r]
        for c, cell in enumerate(cells):
            x, width = left + c * wide + gap, wide - 2 * gap
            ax = figure.add_axes((x / WIDTH, top / tall, width / WIDTH, heights[r] / tall))
            _draw(ax, cell)
            if cell is not None:
                table, high = len(rows) == len(lines), width * _aspect(cell)
                tiles.append(
                    {
                        "name": columns[c if table else r * across + c],
                        "row": titles[r if table else 0] if titles is not None else "",
                        "box": _pixels(x, tall - top - (heights[r] + high) / 2, width, high),
                    }
                )
            if called:
                ax.set_title(called[c], fontsize=10, pad=4)
            if titles is not None and c == 0 and len(rows) == len(lines):
                ax.set_ylabel(titles[r], fontsize=10)
    if titles is not None and len(rows) < len(lines):
        figure.axes[0].set_ylabel(titles[0], fontsize=10)
    figure.parts = {"kind": "pictures", "tiles": tiles, "legend": dict(legend or {})}
    if legend is not None:
        figure.legend(
            [Patch(facecolor=colour, edgecolor="0.3") for colour in legend.values()],
            list(legend),
            loc="lower center",
            ncols=-(-len(legend) // legend_lines),
            fontsize=9.5,
            frameon=False,
            borderaxespad=0.1,
        )
    return figure


def numbers(tensors: Mapping[str, Array], *, size: float = 0.7) -> Figure:
    """Small tensors as coloured squares with their numbers in them, side by side, and below one another on a full line.

    Args:
        tensors: title to tensor C×H×W, H×W or W, of any numeric dtype. Channels stand side by side.
            One colour scale, blue below 0 and red above, serves all of them. NaN is shown as void.
        size: width of one square in inches; less where the widest tensor would not fit the page.

    Raises:
        ValueError: a tensor with no or more than three dimensions.
    """
    arrays = {title: np.asarray(_array(tensor), dtype=float) for title, tensor in tensors.items()}
    if any(not 1 <= array.ndim <= 3 for array in arrays.values()):
        raise ValueError(f"expected CxHxW, HxW or W, got {[a.shape for a in arrays.values()]}")
    blocks = {title: np.atleast_3d(array.T).T for title, array in arrays.items()}
    finite = np.concatenate([block[np.isfinite(block)] for block in blocks.values()])
    largest = float(np.abs(finite).max(initial=0.0)) or 1.0
    single = [
        (f"{title}[{channel}]" if len(block) > 1 else title, values)
        for title, block in blocks.items()
        for channel, values in enumerate(block)
    ]
    size = min(max(size, 0.45), (WIDTH - 0.3) / max(values.shape[1] for _, values in single))
    lines: list[list[tuple[str, npt.NDArray[Any], float]]] = [[]]
    x = 0.0
    for name, values in single:
        wide = max(size * values.shape[1], 0.09 * len(name))
        if lines[-1] and x + wide > WIDTH - 0.05:
            lines.append([])
            x = 0.0
        lines[-1].append((name, values, x + (wide - size * values.shape[1]) / 2))
        x += wide + 0.35
    heights = [0.35 + size * max(values.shape[0] for _, values, _ in line) for line in lines]
    tall = sum(heights) + 0.1
    figure = _Figure(figsize=(WIDTH, tall))
    figure.shown = f"numbers in coloured squares: {_listed(tensors)}"
    colours, norm = matplotlib.colormaps["RdBu_r"], Normalize(-1.3 * largest, 1.3 * largest)
    top = tall
    tiles = []
    for line, height in zip(lines, heights, strict=True):
        for name, values, x in line:
            wide, high = size * values.shape[1], size * values.shape[0]
            ax = figure.add_axes(((0.05 + x) / WIDTH, (top - 0.3 - high) / tall, wide / WIDTH, high / tall))
            tiles.append({"name": name, "row": "", "box": _pixels(0.05 + x, tall - top + 0.3, wide, high)})
            ax.imshow(values, cmap=colours, norm=norm)
            for (row, column), value in np.ndenumerate(values):
                text = "void" if np.isnan(value) else f"{value + 0.0:.4g}"  # + 0.0: no "-0"
                dark = not np.isnan(value) and _brightness(colours(norm(value))) < 0.5
                fits = min(12.0, 100 * size / max(4, len(text)))
                ax.text(column, row, text, ha="center", va="center", fontsize=fits, color="white" if dark else "black")
            ax.set_title(name, fontsize=10, pad=4)
            ax.set_xticks([])
            ax.set_yticks([])
        top -= height
    figure.parts = {"kind": "numbers", "tiles": tiles, "legend": {}}
    return figure


def _pixels(*inches: float) -> list[int]:
    """Left, top, width and height in pixels of a stored figure."""
    return [round(value * DENSITY) for value in inches]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(" ".join(name.split()) for name in names)


def _brightness(colour: Sequence[float]) -> float:
    """Of a colour red, green, blue in 0 to 1, as the eye weighs them."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    mark: tuple[float, str] | None = None,
    limit: float = 1.0,
) -> Figure:
    """Curves over a common axis, upwards from 0 (scores over thresholds, say).

    Args:
        x: where the values were taken.
        lines: name to one value for each x; NaN leaves a gap.
        xlabel: what x is.
        mark: a place on the axis to point out, and its name.
        limit: where the upward axis ends.

    Raises:
        ValueError: a line that has not one value for each x.
    """
    figure = _Figure(figsize=(WIDTH, 3.6), layout="constrained")
    figure.shown = f"curves over {xlabel}: {_listed(lines)}"
    ax = figure.subplots()
    for (name, values), colour in zip(lines.items(), itertools.cycle(LINE_COLOURS), strict=False):
        if len(values) != len(x):
            raise ValueError(f"{name}: expected {len(x)} values, got {len(values)}")
        ax.plot(x, values, ".-", color=colour, label=name)
    if mark is not None:
        ax.axvline(mark[0], color="0.6", linestyle=":", label=mark[1])
    ax.set(xlabel=xlabel, ylim=(0, limit))
    ax.grid(axis="y", color="0.92")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=10, frameon=False, ncols=len(lines) + 1, loc="outside upper center")
    return figure


def ranges(
    rows: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    marks: Mapping[str, float] | None = None,
    mark_name: str = "",
    zero: bool = False,
) -> Figure:
    """One line a row: every value as a dot, a bar from the lowest to the highest, a stroke at the mean.

    Args:
        rows: name to its values (one a seed, say), from top to bottom; a row may be empty.
        xlabel: what the values are.
        marks: name to one more value, an open diamond beside the dots: somebody else's number, say.
        mark_name: what the diamonds are, for the legend.
        zero: point out 0, for differences.

    Raises:
        ValueError: no row, a value that is not finite, or a mark for a row that is not there.
    """
    marks = marks or {}
    if not rows or not set(marks) <= set(rows):
        raise ValueError(f"expected rows, and marks among them, got {list(rows)} and {list(marks)}")
    if not np.isfinite([*itertools.chain(*rows.values()), *marks.values()]).all():
        raise ValueError("expected finite values")
    figure = _Figure(figsize=(WIDTH, 0.8 + 0.27 * len(rows)), layout="constrained")
    figure.shown = f"{xlabel}, a line a row with a dot for each value: {_listed(rows)}"
    ax = figure.subplots()
    if zero:
        ax.axvline(0, color="0.6", linewidth=1)
    for y, (name, values) in enumerate(rows.items()):
        if len(values):
            ax.plot([min(values), max(values)], [y, y], color=LINE_COLOURS[0], linewidth=4, alpha=0.3)
            ax.plot([sum(values) / len(values)], [y], "|", color=LINE_COLOURS[0], markersize=12, markeredgewidth=2)
            ax.plot(values, [y] * len(values), "o", color=LINE_COLOURS[0], markersize=4.5, markeredgecolor="white")
        if name in marks:
            ax.plot([marks[name]], [y], "D", color=LINE_COLOURS[1], markerfacecolor="none", markersize=7)
    ax.set_yticks(range(len(rows)), list(rows), fontsize=9.5)
    ax.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    ax.grid(axis="x", color="0.92")
    ax.spines[["top", "right"]].set_visible(False)
    if marks:
        handles = [
            Line2D([], [], color=LINE_COLOURS[0], linestyle="", marker="o", markeredgecolor="white"),
            Line2D([], [], color=LINE_COLOURS[1], linestyle="", marker="D", markerfacecolor="none"),
        ]
        figure.legend(
            handles, ["ours, a dot a seed", mark_name], fontsize=10, frameon=False, ncols=2, loc="outside upper right"
        )
    return figure


def plane(
    points: Mapping[str, npt.ArrayLike],
    *,
    lines: Mapping[str, npt.ArrayLike] | None = None,
    arrows: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]] = (),
    limit: float = 1.0,
) -> Figure:
    """The plane of false positives and false negatives: FP to the right, FN upwards, perfect at the corner.

    Since IoU + FP + FN = 1, equal IoU lies on diagonals; they are drawn for 0.1 to 0.9. A name has one colour and one
    marker, whether it stands in `points`, in `lines` or in both.

    Args:
        points: name to (FP, FN), or to several of them, N×2.
        lines: name to N×2, points to be joined (a threshold sweep, say).
        arrows: pairs of (FP, FN): from, to.
        limit: where both axes end.

    Raises:
        ValueError: what is no (FP, FN), or negative, or adds up to more than 1.
    """
    figure = _Figure(figsize=(WIDTH, 6.4), layout="constrained")
    figure.shown = f"the plane of FP and FN: {_listed(list(dict.fromkeys([*points, *(lines or {})])))}"
    draw_plane(figure.subplots(), points, lines=lines, arrows=arrows, limit=limit)
    return figure


def draw_plane(
    ax: Axes,
    points: Mapping[str, npt.ArrayLike],
    *,
    lines: Mapping[str, npt.ArrayLike] | None = None,
    arrows: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]] = (),
    limit: float = 1.0,
) -> None:
    """`plane` in a part of a figure."""
    dots = {name: _fp_fn(name, value) for name, value in points.items()}
    paths = {name: _fp_fn(name, value) for name, value in (lines or {}).items()}
    ends = [(_fp_fn("arrow", start)[0], _fp_fn("arrow", end)[0]) for start, end in arrows]
    ax.fill([0, 1, 1], [1, 0, 1], color="0.93", zorder=0)  # no mask can be there
    for tenth in range(1, 10):
        total = 1 - tenth / 10
        ax.plot([0, total], [total, 0], color="0.82", linewidth=0.7, zorder=0.5)
        if total <= limit:
            text = f"IoU {tenth / 10}" if tenth == 5 else f"{tenth / 10}"
            place: dict[str, Any] = {"ha": "right", "va": "bottom", "rotation": -45, "rotation_mode": "anchor"}
            ax.text(total - 0.01 * limit, 0.015 * limit, text, color="0.45", fontsize=9, **place)
    styles = zip(itertools.cycle(LINE_COLOURS), itertools.cycle(MARKERS), strict=False)
    handles = []
    for name, (colour, marker) in zip(dict.fromkeys([*dots, *paths]), styles, strict=False):
        line: Literal["-", ""] = "-" if name in paths else ""
        shape = marker if name in dots else ""
        if name in paths:
            ax.plot(*paths[name].T, color=colour, linewidth=1.2)
        if name in dots:
            whole = not (dots[name] > limit).any()  # a point on an axis is drawn whole
            ax.plot(
                *dots[name].T, marker, color=colour, markeredgecolor="white", markersize=8, zorder=4, clip_on=not whole
            )
        handles.append(Line2D([], [], color=colour, linestyle=line, marker=shape, label=name))
    for start, end in ends:
        style = {"arrowstyle": "-|>", "color": "0.25", "shrinkA": 4, "shrinkB": 5}
        ax.annotate("", xy=tuple(end), xytext=tuple(start), arrowprops=style, zorder=3)
    ax.set(xlabel="FP", ylabel="FN", xlim=(0, limit), ylim=(0, limit), aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(handles=handles, fontsize=10, frameon=False, loc="upper right")  # where no point can be


def _fp_fn(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """One (FP, FN) or several as N×2, checked."""
    pairs = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"{name}: expected (FP, FN) or Nx2, got shape {np.shape(values)}")
    if not (pairs >= 0).all() or not (pairs.sum(axis=1) <= 1 + ROUNDING).all():  # NaN fails both
        raise ValueError(f"{name}: expected FP, FN >= 0 and FP + FN <= 1, got {pairs.round(3).tolist()}")
    return pairs


def training_panel(samples: Sequence[PanelSample], class_names: Sequence[str]) -> Figure:
    """What training sees: one row a picture; image, CAM, M_rs, pseudo mask, decoder, ground truth.

    Columns that no sample fills are left out. The legend names the classes that are drawn.

    Raises:
        ValueError: no samples, a map outside [0, 1], or a map not of its image's size.
    """
    fields = [name for name in _COLUMNS if any(getattr(s, name) is not None for s in samples)]
    rows = [[_cell(sample, name) for name in fields] for sample in samples]
    colours = class_colours(class_names)
    labels = set[int]()
    for sample in samples:
        for maps in (sample.cam, sample.rs_map):
            if maps is not None:
                labels |= {int(k) + 1 for k in np.flatnonzero(_array(maps).max(axis=(1, 2)))}
        for mask in (sample.pseudo_mask, sample.decoder, sample.truth):
            if mask is not None:
                labels |= {int(label) for label in np.unique(_array(mask))}
    drawn = [name for label, name in enumerate(class_names, start=1) if label in labels]
    return panel(
        rows,
        [_COLUMNS[name] for name in fields],
        [sample.name for sample in samples],
        legend={name: colours[name] for name in ["background", *drawn, "void"]},
    )


def save_panel(path: str | os.PathLike[str], samples: Sequence[PanelSample], class_names: Sequence[str]) -> None:
    """Write `training_panel(samples, class_names)` to a PNG file, atomically."""
    figure = training_panel(samples, class_names)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


_COLUMNS = {
    "image": "image",
    "cam": "cam",
    "rs_map": "M_rs, refined CAM",
    "pseudo_mask": "pseudo mask",
    "decoder": "decoder",
    "truth": "ground truth",
}


def _cell(sample: PanelSample, name: str) -> Picture | None:
    value = getattr(sample, name)
    if value is None:
        return None
    if name == "image":
        return picture(value)
    if name in ("cam", "rs_map"):
        return overlay(sample.image, value, opacity=0.9)
    shape = picture(sample.image).shape[:2]
    if _array(value).shape != shape:
        raise ValueError(f"expected {name} {shape}, got shape {_array(value).shape}")
    return colourise(value)


def _draw(ax: Axes, cell: Picture | None) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if cell is not None:
        ax.imshow(cell, interpolation="nearest")


def _aspect(cell: Picture | None) -> float:
    return 1.0 if cell is None else cell.shape[0] / cell.shape[1]


def _array(values: Array) -> npt.NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _unit(values: Array) -> npt.NDArray[np.floating]:
    array = _array(values)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"expected a floating map, got {array.dtype}")
    if not (array >= -ROUNDING).all() or not (array <= 1 + ROUNDING).all():  # NaN fails both
        raise ValueError(f"expected a map in [0, 1], got {array.min():.4g} to {array.max():.4g}: normalise first")
    return array.astype(np.float64).clip(0, 1)
