"""One drawing of the data flow for each lesson, on the lesson's own example of a few numbers.

What goes in is written here as the lesson writes it (a test compares the two); all that comes out is computed.
"""

from collections.abc import Iterable, Sequence

import torch
from drawing_canvas import WIDTH, Canvas
from torch import Tensor

from rsepm_edu.evaluation.metrics import confusion_matrix, scores
from rsepm_edu.labels import VOID
from rsepm_edu.methods.cam import cam_from_features, normalize_cam
from rsepm_edu.methods.edgepredictmix import edge_predict, edge_regions
from rsepm_edu.methods.mixing import Mixed, paste_region
from rsepm_edu.methods.puzzle import puzzle_loss
from rsepm_edu.methods.recurseed import cam_loss, conditional_filter
from rsepm_edu.methods.scg import scg, self_correlation

INPUTS: dict[str, dict[str, Tensor]] = {
    "00": {
        "truth": torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 255], [0, 2, 2, 0]]),
        "prediction": torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 1, 0]]),
    },
    "01": {
        "features": torch.tensor([[[3.0, 0], [0, 0]], [[1, 2], [0, 1]], [[0, 0], [2, 3]]]),
        "weight": torch.tensor([[2.0, 1, -1], [0, 1, 2]]),
    },
    "02": {
        "one_map": torch.tensor([[[4.0, 2], [0, -2]], [[-1, -1], [-1, -1]]]),
        "re_map": torch.tensor([[[4.0, 0], [1, -2]], [[5, -1], [-1, -1]]]),
    },
    "03": {
        "features": torch.tensor([[4.0, 0, 0, 0], [3, 2, 3, 0], [0, 0, 4, 3]]),
        "toy_cam": torch.tensor([1.0, 0.2, 0.1, 0.0]),
    },
    "04": {
        "colours": torch.tensor([1.0, 1, 1, 4, 4, 4]),
        "values": torch.tensor([0.9, 0.8, 0.6, 0.4, 0.2, 0.1]),
    },
    "05": {
        "values": torch.tensor([0.9, 0.7, 0.6, 0.4, 0.3, 0.1]),
        "truth": torch.tensor([1, 1, 0, 1, 0, 0]),
    },
    "06": {
        "row": torch.tensor([[0.90, 0.70, 0.40, 0.30, 0.10, 0.10, 0.00], [0.00, 0.10, 0.20, 0.50, 0.60, 0.20, 0.05]]),
        "toy_rs": torch.tensor([[[[1.0, 0.9, 0.8, 0.4, 0.2, 0.0], [0.9, 0.8, 0.6, 0.2, 0.0, 0.2]]]]),
        "raw": torch.tensor([[[[4.0, 3.0, 1.0]]]]),
    },
    "07": {
        "zebbo": torch.tensor([[0.9, 0.9, 0.4, 0], [0.9, 0.9, 0.4, 0], [0.4, 0.4, 0.2, 0], [0, 0, 0, 0]]),
        "dotkin": torch.tensor([[0.0, 0, 0, 0], [0, 0, 0.2, 0.3], [0, 0.2, 0.9, 0.8], [0, 0.3, 0.8, 0.9]]),
    },
    "08": {"row": torch.tensor([0.63, 0.60, 0.57, 0.54, 0.51, 0.48, 0.14, 0.11, 0.08, 0.05, 0.03, 0.01])},
    "09": {"weights": torch.tensor([4.0, 8, 6, 10, 7])},
    "10": {},
    "11": {
        "edge": torch.tensor([0.0, 0, 0.8, 0, 0]),
        "start_row": torch.tensor([1.0, 0, 0, 0, 0]),
    },
    "12": {"a": torch.tensor([60.0, 66, 63]), "b": torch.tensor([62.0, 67, 65])},
}
"""By lesson: the examples, under the names that they have in its notebook."""

Grid = tuple[str, list[list[str]], str]
"""A caption, cells, and what kind of thing it is."""


