"""Running somebody else's notebook cells: in a process of their own, with a time limit, in a folder that goes away.

What this keeps out: the code never runs in this process; a cell that never ends is stopped, one that refuses to stop is
killed, with the processes it started; it sees neither this process's environment variables (but for a few) nor its home
folder's name, and what it writes into its working folder is removed. What it does NOT keep out: the code runs with the
rights of whoever runs it. It can read and write files by their full path, use the network, fill memory and disk, and
leave a process behind that left its group. For code from people you do not trust, run the whole command in a container
without a network.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from types import TracebackType
from typing import Any

import rsepm_edu
from rsepm_edu.data.creatures import data_folder
from rsepm_edu.errors import UserError

START_SECONDS = 300.0
"""A kernel that has not answered by then does not start."""
GRACE_SECONDS = 10.0
"""From the interrupt to the kill."""
POLL_SECONDS = 0.5

# What a kernel needs of the environment; tokens and passwords that others keep there are not among it.
KEPT = {
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTHONPATH", "PYTHONWARNINGS"),
    *("SYSTEMROOT", "COMSPEC", "PATHEXT"),  # Windows does not start a Python without
}


@dataclass
class Result:
    """What running a piece of code gave: a `problem` in one line or none, and the data that it displayed."""

    problem: str | None = None
    displayed: list[dict[str, Any]] = field(default_factory=list)


class Sandbox:
    """A Jupyter kernel of this Python in a process of its own; use it in a `with`.

    Args:
        seconds: time limit of each piece of code.

    Raises:
        UserError: on entering: Jupyter is not installed, or the kernel does not start.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open = ExitStack()
        self.alive = False

    def __enter__(self) -> "Sandbox":
        try:
            from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
            from jupyter_client.manager import KernelManager
        except ModuleNotFoundError as error:
            raise UserError(
                f"sandbox: expected Jupyter (pip install 'rsepm-edu[notebooks]'), got no {error.name}"
            ) from None

        class ThisPython(KernelSpecManager):
            """Whatever "python3" means to Jupyter elsewhere: here it is the Python that runs this."""

            def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
                argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
                return KernelSpec(argv=argv, display_name="Python 3", language="python")

        with ExitStack() as stack:  # closes what is open when the next step fails
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            (folder / "work").mkdir()
            self._kernel = KernelManager(
                kernel_spec_manager=ThisPython(),
                connection_file=str(folder / "connection.json"),
                transport="tcp" if sys.platform == "win32" else "ipc",  # no port that others could reach
            )
            stack.callback(self._kernel.cleanup_resources)
            self._kernel.start_kernel(
                cwd=str(folder / "work"),
                env=_environment(folder / "work"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(self._kernel.shutdown_kernel, now=True)
            self._client = self._kernel.blocking_client()
            self._client.start_channels()
            stack.callback(self._client.stop_channels)
            try:
                self._client.wait_for_ready(timeout=START_SECONDS)
            except RuntimeError:
                raise UserError(f"sandbox: expected a kernel of {sys.executable}, got none that starts") from None
            self._open = stack.pop_all()
        self.alive = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.alive = False
        self._open.close()

    def run(self, code: str, seconds: float | None = None) -> Result:
        """Run code; returns when it has ended, was stopped, or has taken the kernel with it (`alive` says so).

        Args:
            code: one or more lines of Python.
            seconds: time limit of this piece, where it is another than the sandbox's.
        """
        if not self.alive:
            return Result("the kernel had stopped before")
        result, seconds = Result(), seconds or self._seconds
        request = self._client.execute(code, allow_stdin=False)
        limit, too_long = time.monotonic() + seconds, False
        while True:
            if time.monotonic() > limit:
                if too_long:
                    self._kill()
                    return Result(f"ran longer than {seconds:g} s, did not stop when asked, and was killed")
                too_long, limit = True, time.monotonic() + GRACE_SECONDS
                self._kernel.interrupt_kernel()
            try:
                message = self._client.get_iopub_msg(timeout=POLL_SECONDS)
            except Empty:
                if self._kernel.is_alive():
                    continue
                self._kill()
                return Result("ended the kernel")
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "display_data":
                result.displayed.append(content.get("data", {}))
            elif kind == "error":
                result.problem = one_line(f"raised {content.get('ename')}: {content.get('evalue')}")
            elif kind == "status" and content.get("execution_state") == "idle":
                if too_long:
                    result.problem = f"ran longer than {seconds:g} s and was stopped"
                return result

    def _kill(self) -> None:
        self.alive = False
        self._kernel.shutdown_kernel(now=True)


def one_line(text: str, length: int = 160) -> str:
    """The first line of a text that came out of a sandbox, without what a terminal would act on."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    printable = "".join(letter if letter.isprintable() else " " for letter in first).strip()
    return printable if len(printable) <= length else f"{printable[: length - 1]}…"


def _environment(home: Path) -> dict[str, str]:
    environment = {
        name: value for name, value in os.environ.items() if name.upper() in KEPT or name.startswith("RSEPM_EDU_")
    }
    environment["HOME"] = environment["USERPROFILE"] = environment["IPYTHONDIR"] = str(home)
    environment["RSEPM_EDU_DATA"] = str(data_folder().absolute())  # or each submission would draw Creatures anew
    package = Path(rsepm_edu.__file__).parents[1]
    if package != Path(sysconfig.get_paths()["purelib"]):  # a checkout: the kernel shall see the same one
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package), environment.get("PYTHONPATH")]))
    return environment
