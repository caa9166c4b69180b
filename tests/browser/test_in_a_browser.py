"""In a real Chromium: a lesson runs in JupyterLab and its explorer answers; the pages of the site show their figures.

Skipped where no Chromium is found; RSEPM_EDU_CHROMIUM names one that has another name. `make browser` builds the site
first. Nothing here waits for a time, only for what is to happen, at most LONG.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
LESSON = "04_pamr"
NOTEBOOK = ROOT / "notebooks" / f"{LESSON}.ipynb"
LONG = 600_000
"""Milliseconds: a whole lesson on a slow and busy machine."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = ("no-first-run", "disable-background-networking", "disable-sync", "disable-component-update", "disable-quic")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = [os.environ["RSEPM_EDU_CHROMIUM"]] if "RSEPM_EDU_CHROMIUM" in os.environ else NAMES
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no Chromium: none of {', '.join(names)} is installed")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path, args=[f"--{flag}" for flag in QUIET], chromium_sandbox=False, timeout=LONG
        )
        yield launched
        launched.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab of our own: no settings of the user's, a copy of the lesson without outputs."""
    lesson = nbformat.read(NOTEBOOK, as_version=4)
    for cell in lesson.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    (tmp_path / "lessons").mkdir()
    nbformat.write(lesson, tmp_path / "lessons" / f"{LESSON}.ipynb")
    settings = tmp_path / "settings" / "@jupyterlab"
    for plugin, values in {
        "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are in the page too
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        (settings / plugin).parent.mkdir(parents=True)
        (settings / f"{plugin}.jupyterlab-settings").write_text(json.dumps(values))
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        environment[f"JUPYTER_{name}"] = str(tmp_path / name.lower())
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(tmp_path / "settings")
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(tmp_path / "workspaces")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += [f"--ServerApp.root_dir={tmp_path / 'lessons'}", "--LabApp.extension_manager=readonly"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        lines: Queue[str] = Queue()
        assert server.stderr is not None
        reader = threading.Thread(target=_read, args=(server.stderr, lines), daemon=True)
        reader.start()
        seen = []
        try:
            while True:
                seen.append(lines.get(timeout=LONG / 1000))
                assert seen[-1], "".join(["JupyterLab ended:\n", *seen])
                address = next((word for word in seen[-1].split() if word.startswith("http://127.0.0.1")), None)
                if address is not None:
                    break
            yield address
        finally:
            server.terminate()
            server.wait(timeout=LONG / 1000)
            reader.join()


def _read(stream: Iterator[str], lines: "Queue[str]") -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def show(cell: Locator) -> None:
    """Bring a cell into view; JupyterLab may leave it empty until then."""
    cell.evaluate("cell => cell.scrollIntoView()")


PICTURES = ".widget-image, img.jupyter-widgets"
BYTES = """async selector => {
    let all = "";
    for (const image of document.querySelectorAll(selector)) {
        await image.decode();
        if (image.naturalWidth === 0) return "";
        all += Array.from(new Uint8Array(await (await fetch(image.src)).arrayBuffer())).join();
    }
    return all;
}"""


def pictures(page: Page) -> str:
    """The bytes of the explorer's pictures, as text; none while the browser has not decoded one."""
    return str(page.evaluate(BYTES, PICTURES))


def places(cell: Locator) -> list[dict[str, float]]:
    """Where the explorer's pictures stand, left to right and down."""
    script = "images => images.map(i => i.getBoundingClientRect()).map(r => ({x: r.x, y: r.y, width: r.width}))"
    found: list[dict[str, float]] = cell.locator(PICTURES).evaluate_all(script)
    return found


def test_a_lesson_runs_in_jupyterlab_and_its_slider_moves_the_picture(browser: Browser, lab: str) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(LONG)
    page.goto(lab.replace("/lab?", f"/lab/tree/{LESSON}.ipynb?"))
    code = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    [explorer_at] = [i for i, cell in enumerate(code) if "pamr_explorer(" in cell.source]
    # A folded cell shows no number: solutions, and what measures an answer.
    last = max(i for i, cell in enumerate(code) if not cell.metadata.get("jupyter", {}).get("source_hidden"))
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    expect(cells).to_have_count(len(code), timeout=LONG)
    expect(page.locator("#jp-main-statusbar")).to_contain_text(re.compile(r"Python 3.*\| Idle"), timeout=LONG)
    page.get_by_role("menubar").get_by_text("Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    show(cells.nth(last))
    expect(cells.nth(last).locator(".jp-InputPrompt")).to_have_text(f"[{last + 1}]:", timeout=LONG)
    assert page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]').count() == 0
    show(cells.nth(explorer_at))
    slider = cells.nth(explorer_at).locator(".widget-slider").filter(has_text="iterations")
    expect(slider).to_be_visible(timeout=LONG)
    before, reading = pictures(page), slider.locator(".widget-readout").inner_text()
    assert before
    handle = slider.locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    expect(slider.locator(".widget-readout")).to_have_text(str(int(reading) + 1), timeout=LONG)
    page.wait_for_function(
        f"async ([before, selector]) => await ({BYTES})(selector) !== before", arg=[before, PICTURES]
    )
    assert pictures(page)
    wide = places(cells.nth(explorer_at))
    assert len({place["y"] for place in wide}) == 1 and min(place["width"] for place in wide) > 200, wide
    page.set_viewport_size({"width": 1000, "height": 1000})  # a small window leaves every slider its track
    tracks = cells.nth(explorer_at).locator(".noUi-target").all()
    widths = [track.evaluate("track => track.getBoundingClientRect().width") for track in tracks]
    assert widths and min(widths) > 150, widths
    page.set_viewport_size({"width": 390, "height": 844})
    page.keyboard.press("Control+b")  # without the side bar, as on a phone
    lines = "new Set([...document.querySelectorAll(selector)].map(image => image.getBoundingClientRect().y)).size"
    page.wait_for_function(f"selector => {lines} === 2", arg=PICTURES)  # two tiles a row
    page.close()


LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_the_pages_of_the_lessons_show_their_figures(browser: Browser, width: int) -> None:
    if not (SITE / "index.html").is_file():
        pytest.skip("the site is not built: make site")
    context = browser.new_context(viewport={"width": width, "height": 844}, offline=True)
    page = context.new_page()
    page.set_default_timeout(LONG)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for lesson in LESSONS:
        page.goto((SITE / "notebooks" / f"{lesson}.html").as_uri())
        pictures = page.locator("article .cell_output img")
        widths = pictures.evaluate_all("images => images.map(image => image.naturalWidth)")
        assert len(widths) >= 3 and min(widths) > 0, lesson
        assert min(map(len, pictures.evaluate_all("images => images.map(image => image.alt)"))) >= len("image"), lesson
        first = page.locator("article img").first.bounding_box()
        assert first is not None and first["y"] < 844, lesson  # a picture on the first screen
        assert page.locator("article details").count() > 0, lesson
        assert page.locator("article details[open]").count() == 0, lesson  # answers and solutions are folded
        assert page.evaluate("document.documentElement.scrollWidth") <= width, lesson  # nothing sticks out
        drawings = page.locator('article .cell_output img[src^="data:image/svg"]')
        alts = drawings.evaluate_all("images => images.map(image => image.alt)")
        assert len(alts) >= 2 and min(map(len, alts)) > 80, lesson
        option = page.locator("section#quiz details").first
        reason = option.get_by_text(re.compile(r"^(Right|No)\.$"))
        expect(reason).to_be_hidden()
        option.locator("summary").click()
        expect(reason).to_be_visible()
    pictures.first.click()
    expect(page.locator("dialog.enlarged img")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog.enlarged")).to_be_hidden()
    page.goto((SITE / "index.html").as_uri())
    page.wait_for_url("**/docs/index.html")
    expect(page.locator(".lesson-card")).to_have_count(len(LESSONS))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def test_explorers_of_the_site_move_without_a_kernel(browser: Browser) -> None:
    if not (SITE / "index.html").is_file():
        pytest.skip("the site is not built: make site")
    context = browser.new_context(viewport={"width": 1280, "height": 844}, offline=True)
    page = context.new_page()
    page.set_default_timeout(LONG)
    for lesson in LESSONS:
        page.goto((SITE / "notebooks" / f"{lesson}.html").as_uri())
        explorer = page.locator(".explorer")
        expect(explorer).to_have_count(1)
        for control in explorer.locator("input, select").all():
            if control.is_disabled():
                continue
            if control.evaluate("control => control.tagName === 'SELECT'"):
                control.select_option(index=control.evaluate("control => control.selectedIndex === 0 ? 1 : 0"))
            else:
                last = control.evaluate("control => control.value === control.max")
                control.press("ArrowLeft" if last else "ArrowRight")
        words, tiles = explorer.locator("figcaption").all_inner_texts(), _sources(explorer)
        assert explorer.locator("img").evaluate_all(LOADED), lesson
        page.reload()  # as it began
        assert _sources(explorer) != tiles, lesson
        if len(words) > 1:  # what a chart alone says stands in its drawing
            assert explorer.locator("figcaption").all_inner_texts() != words, lesson
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto((SITE / "notebooks" / f"{LESSON}.html").as_uri())
    tops = page.locator(".explorer img").evaluate_all("images => images.map(i => i.getBoundingClientRect().y)")
    assert len(tops) == 4 and len(set(tops)) == 2, tops  # two tiles a row on a phone
    page.goto((SITE / "notebooks" / "05_fp_fn_plane.html").as_uri())
    chart, tile, _ = page.locator(".explorer img").evaluate_all("images => images.map(i => i.width)")
    assert chart > 300 > tile > 150, (chart, tile)  # a chart has digits to read
    context.close()


def test_without_scripts_an_explorer_of_the_site_is_its_still(browser: Browser) -> None:
    if not (SITE / "index.html").is_file():
        pytest.skip("the site is not built: make site")
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((SITE / "notebooks" / f"{LESSON}.html").as_uri())
    explorer = page.locator(".explorer")
    expect(explorer.locator("input, select")).to_have_count(0)
    expect(explorer.locator("figcaption")).to_have_count(4)
    expect(explorer.locator("figcaption").last).to_contain_text("IoU")
    boxes = [image.bounding_box() for image in explorer.locator("img").all()]
    assert all(box is not None and box["width"] > 100 and box["height"] > 100 for box in boxes), boxes
    context.close()


LOADED = "async images => { await Promise.all(images.map(i => i.decode())); return images.every(i => i.naturalWidth) }"


def _sources(explorer: Locator) -> list[str]:
    found: list[str] = explorer.locator("img").evaluate_all("images => images.map(image => image.src)")
    return found
