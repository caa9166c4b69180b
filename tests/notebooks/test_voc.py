"""Every lesson on photographs: the switch of its first cell, with a network that was trained on them.

    rsepm-edu train --preset voc-sample-cpu --root VOC2012 --out runs/voc --set split=train
    RSEPM_EDU_VOC=VOC2012 RSEPM_EDU_VOC_NETWORK=runs/voc/last.pt make voc-lessons

Long on a CPU (lesson 09 trains), so it is not part of `make test`.
"""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SWITCH = 'dataset="creatures"'

NAMED = ("RSEPM_EDU_VOC", "RSEPM_EDU_VOC_NETWORK")

pytestmark = [
    pytest.mark.voc,
    pytest.mark.skipif(not all(map(os.environ.get, NAMED)), reason=f"{' and '.join(NAMED)} are not both set"),
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_runs_on_photographs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMED:
        monkeypatch.setenv(name, str(Path(os.environ[name]).resolve()))  # the lesson runs in another folder
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.source.count(SWITCH) == 1
    first.source = first.source.replace(SWITCH, 'dataset="voc"')
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=None, resources=where, allow_errors=True).execute()
    failed = [
        f"cell {number}: {output.ename}: {output.evalue}"
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert not failed, "\n".join(failed)
