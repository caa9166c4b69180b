"""The first cell of a lesson finds the package beside the notebook, or gets it, or says in one line why it cannot."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "04_pamr.ipynb"
# In the kernel's own shell, of which the package is hidden; pip notes what it was asked for and cannot reach it.
RUN = """
import sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
sys.path = [p for p in sys.path if not (Path(p or ".") / "rsepm_edu").is_dir()]
sys.meta_path = [f for f in sys.meta_path if "editable" not in f"{f!r} {getattr(f, '__module__', '')}"]
shell = InteractiveShell.instance(colors="NoColor", history_length=0)
shell.register_magic_function(lambda line: print("pip", line), magic_name="pip")
done = shell.run_cell(CELL)
print("OUTCOME", type(done.error_in_exec).__name__, done.error_in_exec)
"""


@pytest.fixture
def first_cell(tmp_path):
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    source = next(cell.source for cell in cells if cell.cell_type == "code")
    (tmp_path / "notebooks").mkdir()

    def run():
        code = RUN.replace("CELL", json.dumps(source))
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path / "notebooks",
            env={"IPYTHONDIR": str(tmp_path / "settings"), "HOME": str(tmp_path), "PATH": ""},
            capture_output=True,
            text=True,
        )
        return done.stdout

    return run


def test_in_an_unpacked_zip_the_package_beside_it_is_taken(first_cell, tmp_path):
    (tmp_path / "rsepm_edu" / "course").mkdir(parents=True)
    (tmp_path / "rsepm_edu" / "course" / "start.py").write_text("def start(*a, **b): print('started', a, b)\n")
    said = first_cell()
    assert "started ('04',) {'dataset': 'creatures'}" in said
    assert "pip" not in said and "OUTCOME NoneType" in said


def test_where_nothing_can_be_reached_it_says_so_in_one_line(first_cell):
    said = first_cell()
    assert "pip install -qqq git+https://github.com/rsepm-edu/rsepm-edu" in said
    outcome = said.split("OUTCOME ")[1]
    assert outcome.startswith(
        "SystemExit rsepm_edu is missing, and https://github.com/rsepm-edu/rsepm-edu could not be"
    )
    assert outcome.count("\n") == 1
    assert "Traceback" not in said
