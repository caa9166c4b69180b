"""The first use of every glossary word in a lesson is a link to it."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINK = re.compile(r"\]\(\.\./docs/glossary\.md#([\w-]+)\)")


def entries():
    """The anchors of the glossary."""
    page = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    return re.findall(r'^<a id="([\w-]+)"></a>\*\*', page, re.MULTILINE)


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "data_scripts"))
    import glossary_links

    yield glossary_links
    sys.path.remove(str(ROOT / "data_scripts"))


@pytest.fixture
def linked(script):
    """The text of a lesson of these cells, cell by cell, as it is linked."""

    def link(*texts):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text) for text in texts])
        script.link_first_uses(notebook)
        once = [cell.source for cell in notebook.cells]
        script.link_first_uses(notebook)
        assert [cell.source for cell in notebook.cells] == once
        return [text.replace("../docs/glossary.md", "") for text in once]

    return link


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_links_the_first_use_of_each_word_and_no_other(script, path):
    """Where not: python data_scripts/put_sections.py"""
    notebook = nbformat.read(path, as_version=4)
    stored = [cell.source for cell in notebook.cells]
    script.link_first_uses(notebook)
    assert [cell.source for cell in notebook.cells] == stored
    anchors = [anchor for text in stored for anchor in LINK.findall(text)]
    assert len(anchors) == len(set(anchors)) >= 8


def test_every_entry_of_the_glossary_has_its_word_and_every_word_its_entry(script):
    entries = re.findall(
        r'^<a id="([\w-]+)"></a>\*\*', (ROOT / "docs" / "glossary.md").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(entries) == sorted(script.WORDS)


def test_every_entry_is_linked_from_a_lesson():
    texts = [cell.source for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells]
    found = {anchor for text in texts for anchor in LINK.findall(text)}
    assert found == set(entries())


def test_the_first_plain_use_is_linked_and_later_links_go(linked):
    assert linked("a void here", "void, and [void](../docs/glossary.md#void)") == [
        "a [void](#void) here",
        "void, and void",
    ]


def test_headings_code_formulas_summaries_links_and_references_are_no_uses(linked):
    texts = (
        "## Void\n\n`void`, [void](void.md), $void_{i}$, <summary>void</summary>",
        "```\nvoid\n```",
        "## References\n\n- *Void*. 2020.\n\n## Next\n\nvoid",
    )
    assert linked(*texts) == [*texts[:2], texts[2][:-4] + "[void](#void)"]


def test_a_formula_may_be_a_word(linked):
    assert linked(r"$M_{rs}^2$, then $M_{rs}$, at θ₁ and θ") == [
        r"$M_{rs}^2$, then [$M_{rs}$](#m-rs), at θ₁ and [θ](#theta)"
    ]


def test_a_longer_word_is_not_its_parts(linked):
    [text] = linked("Puzzle-CAM, pseudo masks, mIoU, EdgePredictMix; CAM, mask, IoU, EdgePredict")
    assert LINK.findall(text.replace("](#", "](../docs/glossary.md#")) == [
        *("puzzle", "m-seg", "miou", "epm"),
        *("cam", "mask", "union", "ep"),
    ]


def test_a_link_by_hand_on_other_words_counts_where_it_comes_first(linked):
    by_hand = "it [sees](../docs/glossary.md#receptive-field) much; the receptive field"
    assert linked(by_hand) == ["it [sees](#receptive-field) much; the receptive field"]
    assert linked("The receptive field", "it [sees](../docs/glossary.md#receptive-field)") == [
        "The [receptive field](#receptive-field)",
        "it sees",
    ]
