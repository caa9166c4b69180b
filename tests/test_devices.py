"""Nothing may be left on the wrong side of a GPU: see on_a_pretended_gpu.py."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_whole_runs_on_a_pretended_gpu() -> None:
    """In a process of its own: to pretend a GPU has autograd start threads, after which no other test could fork."""
    tests = Path(__file__).with_name("on_a_pretended_gpu.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, cwd=tests.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    if " passed" not in done.stdout:
        pytest.skip("this torch cannot pretend a GPU")