def shown(value: float) -> str:
    """A number as it stands in a cell; void is "?"."""
    return "?" if value == VOID else f"{round(value, 2) + 0.0:g}".replace("-", "−")


def cells(values: Tensor) -> list[list[str]]:
    """Rows of texts; one row of a vector."""
    return [[shown(value) for value in row] for row in (values[None] if values.ndim == 1 else values).tolist()]


def spoken(values: Tensor) -> str:
    """Numbers as part of a sentence, rows apart."""
    rows = [", ".join(text.replace("?", "void") for text in row) for row in cells(values)]
    return "; ".join(rows)


class Flow:
    """Rows of grids below one another, with arrows that say what happens between them."""

    def __init__(self, title: str, description: str) -> None:
        self.canvas = Canvas(title, description)
        self.canvas.text(24, 30, title, anchor="start", style="head")
        self.y = 44.0

    def row(self, *grids: Grid, side: float = 40) -> None:
        """Grids side by side, their captions above them."""
        widths = [max(side * len(cells[0]), 9.6 * len(caption)) for caption, cells, _ in grids]
        gap = min(48.0, (WIDTH - 24 - sum(widths)) / max(1, len(grids) - 1))
        x = (WIDTH - sum(widths) - gap * (len(grids) - 1)) / 2
        for (caption, rows, kind), width in zip(grids, widths, strict=True):
            if caption:
                self.canvas.text(x + width / 2, self.y + 16, caption, style="note")
            left = x + (width - side * len(rows[0])) / 2
            self.canvas.grid(left, self.y + 26, rows, side=side, kind=kind)
            x += width + gap
        self.y += 26 + 30 * max(len(rows) for _, rows, _ in grids)

    def step(self, text: str, detail: str = "") -> None:
        """What is done with the row above."""
        lines = [text, detail] if detail else [text]
        height = 14 + 22 * len(lines)
        middle = WIDTH / 2
        self.canvas.arrow((middle, self.y + 4), (middle, self.y + 22))
        self.canvas.box(30, self.y + 22, WIDTH - 60, height, lines, "step")
        self.canvas.arrow((middle, self.y + 22 + height), (middle, self.y + 40 + height))
        self.y += 42 + height

    def result(self, text: str) -> None:
        """A line at the end of the flow."""
        self.canvas.text(WIDTH / 2, self.y + 26, text, style="head")
        self.y += 36


def _spelled(names: Iterable[str], values: Sequence[float]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in zip(names, values, strict=True))


def _lesson_00() -> Flow:
    truth, prediction = INPUTS["00"].values()
    counts = confusion_matrix(prediction, truth, num_labels=3)
    right, is_it, called = (int(v) for v in (counts[2, 2], counts[2].sum(), counts[:, 2].sum()))
    result = scores(counts, ["one", "two"])
    union = is_it + called - right
    flow = Flow(
        "00: from two masks to one score",
        f"Truth and prediction, 4×4 pixels, are counted into a 3×3 confusion matrix {spoken(counts)}. For class 2, "
        f"right {right}, superfluous {called - right}, missed {is_it - right}, union {union}. The mIoU is "
        f"{result.miou:.3f}.",
    )
    flow.row(("truth (? is void)", cells(truth), "data"), ("prediction", cells(prediction), "data"))
    flow.step("count pixels: what it is, what it was called", "void is not counted")
    flow.row(("rows: is; columns: called", cells(counts), "map"))
    flow.step(f"class 2: right {right}, superfluous {called - right}, missed {is_it - right}", "divide by their sum")
    flow.row(
        ("IoU", [[f"{right}/{union}"]], "mask"),
        ("FP", [[f"{called - right}/{union}"]], "mask"),
        ("FN", [[f"{is_it - right}/{union}"]], "mask"),
        side=52,
    )
    flow.result(f"mean IoU of the three labels: {result.miou:.3f}")
    return flow


