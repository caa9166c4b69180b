"""The inside of the sandbox: runs a notebook's cells, tries the student's functions, hands out what they give.

sandbox.py starts it as a program. It reads one job from standard input and writes one line of JSON for each step to
what was standard output: {"ready": true}; {"problem": …} for each cell; {"answers": […]} for each exercise. From the
first cell on this process is the student's: whatever it sends may be forged, and is only ever compared outside.
"""

import _thread
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import torch

from rsepm_edu.course.checks import Answer, ask
from rsepm_edu.course.exercises import EXERCISES, stub_of

SEED = 1
"""Of the inputs; the notebook's own checker draws them with 0."""
LARGEST = 100_000
"""A result with more numbers than that is no answer: the right ones have a few thousand."""


def answers_of(name: str, namespace: Mapping[str, Any]) -> list[Answer]:
    """What the student's function of that exercise, found by the name of its stub, gives for each input."""
    stub, cases = stub_of(name), EXERCISES[name].inputs(torch.Generator().manual_seed(SEED))
    function = namespace.get(stub)
    if not callable(function):
        return [Answer(None, f"Not yet: the notebook defines no function {stub}.")] * len(cases)
    if str(getattr(function, "__module__", None)).startswith("rsepm_edu."):
        return [Answer(None, f"Not yet: {stub} is the package's own function.")] * len(cases)
    return [ask(function, inputs) for inputs in cases]


def encode(answer: Answer) -> dict[str, Any]:
    """An answer as JSON can hold it."""
    if answer.values is None:
        return {"problem": answer.problem[:300]}
    if answer.values.numel() > LARGEST:
        return {"problem": f"Not yet: got {answer.values.numel()} numbers, far too many."}
    return {"shape": list(answer.values.shape), "values": answer.values.flatten().tolist()}


def main() -> None:
    """Do the job that standard input describes (see `sandbox.run_notebook`)."""
    job = json.load(sys.stdin)
    _limit_memory(job["memory"])
    shell = _shell()
    outside = _take_over_streams()

    def send(reply: dict[str, Any]) -> None:
        outside.write(json.dumps(reply) + "\n")
        outside.flush()

    send({"ready": True})
    for source in job["cells"]:
        send({"problem": _run_cell(shell, source, job["seconds"])})
    for name in job["exercises"]:
        send({"answers": [encode(answer) for answer in _try_function(shell.user_ns, name, job["seconds"])]})
    os._exit(0)  # waits for no thread and no child that a cell has left


def _run_cell(shell: Any, source: str, seconds: float) -> str | None:
    """What went wrong in a cell, if anything did."""
    error: BaseException | None
    too_long = threading.Event()
    try:
        with _interrupted_after(seconds, too_long):
            result = shell.run_cell(source, store_history=True)
        error = result.error_before_exec or result.error_in_exec
    except BaseException as raised:  # an interrupt at the very end; source that IPython itself cannot take
        error = raised
    if too_long.is_set():
        return f"ran longer than {seconds:g} s and was stopped"
    return None if error is None else f"raised {_named(error)}"[:300]


def _try_function(namespace: Mapping[str, Any], name: str, seconds: float) -> list[Answer]:
    too_long = threading.Event()
    try:
        with _interrupted_after(seconds, too_long):
            return answers_of(name, namespace)
    except BaseException as error:  # ask() takes an Exception; sys.exit() and an interrupt come here
        what = f"ran longer than {seconds:g} s and was stopped" if too_long.is_set() else f"raised {_named(error)}"
        return [Answer(None, f"Not yet: your function {what}.")] * len(EXERCISES[name].inputs(torch.Generator()))


def _named(error: BaseException) -> str:
    lines = traceback.format_exception_only(error)  # takes errors whose own str() fails
    return lines[-1] if isinstance(error, SyntaxError) else lines[0]


@contextmanager
def _interrupted_after(seconds: float, too_long: threading.Event) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block when it takes longer. Cells may ignore it; the outside has its own clock."""
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def interrupt() -> None:
        too_long.set()
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main_thread, signal.SIGINT)  # ends a sleep too
        else:
            _thread.interrupt_main()

    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the cells before made of it
    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # so that no interrupt comes later


def _limit_memory(size: int) -> None:
    with suppress(OSError):  # where memory runs out all the same, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    with suppress(OSError, ValueError):  # a limit that is lower already
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _shell() -> Any:
    """What runs the cells in a Jupyter kernel, without the kernel."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    return InteractiveShell.instance(config=config)


def _take_over_streams() -> TextIO:
    """The way out for `main` alone; what cells print and ask for goes to, and comes from, nowhere."""
    outside = os.fdopen(os.dup(1), "w", encoding="ascii")
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        nowhere = os.open(os.devnull, mode)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    return outside


if __name__ == "__main__":
    main()
