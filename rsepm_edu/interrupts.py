"""A Ctrl-C before a command has begun."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

STOPPED = b"\nrsepm-edu: stopped before anything was begun\n"
"""For file descriptor 2: the start of Python's own streams may be what was interrupted."""


@contextmanager
def one_line_at_an_interrupt() -> Iterator[None]:
    """Leave at once at a Ctrl-C while modules are imported, where Python would show the inside of some library.

    Nothing has begun that could be lost. Outside of the main thread, where no signal arrives, nothing changes.
    """

    def leave(*_: object) -> NoReturn:
        os.write(2, STOPPED)
        os._exit(130)

    before = signal.getsignal(signal.SIGINT)
    try:
        if before is not signal.SIG_IGN:  # as it is for what a script starts in the background
            signal.signal(signal.SIGINT, leave)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
