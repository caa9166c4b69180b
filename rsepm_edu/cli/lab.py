"""rsepm-edu lab: the lessons in JupyterLab."""

import argparse
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

from rsepm_edu.errors import UserError

CHECKOUT = Path(__file__).parents[2]


def run(options: argparse.Namespace) -> int:
    """Start JupyterLab and wait for its end; returns its exit code."""
    folder = notebooks(CHECKOUT, Path.cwd())
    if importlib.util.find_spec("jupyterlab") is None:
        raise UserError("jupyterlab: expected it to be installed, got no such package; pip install 'jupyterlab>=4.1'")
    # The whole checkout, opened at the lessons: they link to the glossary in docs.
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.parent}"]
    command += [f"--LabApp.default_url=/lab/tree/{folder.name}"]
    command += ["--no-browser"] if options.no_browser else []
    command += [] if options.port is None else ["--port", str(options.port)]
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # JupyterLab has got it too: it asks before it ends
            continue


def notebooks(*places: Path) -> Path:
    """The folder of the lessons below the first of some folders that is a checkout of this project.

    Raises:
        UserError: none is.
    """
    for place in places:
        if next((place / "notebooks").glob("00_*.ipynb"), None) is not None and _is_ours(place / "pyproject.toml"):
            return place / "notebooks"
    raise UserError(
        "lab: expected the repository's folder notebooks beside the package or here, got none; clone the repository "
        "and run rsepm-edu lab in it"
    )


def _is_ours(project: Path) -> bool:
    try:
        return bool(tomllib.loads(project.read_text("utf-8"))["project"]["name"] == "rsepm-edu")
    except (OSError, ValueError, KeyError, TypeError):
        return False
