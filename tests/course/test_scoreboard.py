import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from rsepm_edu.course import scoreboard
from rsepm_edu.course.networks import CREATURES_CAM, CREATURES_RS
from rsepm_edu.course.scoreboard import LESSONS, Point, Scoreboard, full_runs, read_scoreboard, show_scoreboard
from rsepm_edu.course.scoreboard_plane import SIDE, Dot, plane_svg
from rsepm_edu.course.settings_card import CARD, SettingsCard
from rsepm_edu.data.creatures import CREATURES, FORMAT
from rsepm_edu.data.transforms import normalise
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.evaluation.scoring import seed_maps
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.evaluation.tables import Row
from rsepm_edu.models.network import build_network

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "rsepm_edu" / "course" / "checkpoints"
SVG = "{http://www.w3.org/2000/svg}"
SMALL = SettingsCard(
    split="train",
    pictures=4,
    options=SeedOptions(scales=(1.0,), mirror=False, scg_threshold=0.4, pamr_stride=4),
    steps=10,
)


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "data_scripts"))
    import make_scoreboard

    yield make_scoreboard
    sys.path.remove(str(ROOT / "data_scripts"))


# the numbers


def counted(predictions, masks, kinds):
    """FP, FN and mIoU of whole label maps, pixel by pixel as the definition says, without the package."""
    fp, fn, iou = [], [], []
    pairs = [pair for both in zip(predictions, masks, strict=True) for pair in zip(*both, strict=True)]
    pairs = [(p, t) for p, t in pairs if t != 255]
    for label in range(kinds + 1):
        right = sum(p == label and t == label for p, t in pairs)
        extra = sum(p == label and t != label for p, t in pairs)
        missed = sum(p != label and t == label for p, t in pairs)
        union = right + extra + missed
        if union:
            iou.append(right / union)
            if label:
                fp.append(extra / union)
                fn.append(missed / union)
    return tuple(round(sum(each) / len(each), 4) for each in (fp, fn, iou))


@pytest.fixture(scope="module")
def computed(script, creatures):
    torch.manual_seed(0)
    dataset = VocDataset(creatures, "train", masks=True).take(range(SMALL.pictures))
    cam = build_network("creatures", CREATURES, decoder_channels=8, decoder_rates=(1,), separable=True).eval()
    rs = build_network("creatures", CREATURES, decoder_channels=8, decoder_rates=(1,), separable=True).eval()
    cam.learnt = ("cam",)
    networks = {CREATURES_CAM: cam, CREATURES_RS: rs}
    return dataset, networks, script.points(dataset, networks, SMALL)


def test_every_point_is_what_counting_pixels_gives(script, computed):
    dataset, networks, points = computed
    masks = [sample["mask"].flatten().tolist() for sample in dataset]
    of_map = {(lesson, method): map_ for lesson, method, _, map_ in script.ADDED}
    for point in points:
        predictions = []
        for sample in dataset:
            if point.network is None:
                first = sample["tags"].tolist().index(1) + 1
                predictions.append([0 if point.method == "nothing" else first] * sample["mask"].numel())
                continue
            network = networks[point.network]
            options = replace(SMALL.options, decode="decoder" in network.learnt)
            image = normalise(sample["image"].as_subclass(torch.Tensor)[None])
            seeds, labels = seed_maps(network, image, sample["tags"][None], options)
            if point.threshold is None:
                predictions.append(labels[0].flatten().tolist())
            else:
                best, kind = seeds[of_map[point.lesson, point.method]][0].max(dim=0)
                predictions.append(torch.where(best > point.threshold, kind + 1, 0).flatten().tolist())
        assert (point.fp, point.fn, point.miou) == counted(predictions, masks, len(CREATURES)), point


def test_points_come_lesson_by_lesson_and_only_for_networks_that_are_there(computed):
    _, _, points = computed
    assert [point.lesson for point in points] == ["00", "00", "01", "03", "04", "05", "06", "06"]
    assert (points[0].fp, points[0].fn) == (0, 1)
    assert {point.threshold for point in points if point.choice == "oracle"} <= set(SMALL.thresholds)
    assert [point.choice for point in points] == ["none"] * 2 + ["oracle"] * 5 + ["none"]


