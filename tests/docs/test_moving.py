"""The explorers of the site: what of a lesson is run for them, and what the page holds."""

import ast
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from docs import moving
from docs.lesson_code import needed
from docs.lessons import lessons

LESSON = """
import torch
from package import net, other
torch.manual_seed(0)
pictures = net.pictures()
slow = [train(p) for p in pictures]
seeds, counts = {}, {}
for p in pictures:
    seeds[p] = net(p)
for name in seeds:
    counts.update({name: 1})
    print(len(seeds))
def score(p):
    return seeds[p] + shift
shift = 1
shift = torch.ones(2)
lines = [f"{p}" for p in slow]
lines += ["end"]
show(score(pictures[0]))
"""


def test_of_a_lesson_only_what_the_last_line_needs_is_run():
    kept = [ast.unparse(line) for line in needed(ast.parse(LESSON).body)]
    assert kept == [
        "import torch",
        "from package import net, other",
        "torch.manual_seed(0)",
        "pictures = net.pictures()",
        "seeds, counts = ({}, {})",
        "for p in pictures:\n    seeds[p] = net(p)",
        "def score(p):\n    return seeds[p] + shift",
        "shift = torch.ones(2)",
        "show(score(pictures[0]))",
    ]


def test_a_loop_that_trains_is_needed_by_what_is_trained():
    kept = needed(ast.parse("net = make()\nfor x in data:\n    loss = net(x)\n    loss.backward()\nshow(net)").body)
    assert len(kept) == 3


def test_the_part_of_a_page_holds_the_first_state_and_all_others(tmp_path):
    """Of the lesson whose explorer needs no network."""
    [lesson] = [lesson for lesson in lessons() if lesson.number == "09"]
    moving.draw(lesson.page, tmp_path)
    html = moving.html(lesson.page, tmp_path)

    class Found(HTMLParser):
        images: list[dict] = []
        figures: list[str | None] = []
        data = ""

        def handle_starttag(self, tag, attrs):
            if tag == "img":
                self.images.append(dict(attrs))
            if tag == "figure":
                self.figures.append(dict(attrs).get("class"))

        def handle_data(self, data):
            self.data += data if data.startswith("{") else ""

    found = Found()
    found.feed(html)
    told = json.loads(found.data)
    assert [image["src"] for image in found.images] == [
        told["tiles"][tile] for tile in told["states"][told["start"]][1]
    ]
    assert all(len(image["alt"]) > 10 for image in found.images)
    assert found.figures == ["chart", "chart"]  # on a phone each has the whole width: it has digits
    assert {Path(address).name for address in told["tiles"]} == {path.name for path in tmp_path.glob("*.webp")}
    with Image.open(tmp_path / Path(told["tiles"][0]).name) as tile:
        assert tile.size == (int(found.images[0]["width"]), int(found.images[0]["height"]))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1.5e6


def test_another_explorer_than_that_of_the_still_ends_the_build(tmp_path, monkeypatch):
    from rsepm_edu.viz.explorers import average_explorer

    monkeypatch.setattr(moving, "explorer_of", lambda notebook: average_explorer(noise=0.5))
    [lesson] = [lesson for lesson in lessons() if lesson.number == "09"]
    with pytest.raises(ValueError, match="^09_single_stage: expected the explorer of which the notebook has a still"):
        moving.draw(lesson.page, tmp_path)