def _lesson_01() -> Flow:
    features, weight = INPUTS["01"].values()
    cam = cam_from_features(features[None], weight)[0]
    score = cam.mean(dim=(1, 2))
    flow = Flow(
        "01: from features to a map and a score",
        "Three features of 2×2 positions, stripes, fur and rails, are weighed by the classifier and added up. The "
        f"maps are {spoken(cam[0])} for the zebbo and {spoken(cam[1])} for the tramlo; their means, {score[0]:g} "
        f"and {score[1]:g}, are the tag scores.",
    )
    flow.row(*((name, cells(f), "data") for name, f in zip(("stripes", "fur", "rails"), features, strict=True)))
    flow.step(
        *(
            f"{name}: {shown(a)} · stripes + {shown(b)} · fur + {shown(c)} · rails".replace("+ −", "− ")
            for name, (a, b, c) in zip(("zebbo", "tramlo"), weight.tolist(), strict=True)
        )
    )
    flow.row(("CAM of the zebbo", cells(cam[0]), "map"), ("CAM of the tramlo", cells(cam[1]), "map"))
    flow.step("mean over all positions")
    flow.row(
        *((f"score, {n}", [[shown(float(v))]], "mask") for n, v in zip(("zebbo", "tramlo"), score, strict=True)),
        side=60,
    )
    return flow


def _lesson_02() -> Flow:
    one, other = INPUTS["02"].values()
    loss = float(puzzle_loss(one[None], other[None], torch.tensor([[1.0, 0]])))
    gap = (one - other).abs()
    flow = Flow(
        "02: the map and its pieces must agree",
        f"The whole image's map {spoken(one[0])} and the map put together from the tiles, {spoken(other[0])}, are "
        f"subtracted for the class that is present; the absent class counts as zeros. The mean is {loss:g}.",
    )
    flow.row(("M, whole image", cells(one[0]), "map"), ("M^{re}, from four tiles", cells(other[0]), "map"))
    flow.step("|M − M^{re}|, present class", "the absent class counts as zeros")
    flow.row(("present", cells(gap[0]), "data"), ("absent", cells(torch.zeros(2, 2)), "data"))
    flow.step("mean over both classes and all positions")
    flow.result(f"L_{{re}} = {loss:g}")
    return flow


def _lesson_03() -> Flow:
    features, cam = INPUTS["03"].values()
    batch = features[None, :, None, :]
    directions = torch.nn.functional.normalize(features, dim=0)
    cosine = directions.T @ directions
    first, second = (order[0] for order in self_correlation(batch))
    seed = scg(batch, cam.reshape(1, 1, 1, 4), torch.ones(1, 1)).flatten()
    flow = Flow(
        "03: features that agree spread the map",
        f"Four positions, head, body, legs and ground. Their features agree by the cosines {spoken(cosine)}. From a "
        f"CAM {spoken(cam)} with the head as positive and the ground as negative, SCG makes {spoken(seed)}.",
    )
    flow.row(("features: head, body, legs, ground", cells(features), "data"))
    flow.step("cosine of every pair")
    flow.row(("who agrees with whom", cells(cosine), "data"), side=52)
    flow.step("first order: columns ≥ 0.5, sum 1", "second order: two steps of a walk")
    flow.row(("first order", cells(first), "data"), ("second order", cells(second), "data"), side=52)
    flow.step(
        f"CAM {', '.join(cells(cam)[0])}: head positive, ground negative", "head's columns minus ground's, larger order"
    )
    flow.row(("map: head, body, legs, ground", cells(seed), "map"))
    return flow


def pamr_step(colours: Tensor, values: Tensor) -> Tensor:
    """One averaging step in a row of pixels, as lesson 04 does it: unit 1, two neighbours, borders repeat."""
    last = len(values) - 1
    rows = []
    for i in range(last + 1):
        near = [max(i - 1, 0), min(i + 1, last)]
        rows.append((-(colours[near] - colours[i]).abs()).softmax(0) @ values[near])
    return torch.stack(rows)


