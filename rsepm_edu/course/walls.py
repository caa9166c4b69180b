"""Walls around a process, where the system has bubblewrap (Linux): what it sees of the machine, and what it can reach.

Inside there is the Python that runs this, with its packages, the system's libraries, and what was named, all of it
read-only; an empty home; processes of its own; no network. Home folders, configuration and other processes, with their
environment, are not there.
"""

import functools
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import rsepm_edu

HOME = "/student"
"""Home and working folder inside the walls."""
WRITABLE = 2**30
"""Bytes that can be written to each of the home, /tmp and shared memory; they lie in memory and go away."""

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/sys/devices/system/cpu"),
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts", "/etc/localtime"),
)


def within_walls(command: Sequence[str], visible: Sequence[Path], scratch: Sequence[Path] = ()) -> list[str]:
    """The command that runs `command` within walls.

    Args:
        command: to run, in the folder HOME.
        visible: files and folders that it may read, besides Python and the system's libraries.
        scratch: folders that are to be empty and writable inside; something `visible` may lie in them.
    """
    size = ["--size", str(WRITABLE)]
    made = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    made += ["--proc", "/proc", "--dev", "/dev", *size, "--tmpfs", "/dev/shm", *size, "--tmpfs", "/tmp"]
    for folder in (HOME, *scratch):
        made += [*size, "--tmpfs", str(folder)]
    for path in (*map(Path, SYSTEM), *_python(), *visible):
        made += ["--ro-bind-try", str(path), str(path)]
    return [*made, "--remount-ro", "/", "--remount-ro", "/dev", "--chdir", HOME, "--", *command]


@functools.cache
def why_no_walls() -> str | None:
    """None where walls can be built, else the reason in a few words."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    tried = within_walls([sys.executable, "-c", "import torch, IPython"], visible=())
    try:
        found = subprocess.run(tried, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start ({type(error).__name__})"
    last = found.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return None if found.returncode == 0 else f"bubblewrap does not start ({''.join(last)[:200]})"


def _python() -> list[Path]:
    """Where this Python and its packages lie, but not the working folder, nor a checkout around the package."""
    package = Path(rsepm_edu.__file__).parent
    folders = [sys.prefix, sys.base_prefix, sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]]
    folders += [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    for variable in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        folders += filter(None, os.environ.get(variable, "").split(os.pathsep))
    paths = [Path(folder).absolute() for folder in folders]
    paths = [path for path in paths if path != package.parent and path != Path("/")]
    return [*dict.fromkeys([*paths, *(path.resolve() for path in paths)]), package]
