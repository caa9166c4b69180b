import ast
import base64
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from rsepm_edu.course.drawing import FOLDER, show_drawing
from rsepm_edu.errors import UserError
from rsepm_edu.models.affinity import BoundaryNetwork
from rsepm_edu.training.checkpoint import network_from_config
from rsepm_edu.training.config import preset

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(FOLDER.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", autouse=True)
def scripts():
    sys.path.insert(0, str(ROOT / "data_scripts"))
    yield
    sys.path.remove(str(ROOT / "data_scripts"))


def texts(name):
    """What a reader sees, line by line in the order of the file."""
    root = ElementTree.fromstring((FOLDER / f"{name}.svg").read_text(encoding="utf-8"))
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def in_order(wanted, found):
    rest = iter(found)
    return all(any(want == have for have in rest) for want in wanted)


# every file


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_drawing_can_be_read_by_everybody(path):
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.attrib["role"] == "img"
    assert root.find(f"{SVG}title").text and len(root.find(f"{SVG}desc").text) > 80
    assert "prefers-color-scheme:dark" in text
    assert float(root.attrib["width"]) <= 540  # on a phone, 358 wide, letters of 15 are still 10
    assert min(map(float, re.findall(r"font-size:(\d+)px", text))) >= 15
    assert not re.search(r"(?:href|src|url\()", text)  # nothing is loaded


def test_the_drawings_are_those_that_the_script_makes():
    from make_drawings import drawings

    assert drawings() == {path.name: path.read_text(encoding="utf-8") for path in FILES}


def test_every_lesson_has_its_place_and_its_flow():
    numbers = [path.stem[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    for kind in ("here", "flow"):
        assert [path.stem[-2:] for path in FILES if path.stem.startswith(kind)] == numbers


# shapes


@pytest.fixture(scope="module")
def network():
    return network_from_config(preset("creatures-cpu"), tuple("abcde")).eval()


@torch.no_grad()
def stages(network):
    return network.backbone(torch.zeros(1, 3, 96, 96))


def shape(tensor):
    return "×".join(map(str, tensor.shape[1:]))


def test_shapes_of_the_backbone_are_those_of_the_network(network):
    assert in_order(["3×96×96", *map(shape, stages(network))], texts("network_backbone"))


@torch.no_grad()
def test_shapes_of_both_heads_are_those_of_the_network(network):
    low, *_, high = stages(network)
    outputs = network(torch.zeros(1, 3, 96, 96))
    kinds, channels = network.classifier.weight.shape[:2]
    wanted = [
        f"features of stage 5: {shape(high)}",
        f"1×1 convolution, {kinds}×{channels} weights, no bias",
        f"CAM, raw scores: {shape(outputs.cam)}",
        f"tag scores: {outputs.tag_logits.shape[1]}",
    ]
    assert in_order(wanted, texts("network_cam_head"))
    context, fine = network.decoder.aspp(high), network.decoder.low(low)
    wanted = [
        f"stage 5: {shape(high)}",
        *(f"3×3, {branch[0].dilation[0]}" for branch in list(network.decoder.aspp.branches)[1:]),
        f"1×1, joined: {shape(context)}",
        f"1×1: {shape(fine)}",
        f"side by side: {context.shape[1] + fine.shape[1]}×{fine.shape[2]}×{fine.shape[3]}",
        f"1×1 convolution: {shape(outputs.seg_logits)}",
    ]
    assert in_order(wanted, texts("network_decoder"))


@torch.no_grad()
def test_shapes_of_the_boundary_branch_are_those_of_the_network(network):
    branch = BoundaryNetwork(network.backbone).eval()
    parts = [part(stage) for part, stage in zip(branch.branches, branch.stages(torch.zeros(1, 3, 96, 96)), strict=True)]
    edge = branch(torch.zeros(1, 3, 96, 96))
    joined = f"side by side: {branch.join.in_channels}×{edge.shape[2]}×{edge.shape[3]}"
    found = texts("network_boundary")
    assert in_order([*map(shape, parts), joined, f"sigmoid: edge map, {shape(edge)}"], found)


# numbers


def assigned(lesson):
    """All tensors written down with numbers in a lesson, by name: the first of each name."""
    [path] = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
    found = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(line for line in cell["source"] if not line.lstrip().startswith("%"))
        if cell["cell_type"] != "code" or "%pip" in "".join(cell["source"]):
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign):
                target, value = node.targets[0], node.value
                pairs = zip(target.elts, value.elts, strict=False) if _tuples(target, value) else [(target, value)]
                for name, call in pairs:
                    numbers = _numbers(call)
                    if isinstance(name, ast.Name) and numbers is not None:
                        found.setdefault(name.id, numbers)
    return found


def _tuples(target, value):
    return isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)


def _numbers(call):
    if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.tensor"):
        return None
    try:
        return torch.tensor(ast.literal_eval(call.args[0])).float()
    except ValueError:
        return None


@pytest.mark.parametrize("lesson", [f"{n:02d}" for n in range(13)])
def test_a_flow_starts_from_the_numbers_of_its_lesson(lesson):
    from drawing_toys import INPUTS

    theirs = assigned(lesson)
    for name, numbers in INPUTS[lesson].items():
        assert torch.equal(numbers.float(), theirs[name]), name


EXPECTED = {
    # worked out with a pencil, as the lessons do
    "00": "5 0 2 1 3 0 0 1 3 3/6 2/6 1/6",
    "01": "7 2 −2 −2 1 2 4 7 1.25 3.5",
    "02": "4 2 0 −2 4 0 1 −2 0 2 1 0 0 0 0 0",
    "03": "1 0.6 0.36 0 0.6 1 0.6 0 0.36 0.6 1 0.8 0 0 0.8 1 1 0.6 1 0",
    "04": "0.9 0.8 0.6 0.4 0.2 0.1 0.85 0.75 0.78 0.22 0.25 0.15",
    "05": "0.8 0/3 2/3 1/3 0.5 1/4 1/4 2/4 0.2 2/5 0/5 3/5",
    "06": "1 1 ? ? 2 ? 0 0.9 0.5 0.1 1 0.75 0.25",
    "07": "1 1 ? 0 1 1 ? 0 ? ? ? 0 0 0 0 0 B B A A 0 0 ? 0 0 0 ? 0 0 ? 2 2 0 ? 2 2",
    "08": "A A A ? ? ? ? ? g g g g 1 1 1 1 1 | 2 2 2 2 2 2 A A A A A ? g g g g g g",
    "09": "4 8 6 10 7 2 5 5.5 7.75 7.375",
    "10": "1 3 2 4 1 3 2 4 5 10 7.5",
    "11": "1 1 0.2 0 0.2 1 0.2 0 0.2 1 1 1 1 0.5 0.45 0 0 0",
    "12": "60 66 63 62 67 65 2 1 2",
}


@pytest.mark.parametrize("lesson", EXPECTED)
def test_a_flow_ends_at_the_numbers_that_a_pencil_gives(lesson):
    assert in_order(EXPECTED[lesson].split(), texts(f"flow_{lesson}"))


# in a lesson


def test_a_drawing_is_shown_as_a_picture_with_a_text_in_its_place():
    shown = show_drawing("flow_01")._repr_mimebundle_()
    [data] = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', shown["text/html"])
    assert base64.b64decode(data).decode() == (FOLDER / "flow_01.svg").read_text(encoding="utf-8")
    assert 'alt="01: from features to a map and a score. Three features' in shown["text/html"]
    assert shown["text/plain"].startswith("Drawing: 01: from features")


def test_an_unknown_drawing_is_one_line_that_names_others():
    with pytest.raises(UserError, match=r"drawing: expected the name of one, such as .*flow_0.*; got 'flow_99'"):
        show_drawing("flow_99")
