from dataclasses import dataclass, fields

from rsepm_edu.training.config import Settings, TrainConfig
from rsepm_edu.training.described import Described, describe, settings_text


@dataclass(frozen=True)
class Small(Settings):
    """A few settings."""

    first: int = 1  # before any section [A]

    # --- later
    # What takes a line of its own,
    # or two.
    second: tuple[int, int] = (1, 2)  # a pair (ours)
    third: str = "x"
    fourth: str = (
        "a value with a comment that is too long for its line"  # the words that say what is meant by it, and why (ours)
    )


def test_comments_beside_and_above_are_read() -> None:
    assert describe(Small) == [
        Described("", "first", "before any section [A]"),
        Described("later", "second", "a pair (ours) What takes a line of its own, or two."),
        Described("later", "third", ""),
        Described("later", "fourth", "the words that say what is meant by it, and why (ours)"),
    ]


def test_every_setting_has_its_words() -> None:
    described = describe(TrainConfig)
    assert [setting.name for setting in described] == [field.name for field in fields(TrainConfig)]
    assert [setting.name for setting in described if not setting.comment] == []


def test_what_differs_from_the_default_is_marked() -> None:
    lines = settings_text(Small(second=(3, 4))).splitlines()
    assert lines[0].startswith("  first              1             before") and lines[2] == "later:"
    assert lines[3].startswith("* second             (3, 4)        a pair (ours)")
    assert all(len(line) <= 100 for line in settings_text(TrainConfig()).splitlines())
