"""Explorers that move on the site: every state is drawn while the site is built, by the lesson's own code."""

import base64
import io
import json
import re
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from docs.lesson_code import WIDGET, explorer_of

ROOT = Path(__file__).parents[1]
SEEN = 24
"""Of 256: a smaller difference of a colour is not seen."""


def draw(page: str, folder: Path) -> None:
    """Draw an explorer's states: tiles as WebP, and what belongs together in `frames.json`.

    Args:
        page: name of a notebook without its ending.
        folder: for the files.

    Raises:
        ValueError: the explorer is not the one of which the notebook keeps a still.
    """
    import torch  # not before a process needs it

    from rsepm_edu.viz.explorers.frames import frames

    torch.set_num_threads(1)
    notebook = json.loads((ROOT / "notebooks" / f"{page}.ipynb").read_text(encoding="utf-8"))
    explorer = explorer_of(notebook)
    _expect_still(page, notebook, explorer)
    made = frames(explorer)
    folder.mkdir(parents=True, exist_ok=True)
    files = list[dict[str, Any]]()
    for tile in made.tiles:
        with Image.open(io.BytesIO(tile)) as image:
            packed = webp(image.convert("RGB"))
            name = f"{sha256(packed).hexdigest()[:16]}.webp"
            files.append({"file": name, "size": image.size})
        (folder / name).write_bytes(packed)
    told = {**made._asdict(), "controls": [control._asdict() for control in made.controls], "tiles": files}
    (folder / "frames.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


def webp(image: Image.Image) -> bytes:
    """A tile in few bytes: as a photograph, or with sharp lines where that takes no more."""
    pixels = np.asarray(image)
    ground = (pixels == pixels[0, -1]).all(axis=2).mean()
    if ground > 0.5 and image.getcolors(256) is None:
        image = image.quantize(64, dither=Image.Dither.NONE).convert("RGB")
    packed = []
    for lossless in (False, True) if image.getcolors(256) is not None else (False,):
        buffer = io.BytesIO()
        image.save(buffer, format="WEBP", lossless=lossless, quality=30, method=4)
        packed.append(buffer.getvalue())
    return min(packed, key=len)


def html(page: str, folder: Path) -> str:
    """The explorer as a part of a page: its first state, which needs no script, and all others for the script."""
    made = json.loads((folder / "frames.json").read_text(encoding="utf-8"))
    _, shown, said = made["states"][made["start"]]
    figures = []
    for i, (tile, words) in enumerate(zip(shown, said, strict=True)):
        file, (width, height) = made["tiles"][tile].values()
        alt = escape(" ".join(re.sub("<[^>]*>", " ", made["words"][words]).split()))
        kind = ' class="chart"' if i in made["charts"] else ""
        figures.append(
            f'<figure{kind}><img src="../explorers/{page}/{file}" width="{width}" height="{height}" alt="{alt}">'
            f"<figcaption>{made['words'][words]}</figcaption></figure>"
        )
    still = f", and {', '.join(made['still'])} too" if made["still"] else ""
    told = {
        "controls": made["controls"],
        "states": made["states"],
        "tiles": [f"../explorers/{page}/{tile['file']}" for tile in made["tiles"]],
        "words": made["words"],
        "start": made["start"],
    }
    data = json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<div class="explorer tiles-{len(figures)}">\n<div class="explorer-tiles">{"".join(figures)}</div>\n'
        f'<p class="explorer-note">Some positions, drawn beforehand; JupyterLab and Colab have all{still}.</p>\n'
        f'<script type="application/json">{data}</script>\n</div>'
    )


def _expect_still(page: str, notebook: dict[str, Any], explorer: Any) -> None:
    """That the explorer is the one in the notebook: it says the same, and looks the same but for rounding."""
    outputs = [output["data"] for cell in notebook["cells"] for output in cell.get("outputs", []) if "data" in output]
    [stored] = [data for data in outputs if WIDGET in data]
    said, now = "".join(stored["text/plain"]), repr(explorer)
    pictures = [
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int16)
        for png in (base64.b64decode(stored["image/png"]), explorer.png())
    ]
    differs = said != now or pictures[0].shape != pictures[1].shape
    if differs or (np.abs(pictures[0] - pictures[1]) > SEEN).any(axis=2).mean() > 0.01:
        raise ValueError(f"{page}: expected the explorer of which the notebook has a still, {said}; got another, {now}")
