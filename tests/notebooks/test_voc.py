"""Every lesson on photographs: the switch of its first cell, with a network that was trained on them.

    rsepm-edu train --preset voc-sample-cpu --root VOC2012 --out runs/voc --set split=train
    RSEPM_EDU_VOC=VOC2012 RSEPM_EDU_VOC_NETWORK=runs/voc/last.pt make voc-lessons

Long on a CPU (lesson 09 trains on all of `train`), so it is not part of `make test`. Lesson 10 trains a small network
for two epochs here, in the place of `voc-t4`. The lessons as they ran lie in pytest's temporary folder.
"""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SWITCH = 'dataset="creatures"'

NAMED = ("RSEPM_EDU_VOC", "RSEPM_EDU_VOC_NETWORK")

# Lesson 10: hours on a GPU, days without one. And what takes their place here.
FULL_SIZE = '"val", preset("voc-t4")'
SMALL = '"train", preset("voc-sample-cpu", weights="none", size=96, split="train", epochs=2, rs_start=0, mix_start=1)'

pytestmark = [
    pytest.mark.voc,
    pytest.mark.skipif(not all(map(os.environ.get, NAMED)), reason=f"{' and '.join(NAMED)} are not both set"),
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_runs_on_photographs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMED, "RSEPM_EDU_VOC_PUZZLE"):
        if os.environ.get(name):
            monkeypatch.setenv(name, str(Path(os.environ[name]).resolve()))  # the lesson runs in another folder
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.source.count(SWITCH) == 1
    first.source = first.source.replace(SWITCH, 'dataset="voc"')
    if path.stem == "10_voc_on_a_gpu":
        long = next(cell for cell in notebook.cells if FULL_SIZE in cell.source)
        long.source = long.source.replace(FULL_SIZE, SMALL)
    where = {"metadata": {"path": str(tmp_path)}}  # lesson 10 leaves its run beside it
    NotebookClient(notebook, timeout=None, resources=where, allow_errors=True).execute()
    nbformat.write(notebook, tmp_path / path.name)
    failed = [
        f"cell {number}: {output.ename}: {output.evalue}"
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert not failed, "\n".join(failed)