def test_what_is_written_is_what_is_read(script, computed, tmp_path):
    _, _, points = computed
    stored = json.loads(json.dumps(script.as_json(SMALL, "creatures", points, [CREATURES_CAM])))
    assert scoreboard.from_json(stored) == (points, SMALL)


# the file of the course


def test_the_file_was_computed_from_the_networks_and_pictures_of_now():
    """Where not: python data_scripts/make_scoreboard.py, then put_sections.py"""
    stored = json.loads(scoreboard.FILE.read_text("utf-8"))
    names = {f"creatures_{name}" for name in ("cam", "puzzle", "rs", "epm")}
    shipped = {path.stem: path for path in CHECKPOINTS.glob("*.pt") if path.stem in names}
    assert stored["networks"] == {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in shipped.items()}
    assert stored["data"].startswith(f"creatures-v{FORMAT}-train1000-")


def test_the_file_was_computed_under_the_card():
    points, card = read_scoreboard()
    assert card == CARD
    assert {point.threshold for point in points if point.choice == "oracle"} <= set(CARD.thresholds)
    assert [point.lesson for point in points] == sorted(point.lesson for point in points)
    assert {point.lesson for point in points} == {"00", "01", "02", "03", "04", "05", "06", "08"}
    assert all(point.fp + point.fn <= 1 for point in points)


def test_the_card_has_the_settings_with_which_rs_was_trained():
    config = json.loads((CHECKPOINTS / f"{CREATURES_RS}.json").read_text("utf-8"))["config"]
    assert (CARD.options.scg_threshold, CARD.options.pamr_stride) == (config["scg_threshold"], config["pamr_stride"])


@pytest.mark.parametrize(("name", "value"), [("pictures", 0), ("steps", 1)])
def test_a_card_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(UserError, match=f"{name}: expected at least"):
        replace(CARD, **{name: value})


# lesson 08, from a table


def row(method, seed, fp, fn, miou):
    return Row(method, miou, fp, fn, None, False, seed, "none")


def test_lesson_08_has_the_means_of_the_seeds_that_have_both_rows():
    rows = [
        row("RS (decoder, arg-max)", 0, 0.20, 0.10, 70.0),
        row("RS (decoder, arg-max)", 1, 0.30, 0.20, 60.0),
        row("RS (decoder, arg-max)", 2, 0.90, 0.90, 1.0),
        row("RS + EPM (decoder, arg-max)", 1, 0.20, 0.10, 66.0),
        row("RS + EPM (decoder, arg-max)", 0, 0.10, 0.20, 70.0),
        row("RS + EPM (decoder)", 0, 0.0, 0.0, 99.0),
    ]
    rs, epm = full_runs(rows)
    assert (rs.lesson, rs.fp, rs.fn, rs.miou) == ("08", 0.25, 0.15, 0.65)
    assert (epm.method, epm.fp, epm.fn, epm.miou) == ("RS + EPM*: arg-max", 0.15, 0.15, 0.68)
    assert rs.source == epm.source == "results/creatures, mean of seeds 0, 1"
    assert full_runs(rows[:3]) == []


def test_what_was_not_computed_under_the_card_says_so():
    points = full_runs([row(f"RS{name} (decoder, arg-max)", 0, 0.2, 0.1, 70.0) for name in ("", " + EPM")])
    shown = Scoreboard("08", points, CARD)._repr_mimebundle_()["text/html"]
    assert "* <b>Not under the card</b>: results/creatures, seed 0;" in shown and "RS + EPM*" in shown
    assert "Not under the card" not in Scoreboard("06", SOME, CARD)._repr_mimebundle_()["text/html"]


# as it is shown

SOME = [
    Point("00", "nothing", None, None, "none", 0.0, 1.0, 0.13),
    Point("01", "CAM", "creatures_cam", 0.05, "oracle", 0.4, 0.3, 0.375),
    Point("06", "RS: CAM <x>", "creatures_rs", 0.1, "oracle", 0.25, 0.125, 0.6),
    Point("06", "RS: decoder's arg-max", "creatures_rs", None, "none", 0.2, 0.1, 0.71),
]


def drawn(board):
    return ElementTree.fromstring(board.svg())