def _lesson_04() -> Flow:
    colours, values = INPUTS["04"].values()
    steps = [values]
    for _ in range(2):
        steps.append(pamr_step(colours, steps[-1]))
    near, far = (-(torch.tensor([0.0, 3.0]))).softmax(0).tolist()
    flow = Flow(
        "04: pixels that look alike share their values",
        f"A row of six pixels, three dark and three bright, with the map {spoken(values)}. Each pixel takes a mean "
        f"of its neighbours, weighted by likeness of colour: {spoken(steps[1])} after one step, {spoken(steps[2])} "
        "after two.",
    )
    flow.row(("colours", cells(colours), "data"), side=56)
    flow.row(("map", cells(values), "map"), side=56)
    flow.step("mean of both neighbours", f"weight {shown(near)} for the same colour, {shown(far)} for the other")
    flow.row(("after one step", cells(steps[1]), "map"), side=56)
    flow.step("the same weights again")
    flow.row(("after two steps", cells(steps[2]), "map"), side=56)
    return flow


def _lesson_05() -> Flow:
    values, truth = INPUTS["05"].values()
    points = []
    for theta in (0.8, 0.5, 0.2):
        mask = values > theta
        right, extra = int((mask & (truth == 1)).sum()), int((mask & (truth == 0)).sum())
        missed = int(truth.sum()) - right
        points.append((theta, right, extra, missed))
    flow = Flow(
        "05: one map, three thresholds, three points",
        "Six pixels with the map and the truth. "
        + " ".join(f"At θ = {t}: FP {e}/{r + e + m}, FN {m}/{r + e + m}." for t, r, e, m in points),
    )
    flow.row(("map", cells(values), "map"), side=56)
    flow.row(("truth", cells(truth), "data"), side=56)
    flow.step("mask: what is above θ", "count right, superfluous, missed")
    table = [["θ", "FP", "FN", "IoU"]]
    for theta, right, extra, missed in points:
        union = right + extra + missed
        table.append([f"{theta}", f"{extra}/{union}", f"{missed}/{union}", f"{right}/{union}"])
    flow.row(("each θ is a point (FP, FN)", table, "mask"), side=72)
    flow.result("lower θ: more FP, less FN")
    return flow


def _lesson_06() -> Flow:
    row, target, raw = INPUTS["06"].values()
    labels = conditional_filter(row[None, :, None])[0, 0]
    goal = torch.nn.functional.adaptive_avg_pool2d(target, (1, 3))[0, 0, 0]
    cam = normalize_cam(raw)[0, 0, 0]
    loss = float(cam_loss(raw, target, torch.ones(1, 1)))
    flow = Flow(
        "06: one map, two targets",
        f"For the decoder, CF makes labels of the refined maps: {spoken(labels)}, where ? is void. For the CAM, "
        f"M_rs is averaged to the CAM's size, {spoken(goal)}, and compared with the normalised CAM, {spoken(cam)}: "
        f"L_rec is {loss:.4f}.",
    )
    flow.row(("refined maps: zebbo, dotkin", cells(row), "map"), side=56)
    flow.step("CF: ≥ 0.55 the class, ≤ 0.10 ground", "between: void")
    flow.row(("decoder's target (1 zebbo, 2 dotkin, ? void)", cells(labels), "mask"), side=56)
    flow.y += 16
    flow.row(("M_{rs}, 2×6 pixels", cells(target[0, 0]), "map"), ("raw CAM", cells(raw[0, 0]), "data"), side=46)
    flow.step("left: mean of 2×2 pixels", "right: divided by its maximum")
    flow.row(("target", cells(goal), "map"), ("CAM", cells(cam), "data"), side=52)
    flow.result(f"L_{{rec}}: mean of the differences, {loss:.4f}")
    return flow


