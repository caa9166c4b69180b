"""Draw the picture that a notebook opens with: the lesson's data flow as PNG, in notebooks/sections.

In a text cell neither JupyterLab nor Colab shows an SVG that comes with the notebook; a PNG both do. Needs Chromium.
Afterwards: python data_scripts/put_sections.py
"""

import io
import os
import shutil
from hashlib import sha256
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import sync_playwright

from rsepm_edu.course.drawing import FOLDER

SECTIONS = Path(__file__).resolve().parents[1] / "notebooks" / "sections"
SOURCE = "Source"
"""Of the PNG's texts: the hash of its SVG."""


def source_of(lesson: str) -> str:
    """The hash of a lesson's data flow."""
    return sha256((FOLDER / f"flow_{lesson}.svg").read_bytes()).hexdigest()


def main() -> None:
    """All lessons whose drawing is another than that of the PNG."""
    chromium = os.environ.get("RSEPM_EDU_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        page = browser.new_page(device_scale_factor=2, color_scheme="light")
        for path in sorted(FOLDER.glob("flow_*.svg")):
            lesson = path.stem[-2:]
            target = SECTIONS / f"{lesson}.png"
            if target.is_file() and Image.open(target).info.get(SOURCE) == source_of(lesson):
                continue
            page.set_content(f"<style>body {{ margin: 0 }} svg {{ display: block }}</style>{path.read_text('utf-8')}")
            with Image.open(io.BytesIO(page.locator("svg").screenshot())) as image:
                info = PngInfo()
                info.add_text(SOURCE, source_of(lesson))
                image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(target, optimize=True, pnginfo=info)
            print(target.name, image.size, target.stat().st_size)
        browser.close()


if __name__ == "__main__":
    main()