def circles(board):
    """Class and place of every dot."""
    return {
        (each.attrib["class"], float(each.attrib["cx"]), float(each.attrib["cy"]))
        for each in drawn(board).iter(f"{SVG}circle")
    }


def test_dots_lie_at_fp_to_the_right_and_fn_upwards():
    places = {(x, y) for _, x, y in circles(Scoreboard("06", SOME[:3], CARD))}
    (left, top), *_ = sorted(places)  # FP 0, FN 1
    assert (left + SIDE * 0.4, top + SIDE * 0.7) in {(x, round(y, 1)) for x, y in places}
    assert (left + SIDE * 0.25, top + SIDE * 0.875) in places


def test_what_the_lesson_adds_is_in_colour_and_named_and_the_rest_is_grey():
    board = Scoreboard("06", SOME, CARD)
    assert sorted(kind for kind, *_ in circles(board)) == ["new", "new", "old", "old"]
    texts = ["".join(text.itertext()) for text in drawn(board).iter(f"{SVG}text")]
    assert {"00", "01", "06a RS: CAM <x>", "06b RS: decoder's arg-max"} <= set(texts)
    assert "Before: nothing at FP 0.00, FN 1.00; CAM at FP 0.40, FN 0.30." in board.alt
    assert "New: RS: CAM <x> at FP 0.25" in board.alt and board.note == ""


def test_a_dot_keeps_its_place_from_lesson_to_lesson():
    boards = [Scoreboard(lesson, SOME, CARD) for lesson in ("01", "06", "12")]
    places = [{(x, y) for _, x, y in circles(board)} for board in boards]
    assert places[0] == places[1] == places[2]
    alone = {(x, y) for _, x, y in circles(Scoreboard("01", SOME[:2], CARD))}
    assert alone < places[1]


def test_the_table_says_theta_and_how_it_was_chosen():
    rows = re.findall(r"<tr>(.*?)</tr>", Scoreboard("06", SOME, CARD).table())
    cells = [re.sub(r"<[^>]+>", "", row.replace("</td>", "|").replace("</th>", "|")) for row in rows]
    assert cells[0] == "lesson|method|θ|FP|FN|mIoU|"
    assert cells[2] == "01|CAM|0.05 oracle|0.40|0.30|37.5%|"
    assert cells[3] == "● 06a|RS: CAM &lt;x&gt;|0.10 oracle|0.25|0.12|60.0%|"
    assert cells[4].startswith("● 06b|RS: decoder&#x27;s arg-max|none|")


def test_a_lesson_that_adds_nothing_says_so():
    assert "mixings" in Scoreboard("07", SOME, CARD).note
    assert "adds no point" in Scoreboard("08", SOME, CARD).note


def test_names_are_apart_and_within_the_drawing():
    near = [Dot(0.3 + 0.01 * i, 0.2, name, new=i == 4) for i, name in enumerate(["01", "02", "03", "04", "05 a name"])]
    root = ElementTree.fromstring(plane_svg(near, "t", "d"))
    found = {t.text: (float(t.attrib["x"]), float(t.attrib["y"])) for t in root.iter(f"{SVG}text")}
    places = sorted(found[dot.name] for dot in near)
    assert len(places) == 5
    for i, (x, y) in enumerate(places):
        assert all(abs(x - a) >= 15 or abs(y - b) >= 15 for a, b in places[i + 1 :]), places


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_lesson_shows_the_points_of_all_before_it_with_card_and_alt(lesson):
    board = show_scoreboard(lesson)
    shown = board._repr_mimebundle_()
    points, card = read_scoreboard()
    assert list(board.points) == [point for point in points if point.lesson <= lesson]
    assert f"the same in all lessons: {card}." in shown["text/html"].replace("&#x27;", "'")
    [data] = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)" alt="The plane of FP and FN', shown["text/html"])
    text = base64.b64decode(data).decode()
    assert text == board.svg() and "prefers-color-scheme:dark" in text
    assert float(ElementTree.fromstring(text).attrib["width"]) <= 540
    assert min(map(float, re.findall(r"font-size:(\d+)px", text))) >= 15
    assert shown["text/plain"] == f"Scoreboard: {board.alt}"


def test_another_lesson_is_one_line():
    with pytest.raises(UserError, match=r"lesson: expected one of 00, .*, 08, 12, got '09'"):
        show_scoreboard("09")
