"""Photographs: who may use them, and that every page shows the pictures that are there."""

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import torch
from PIL import Image

from docs.lessons import lessons, page_of
from rsepm_edu.data.voc import VOC_CLASSES
from rsepm_edu.errors import UserError
from rsepm_edu.training.checkpoint import Checkpoint, network_from_config, save_checkpoint
from rsepm_edu.training.config import preset

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = sorted((ROOT / "docs" / "photographs").glob("*.jpg"))
PICTURES = sorted((ROOT / "docs" / "pictures" / "photographs").iterdir())
LICENCES = (ROOT / "docs" / "photographs" / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+\.jpg)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
SHOWING = ["00_problem", "01_cam", "06_recurseed", "08_edgepredictmix", "10_voc_on_a_gpu"]


class Images(HTMLParser):
    """The photographs' pictures on a page: file name, then alt text."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "img" and values["src"].endswith(".webp"):
            assert values["width"] == "175"  # two in a row on a phone, four on a page
            self.found.append((re.split("[/:]", values["src"])[-1], values["alt"]))


def text_of(page):
    path = ROOT / page
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(ROOT / "data_scripts"))
    import draw_photographs
    import put_photographs

    yield draw_photographs, put_photographs
    sys.path.remove(str(ROOT / "data_scripts"))


def test_each_photograph_has_an_author_a_source_and_a_licence_that_asks_for_nothing():
    rows = ROW.findall(LICENCES)
    assert sorted(row[0] for row in rows) == [path.name for path in PHOTOGRAPHS]
    for name, _, author, source, licence, words in rows:
        assert licence in ("CC0 1.0", "public domain"), name
        assert ("CC0" in words or "Creative Commons Zero" in words) if licence == "CC0 1.0" else licence in words
        assert author.strip() and re.search(r"\d+\.\d+\.\d+", source), name


def test_photographs_are_small():
    assert sum(path.stat().st_size for path in PHOTOGRAPHS) <= 250_000
    for path in PHOTOGRAPHS:
        with Image.open(path) as image:
            assert max(image.size) <= 400, path


def test_every_photograph_is_drawn_whole(scripts):
    draw, _ = scripts
    assert [f"{name}.jpg" for name in sorted(draw.TAGS)] == [path.name for path in PHOTOGRAPHS]
    assert {path.name for path in PICTURES} == {f"{name}_{kind}.webp" for name in draw.TAGS for kind in draw.HEADINGS}
    assert sum(path.stat().st_size for path in PICTURES) <= 400_000


def test_all_are_on_their_page_good_and_bad(scripts):
    draw, _ = scripts
    shown = [name for name, _ in Images(text_of("docs/photographs.md")).found]
    assert shown == [f"{name}_{kind}.webp" for name in draw.TAGS for kind in draw.HEADINGS]


@pytest.mark.parametrize("page", ["README.md", *(f"notebooks/{name}.ipynb" for name in SHOWING)])
def test_other_pages_show_the_first_ones_and_say_the_same_of_them(page, scripts):
    draw, _ = scripts
    shown = Images(text_of(page)).found
    assert shown and set(shown) <= set(Images(text_of("docs/photographs.md")).found)
    names = list(dict.fromkeys(name.split("_")[0] for name, _ in shown))
    assert names == list(draw.TAGS)[: len(names)]  # no photograph is passed over
    assert "photographs.md" in text_of(page)


def test_alt_texts_say_what_is_seen():
    texts = [alt for _, alt in Images(text_of("docs/photographs.md")).found]
    assert all(len(alt.split()) >= 4 and alt.endswith(".") for alt in texts)
    assert len(set(texts)) > 0.9 * len(texts)


@pytest.mark.parametrize("name", SHOWING)
def test_a_lesson_carries_the_pictures_that_it_names(name, scripts):
    """Where not: python data_scripts/put_photographs.py"""
    _, put = scripts
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    [cell] = [cell for cell in notebook.cells if cell.cell_type == "markdown" and ".webp" in cell.source]
    assert set(cell.attachments) == set(put.NAMED.findall(cell.source))
    for file, data in cell.attachments.items():
        stored = (ROOT / "docs" / "pictures" / "photographs" / file).read_bytes()
        assert data == {"image/webp": base64.b64encode(stored).decode()}, file


def test_pictures_are_attached_where_they_are_named_and_nowhere_else(scripts):
    _, put = scripts
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("none", '<img src="attachment:dog_cam.webp">')]
    cells[1].attachments = {"old.webp": {"image/webp": ""}}
    cells.append(nbformat.v4.new_markdown_cell("a drawing", attachments={"flow.png": {"image/png": ""}}))
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert put.attach(notebook)
    assert [list(cell.get("attachments", {})) for cell in notebook.cells] == [[], ["dog_cam.webp"], ["flow.png"]]
    assert not put.attach(nbformat.v4.new_notebook(cells=cells[:1]))


def test_the_site_shows_the_files_and_not_the_copies_in_cells():
    [lesson] = [lesson for lesson in lessons() if lesson.number == "01"]
    cells = json.loads(page_of(lesson, json.dumps(lesson.notebook), "https://example.org"))["cells"]
    assert not any("attachments" in cell for cell in cells)
    [cell] = [cell for cell in cells if ".webp" in cell["source"]]
    sources = re.findall(r'src="([^"]+)"', cell["source"])
    assert sources and all((ROOT / "notebooks" / source).is_file() for source in sources)


# the drawing itself


def test_a_mask_keeps_its_colours_has_an_outline_and_leaves_the_rest_dark(scripts):
    draw, _ = scripts
    image = torch.full((3, 20, 20), 200, dtype=torch.uint8)
    mask = torch.zeros(20, 20, dtype=torch.int64)
    mask[5:15, 5:15] = 12
    shown = draw.cut_out(image, mask)
    assert shown.getpixel((0, 0)) == (80, 80, 80)
    assert shown.getpixel((4, 10)) == shown.getpixel((10, 15)) == (255, 255, 255)
    red, green, blue = shown.getpixel((10, 10))
    assert blue > red > green  # VOC's dog: (64, 0, 128)


@pytest.mark.parametrize("size", [(384, 384), (384, 187), (100, 200)])
def test_pictures_are_of_one_width_and_keep_their_shape(size, scripts):
    draw, _ = scripts
    headed = draw.headed(Image.new("RGB", size, "white"), "CAM after RecurSeed")
    assert headed.width == draw.WIDE
    assert abs((headed.height - draw.BAR) / headed.width - size[1] / size[0]) < 0.01
    bar = headed.crop((0, 0, draw.WIDE, draw.BAR)).convert("L").point(lambda value: 255 * (value > 128))
    left, _, right, _ = bar.getbbox()
    assert 0 < left < right < draw.WIDE - 4  # the whole heading


def saved(path, method, classes):
    config = preset("creatures-cpu", method=method, epochs=1, rs_start=0, mix_start=1, weights="none")
    torch.manual_seed(0)
    weights = network_from_config(config, classes).state_dict()
    save_checkpoint(path, Checkpoint(config, classes, 1, weights, weights, {}, {}))
    return path


def test_three_networks_draw_a_photograph(scripts, tmp_path):
    draw, _ = scripts
    paths = [saved(tmp_path / f"{method}.pt", method, VOC_CLASSES) for method in ("cam", "rs")]
    networks = draw.load(paths[0], paths[1], paths[1])
    image = (torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0)) * 255).byte()
    shown = draw.drawn(networks, image, "sheep")
    assert list(shown) == list(draw.HEADINGS)
    assert all(each.size == (48, 40) for each in shown.values())
    assert shown["mask_rs"].tobytes() == shown["mask_rs_epm"].tobytes() != shown["cam"].tobytes()
    for label in (0, VOC_CLASSES.index("sheep") + 1):
        with torch.no_grad():  # nothing but that label, everywhere
            networks.rs.decoder.refine[-1].bias.fill_(-1e4)[label] = 1e4
        drawn = draw.drawn(networks, image, "sheep")["mask_rs"]
        assert drawn.tobytes() == draw.cut_out(image, torch.full((40, 48), label)).tobytes()


def test_a_network_of_other_classes_is_refused_in_one_line(scripts, tmp_path):
    draw, _ = scripts
    path = saved(tmp_path / "cam.pt", "cam", ("zebbo", "dotkin"))
    with pytest.raises(UserError, match=r"cam\.pt: expected VOC's classes, got zebbo, dotkin"):
        draw.load(path, path, path)
