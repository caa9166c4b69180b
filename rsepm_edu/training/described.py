"""Settings in words: what each one means and where its value comes from, read from the comments beside them."""

import inspect
import re
import textwrap
from typing import NamedTuple

from rsepm_edu.training.config import Settings

_SECTION = re.compile(r"\s*# --- (?P<title>.+)")
_COMMENT = re.compile(r"\s*# (?P<text>.+)")
_FIELD = re.compile(r"    (?P<name>\w+): [^#]+(?:# (?P<text>.+))?")


class Described(NamedTuple):
    """A setting: its section ("" before the first), its name, and its comment, the lines above it included."""

    section: str
    name: str
    comment: str


def describe(kind: type[Settings]) -> list[Described]:
    """The settings of a dataclass in order.

    Args:
        kind: written as ``TrainConfig`` is: a field a line, its comment behind it or in lines above it, sections as
            ``# --- title``.
    """
    known, found = set(kind.__dataclass_fields__), []
    section, above, open_field = "", list[str](), ""
    for line in inspect.getsource(kind).splitlines():
        if open_field:  # a value over several lines, in parentheses
            above += [text for _, _, text in [line.partition("# ")] if text]
            if line == "    )":
                found.append(Described(section, open_field, " ".join(above)))
                above, open_field = [], ""
        elif head := _SECTION.fullmatch(line):
            section, above = head["title"], []
        elif comment := _COMMENT.fullmatch(line):
            above.append(comment["text"])
        elif (field := _FIELD.fullmatch(line)) and field["name"] in known:
            if line.endswith("("):
                open_field = field["name"]
                continue
            found.append(Described(section, field["name"], " ".join([field["text"] or "", *above]).strip()))
            above = []
        else:
            above = []
    return found


def settings_text(config: Settings, *, width: int = 100) -> str:
    """All settings of a run for a terminal: value and meaning, ``*`` before those that are not the default."""
    default, lines, section = type(config)(), list[str](), ""
    for setting in describe(type(config)):
        if setting.section != section:
            section = setting.section
            lines += ["", *textwrap.wrap(f"{section.rstrip(':')}:", width)]
        value = getattr(config, setting.name)
        mark = " " if value == getattr(default, setting.name) else "*"
        head = f"{mark} {setting.name:<18} {value!s:<12}  "
        lines += textwrap.wrap(
            setting.comment or "-",
            width,
            initial_indent=head,
            subsequent_indent=" " * 35,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines).strip("\n") + "\n"
