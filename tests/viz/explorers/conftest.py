from collections.abc import Callable

import pytest

from rsepm_edu.viz.explorers.explorer import Explorer


@pytest.fixture
def live() -> Callable[[Explorer], tuple[bytes | str, ...]]:
    """What the widgets of an explorer hold now: the bytes of its tiles, and its words."""
    return lambda explorer: tuple(
        bytes(part.value) if isinstance(part.value, bytes | memoryview) else part.value
        for part in (*explorer.pictures, *explorer.words)
    )
