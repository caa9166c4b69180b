"""The numbers that lesson 12 reads: this project's own tables, and those of the papers, kept well apart.

Our tables lie in `results/` of the repository. A package that was installed without the repository (on Colab, say) has
a copy of every `table.json` in `numbers/`; a test holds the copies to the originals, `data_scripts/publish_results.py`
makes them anew.
"""

import csv
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from rsepm_edu.evaluation.tables import Row, read_rows

_NUMBERS = files("rsepm_edu.course") / "numbers"


@dataclass(frozen=True)
class Published:
    """One number from a paper: never ours, never to be shown as ours.

    paper, table: where it stands. split: the pictures it was measured on. supervision: I image tags, S saliency maps
    too. measure: what was measured; mIoU and F1 in percent, FP and FN as fractions.
    """

    paper: str
    table: str
    split: str
    method: str
    backbone: str
    supervision: str
    measure: str
    value: float


def read_published() -> list[Published]:
    """What the authors of Puzzle-CAM, RecurSeed + EdgePredictMix and MARS report, on PASCAL VOC 2012 or COCO 2014."""
    lines = (_NUMBERS / "published.csv").read_text("utf-8").splitlines()
    return [Published(value=float(line.pop("value")), **line) for line in csv.DictReader(lines)]


def read_tables(folder: Path | None = None) -> dict[str, list[Row]]:
    """Every table of `results/` by the name of its folder.

    Args:
        folder: where they lie; None: the `results` beside the package, if this is the repository, else the copies in
            the package.

    Raises:
        UserError: a table that cannot be read.
    """
    results = Path(__file__).parents[2] / "results" if folder is None else folder
    paths = {path.parent.name: path for path in sorted(results.glob("*/table.json"))}
    if paths:
        return {name: read_rows(path) for name, path in paths.items()}
    with as_file(_NUMBERS) as copies:
        return {path.stem: read_rows(path) for path in sorted(copies.glob("*.json"))}