def _lesson_07() -> Flow:
    zebbo, dotkin = INPUTS["07"].values()
    none = torch.zeros_like(zebbo)
    maps = torch.stack([torch.stack([1 - zebbo, zebbo, none]), torch.stack([1 - dotkin, none, dotkin])])
    masks = conditional_filter(maps[:, 1:])
    tags = torch.tensor([[1.0, 0], [0, 1]])
    batch = Mixed.unmixed(torch.tensor([1.0, 2])[:, None, None, None].expand(2, 1, 4, 4), tags, masks)
    region = torch.zeros(2, 4, 4, dtype=torch.bool)
    region[:, :2, 2:] = True
    mixed = paste_region(batch, batch.rows(torch.tensor([1, 0])), region, region.float().mean(dim=(1, 2)))
    new_tags = mixed.tags[0].tolist()
    names = ("zebbo", "dotkin")
    flow = Flow(
        "07: CutMix pastes a rectangle of A on B",
        "Two images of 4×4 pixels with what the network believes, filtered to labels. The top right quarter of A "
        f"is pasted on B. The labels become {spoken(mixed.pseudo_masks[0])} and the tags "
        f"{_spelled(names, new_tags)}.",
    )
    flow.row(("zebbo in A", cells(zebbo), "map"), ("dotkin in B", cells(dotkin), "map"))
    flow.step("CF: ≥ 0.55 the class, ≤ 0.10 ground, else void")
    flow.row(("labels of A", cells(masks[0]), "mask"), ("labels of B", cells(masks[1]), "mask"))
    flow.step("top right quarter of A on B")
    source = [["A" if v == 1 else "B" for v in line] for line in mixed.images[0, 0].tolist()]
    flow.row(("from A or B", source, "data"), ("new labels", cells(mixed.pseudo_masks[0]), "mask"))
    flow.result(f"tags by area: {_spelled(names, new_tags)}")
    return flow


def _lesson_08() -> Flow:
    row = INPUTS["08"]["row"]
    high = row[None].expand(5, 12)  # Canny needs a picture: the row five times, of which the middle one is shown
    regions = edge_regions(high[None])[0, 2]
    filtered = conditional_filter(row[None, None, None])[0, 0]
    maps = torch.stack([1 - high, high])[None]
    decided = edge_predict(maps, torch.ones(1, 1))[0, 2]
    letters = {0: "g", 1: "A", VOID: "?"}
    spelled = [[letters[int(v)] for v in line] for line in (filtered, decided)]
    where = [["edge" if v == 0 else shown(float(v)) for v in regions.tolist()]]
    edges = [["|" if text == "edge" else text for text in where[0]]]
    flow = Flow(
        "08: regions between edges decide what is void",
        f"Twelve pixels with the decoder's probability {spoken(row)}. CF gives {''.join(spelled[0])}, where A is "
        "animal, g ground and ? void. Canny's edge cuts the row into regions; each region's majority fills its "
        f"void pixels: {''.join(spelled[1])}.",
    )
    flow.row(("decoder's map after PAMR", cells(row), "map"), side=42)
    flow.step("CF: absolute evidence, how high?")
    flow.row(("A animal, g ground, ? void", [spelled[0]], "mask"), side=42)
    flow.step("Canny: relative evidence, where does it jump?")
    flow.row(("regions 1 and 2, | the edge", edges, "data"), side=42)
    flow.step("each region votes, void counts", "the winner fills the void pixels of its region")
    flow.row(("M_{ep}", [spelled[1]], "mask"), side=42)
    return flow


def _lesson_09() -> Flow:
    weights = INPUTS["09"]["weights"].tolist()
    average, path = 0.0, []
    for weight in weights:
        average = 0.5 * average + 0.5 * weight
        path.append(average)
    flow = Flow(
        "09: the teacher is an average of the students",
        f"One weight is {', '.join(f'{w:g}' for w in weights)} after five steps. With a decay of 0.5 its average, "
        f"which starts at 0, is {', '.join(f'{a:g}' for a in path)}.",
    )
    flow.row(("student's weight, steps 1 to 5", cells(torch.tensor(weights)), "data"), side=76)
    flow.step("new average = ½ old average + ½ weight", "starts at 0")
    flow.row(("teacher's weight, steps 1 to 5", [[f"{a:g}" for a in path]], "map"), side=76)
    flow.result("jumps by up to 4; the average by less")
    return flow


