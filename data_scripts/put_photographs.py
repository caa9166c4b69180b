"""Put the pictures of the photographs into the lessons that show them, as they are in docs/pictures/photographs.

A text cell names them, ``<img src="attachment:dog_cam.webp" ...>``; the files travel in the cell, since a relative link
leads nowhere on Colab.
"""

import base64
import re
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures" / "photographs"
NAMED = re.compile(r'src="attachment:([a-z_]+\.webp)"')


def attach(notebook: Any) -> bool:
    """Give each cell the pictures that it names, and no others; whether it names any.

    Args:
        notebook: changed in place.
    """
    found = False
    for cell in notebook.cells:
        names = NAMED.findall(cell.source) if cell.cell_type == "markdown" else []
        if names:
            files = {name: (PICTURES / name).read_bytes() for name in names}
            cell.attachments = {name: {"image/webp": base64.b64encode(file).decode()} for name, file in files.items()}
            found = True
    return found


def main() -> None:
    """All lessons."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if attach(notebook):
            nbformat.write(notebook, path)
            print(path.name)


if __name__ == "__main__":
    main()
