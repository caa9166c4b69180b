"""The course's drawings, shown in a lesson: the method, its networks, and a lesson's data flow.

The files are made by ``data_scripts/make_drawings.py``.
"""

import base64
import difflib
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rsepm_edu.errors import UserError

FOLDER = Path(__file__).parent / "drawings"


class Drawing:
    """A drawing as the result of a cell: JupyterLab, Colab and the site show it without a network or a kernel.

    Args:
        svg: the file's text, with a title and a description.
    """

    def __init__(self, svg: str) -> None:
        self.svg = svg
        texts = {element.tag.rpartition("}")[2]: element.text or "" for element in ElementTree.fromstring(svg)}
        self.alt = f"{texts['title']}. {texts['desc']}"

    def __repr__(self) -> str:
        return f"Drawing: {self.alt}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """As a picture within HTML, which every reader of notebooks allows; plain SVG some do not show."""
        data = base64.b64encode(self.svg.encode()).decode()
        source = f"data:image/svg+xml;base64,{data}"
        html = f'<img src="{source}" alt="{escape(self.alt)}" style="max-width: 100%">'
        return {"text/html": html, "text/plain": repr(self)}


def show_drawing(name: str) -> Drawing:
    """A drawing by its name.

    Args:
        name: "method"; "here_06", the method with the place of a lesson; "network_decoder" and the like; "flow_06", the
            data flow of a lesson's example.

    Raises:
        UserError: there is none of that name.
    """
    path = FOLDER / f"{name}.svg"
    if not path.is_file():
        close = difflib.get_close_matches(name, [each.stem for each in FOLDER.glob("*.svg")])
        raise UserError(f"drawing: expected the name of one, such as {', '.join(close or ['method'])}; got {name!r}")
    return Drawing(path.read_text(encoding="utf-8"))