def mean_gradient(values: Sequence[float]) -> float:
    """The gradient of the mean of (w x)²/2 at w = 1."""
    w = torch.ones((), requires_grad=True)
    ((w * torch.tensor(values)) ** 2 / 2).mean().backward()
    return float(w.grad) if w.grad is not None else 0.0


def _lesson_10() -> Flow:
    slices = ([1.0, 3.0], [2.0, 4.0])
    each = [mean_gradient(values) for values in slices]
    whole = mean_gradient([*slices[0], *slices[1]])
    flow = Flow(
        "10: two GPUs, one gradient",
        f"A batch 1, 3, 2, 4 is cut into two slices. The ranks' gradients are {each[0]:g} and {each[1]:g}, their "
        f"mean {sum(each) / 2:g}; the whole batch gives {whole:g}.",
    )
    flow.row(("the whole batch", cells(torch.tensor([*slices[0], *slices[1]])), "data"), side=56)
    flow.step("a slice for each rank")
    flow.row(*((f"rank {i}", cells(torch.tensor(values)), "data") for i, values in enumerate(slices)), side=56)
    flow.step("gradient of the mean of (w·x)²/2 at w = 1")
    flow.row(*((f"of rank {i}", [[shown(value)]], "map") for i, value in enumerate(each)), side=56)
    flow.step("mean over the ranks")
    flow.row(("the same step on all ranks", [[shown(sum(each) / 2)]], "mask"), side=56)
    flow.result(f"the whole batch at once: {whole:g}")
    return flow


def _lesson_11() -> Flow:
    edge, start = INPUTS["11"].values()
    affinity = torch.eye(5)
    for i in range(4):
        affinity[i, i + 1] = affinity[i + 1, i] = 1 - torch.maximum(edge[i], edge[i + 1])
    transition = affinity / affinity.sum(dim=0)
    flow = Flow(
        "11: a seed walks until an edge holds it",
        "Five positions with an edge of 0.8 on the third. Neighbours are tied by 1 minus the edge between them. "
        f"After one step of the walk the seed {spoken(start)} is {spoken(start @ transition)}.",
    )
    flow.row(("edge", cells(edge), "data"), side=60)
    flow.row(("seed", cells(start), "map"), side=60)
    flow.step("affinity: 1 − strongest edge on the way")
    flow.row(("who is tied to whom", cells(affinity), "data"), side=60)
    flow.step("columns divided by their sums", "seed times matrix: one step")
    flow.row(("after one step", cells(start @ transition), "map"), side=60)
    return flow


def _lesson_12() -> Flow:
    a, b = INPUTS["12"].values()
    flow = Flow(
        "12: the same seeds, compared one by one",
        f"Method A scores {spoken(a)} with three seeds, B {spoken(b)}. The ranges overlap, and B minus A is "
        f"{spoken(b - a)} in the three seeds.",
    )
    flow.row(("A, seeds 0, 1, 2", cells(a), "data"), ("B, seeds 0, 1, 2", cells(b), "data"), side=56)
    flow.step("mean, lowest and highest")
    text = [f"{v.mean():.1f} ({v.min():g} – {v.max():g})" for v in (a, b)]
    flow.row(("A", [[text[0]]], "map"), ("B", [[text[1]]], "map"), side=150)
    flow.step("the ranges overlap: so subtract seed by seed")
    flow.row(("B − A", cells(b - a), "mask"), side=56)
    flow.result("B is better in every seed")
    return flow


TOYS = {
    "00": _lesson_00,
    "01": _lesson_01,
    "02": _lesson_02,
    "03": _lesson_03,
    "04": _lesson_04,
    "05": _lesson_05,
    "06": _lesson_06,
    "07": _lesson_07,
    "08": _lesson_08,
    "09": _lesson_09,
    "10": _lesson_10,
    "11": _lesson_11,
    "12": _lesson_12,
}
"""By lesson: what draws its data flow."""
