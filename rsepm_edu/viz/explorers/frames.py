"""An explorer's pictures for pages without a kernel: it is moved through its positions, and what it shows is kept."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ipywidgets

from rsepm_edu.viz.explorers.explorer import Explorer


class Control(NamedTuple):
    """A control of a page. slider: as its look; else a list to choose from."""

    name: str
    slider: bool


class State(NamedTuple):
    """One state: a label for each control, and numbers: of its tiles, and of the words below each of them."""

    labels: tuple[str, ...]
    tiles: tuple[int, ...]
    words: tuple[int, ...]


class Frames(NamedTuple):
    """All that a page needs to move an explorer.

    tiles: PNG, each once. words: HTML, each once. start: number of the state that the explorer was in. still:
    descriptions of the controls that do not move. charts: numbers of the tiles that are charts.
    """

    controls: list[Control]
    states: list[State]
    tiles: list[bytes]
    words: list[str]
    start: int
    still: list[str]
    charts: list[int]


def frames(explorer: Explorer) -> Frames:
    """Move an explorer through the positions that its class names in `on_pages`, and keep what its widgets show.

    The explorer is left as it was. A control with two handles becomes two controls. What a control offers may depend on
    those before it.
    """
    moved = {name: getattr(explorer, name) for name in explorer.on_pages}
    began = {name: control.value for name, control in moved.items()}
    tiles: dict[bytes, int] = {}
    words: dict[str, int] = {}
    states = list[State]()
    start = 0
    for _ in _visit(explorer, list(moved), began):
        if all(control.value == began[name] for name, control in moved.items()):
            start = len(states)
        shown = tuple(tiles.setdefault(bytes(picture.value), len(tiles)) for picture in explorer.pictures)
        labels = tuple(label for control in moved.values() for label in _labels(control))
        said = tuple(words.setdefault(part.value, len(words)) for part in explorer.words)
        states.append(State(labels, shown, said))
    for name, value in began.items():
        moved[name].value = value
    still = [control.description for control in explorer.controls if control not in moved.values()]
    controls = [part for control in moved.values() for part in _parts(control)]
    return Frames(controls, states, list(tiles), list(words), start, still, list(explorer.charts))


def _visit(explorer: Explorer, names: Sequence[str], began: dict[str, Any]) -> Iterator[None]:
    """Every state once, the last control moving fastest."""
    if not names:
        yield
        return
    control, wanted = getattr(explorer, names[0]), explorer.on_pages[names[0]]
    for value in _positions(control, wanted, began[names[0]]):
        control.value = value
        yield from _visit(explorer, names[1:], began)


def _positions(control: Any, wanted: Sequence[Any] | None, began: Any) -> list[Any]:
    """The values that a control takes on a page, and where it began, in the order that it has them."""
    if isinstance(control, ipywidgets.Checkbox):
        return [False, True]
    if isinstance(control, ipywidgets.SelectionRangeSlider) or not hasattr(control, "options"):
        assert wanted is not None, control.description
        return sorted({*wanted, began})
    offered = [option[1] if isinstance(option, tuple) else option for option in control.options]
    return [value for value in offered if wanted is None or value in wanted or value == began]


def _parts(control: Any) -> list[Control]:
    """One control, or two for the two handles of one."""
    name, slider = control.description, hasattr(control, "readout")
    return [Control(f"{name}, {end}", slider) for end in ("from", "to")] if _two(control) else [Control(name, slider)]


def _two(control: Any) -> bool:
    return isinstance(control, ipywidgets.FloatRangeSlider | ipywidgets.SelectionRangeSlider)


def _labels(control: Any) -> list[str]:
    """What the control reads in its present position, one for each handle."""
    if isinstance(control, ipywidgets.Checkbox):
        return ["on" if control.value else "off"]
    if hasattr(control, "readout_format"):
        return [
            format(value, control.readout_format) for value in (control.value if _two(control) else [control.value])
        ]
    return [str(value) for value in control.value] if _two(control) else [str(control.label)]
