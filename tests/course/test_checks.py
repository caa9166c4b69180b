import math
import statistics

import pytest
import torch
from torch.nn import functional as F

from rsepm_edu.course.checks import check
from rsepm_edu.course.exercises import EXERCISES


def tag_scores(features, weight):
    """fc(GAP): not the way the reference takes."""
    return F.linear(features.mean(dim=(2, 3)), weight)


def merge_scales(cams, mirrored, size):
    total = 0
    for cam in cams:
        total = total + F.interpolate(cam, size=size, mode="bilinear")
    for cam in mirrored:
        total = total + F.interpolate(cam, size=size, mode="bilinear").flip(3)
    return total


def iou_fp_fn(mask, truth):
    right = extra = missed = 0
    for found, wanted in zip(mask.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if wanted != 255:
            right += found and wanted == 1
            extra += found and wanted == 0
            missed += not found and wanted == 1
    union = right + extra + missed
    return right / union, extra / union, missed / union


def agreement(features, y, x):
    here = features[:, y, x]
    return torch.einsum("chw,c->hw", features, here) / (features**2).sum(0).sqrt() / (here**2).sum().sqrt()


def walk(similarity, steps):
    n = len(similarity)
    places = [[float(i == j) for i in range(n)] for j in range(n)]  # of each start, the chance to be at i
    for _ in range(steps):
        for j in range(n):
            moved = [0.0] * n
            for i in range(n):
                total = sum(similarity[m, i].item() for m in range(n) if m != i)
                for m in range(n):
                    if m != i:
                        moved[m] += places[j][i] * similarity[m, i].item() / total
            places[j] = moved
    return torch.tensor(places).T


def class_map(correlation, cam, foreground, background):
    def stretch(values):
        low, high = min(values), max(values)
        return [(value - low) / (high - low) if high > low else 0.0 for value in values]

    columns = [stretch(column) for column in correlation.T.tolist()]

    def average(chosen):
        return stretch([sum(columns[j][i] for j in chosen) for i in range(len(cam))])

    positive = average([j for j, value in enumerate(cam) if value >= foreground])
    negative = average([j for j, value in enumerate(cam) if value <= background])
    return stretch([max(0.0, p - q) for p, q in zip(positive, negative, strict=True)])


def class_map_by_means(correlation, cam, foreground, background):
    """A mean over no columns is not a number."""
    columns = correlation - correlation.amin(0)
    columns = columns / columns.amax(0)
    difference = (columns[:, cam >= foreground].mean(1) - columns[:, cam <= background].mean(1)).relu()
    return difference / difference.max()


def class_points(confusion):
    rows = confusion.tolist()
    points = []
    for k in range(1, len(rows)):
        extra = sum(row[k] for row in rows) - rows[k][k]
        missed = sum(rows[k]) - rows[k][k]
        union = rows[k][k] + extra + missed
        points.append((extra / union, missed / union))
    return points


def sweep_points(values, truth, thresholds, above=lambda value, threshold: value > threshold):
    """Threshold by threshold, pixel by pixel: not the histogram."""
    points = []
    for threshold in thresholds.tolist():
        pairs = [(above(v, threshold), t == 1) for v, t in zip(values.tolist(), truth.tolist(), strict=True)]
        union = sum(found or wanted for found, wanted in pairs)
        extra = sum(found and not wanted for found, wanted in pairs)
        points.append((extra / union, sum(wanted and not found for found, wanted in pairs) / union))
    return points


def lowest_diagonal(points, thresholds):
    ranked = sorted((float(fp + fn), float(threshold)) for (fp, fn), threshold in zip(points, thresholds, strict=True))
    return ranked[0][1], 1 - ranked[0][0]


def weights_at(image, y, x, dilation, sigma, include_centre=True):
    channels, height, width = image.shape
    steps = (-dilation, 0, dilation)
    places = [(y + dy, x + dx) for dy in steps for dx in steps if (dy, dx) != (0, 0)]
    places = [(min(max(v, 0), height - 1), min(max(u, 0), width - 1)) for v, u in places]
    logits = [0.0] * 8
    for c in range(channels):
        plane = image[c].tolist()
        around = [plane[v][u] for v, u in places]
        spread = statistics.stdev([*around, plane[y][x]] if include_centre else around)
        for j in range(8):
            logits[j] -= abs(around[j] - plane[y][x]) / (sigma * spread) / channels
    powers = [math.exp(logit) for logit in logits]
    return [power / sum(powers) for power in powers]


def one_step(maps, affinity, offsets, wrap=False):
    channels, height, width = maps.shape
    refined = torch.zeros(channels, height, width)
    for y in range(height):
        for x in range(width):
            for j, (dy, dx) in enumerate(offsets):
                v, u = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
                if wrap:
                    v, u = (y + dy) % height, (x + dx) % width
                refined[:, y, x] += affinity[j, y, x] * maps[:, v, u]
    return refined


def pixels_reached(dilations, iterations, stays=False):
    """A set of places: no map, no picture."""
    steps = [(dy * d, dx * d) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    places = {(0, 0)}
    for _ in range(iterations):
        moved = {(y + dy, x + dx) for y, x in places for dy, dx in steps}
        places = places | moved if stays else moved
    return len(places)


ANSWERS = {
    "01.tag_scores": tag_scores,
    "01.merge_scales": merge_scales,
    "01.iou_fp_fn": iou_fp_fn,
    "03.agreement": agreement,
    "03.walk": walk,
    "03.class_map": class_map,
    "05.class_points": class_points,
    "05.sweep_points": sweep_points,
    "05.lowest_diagonal": lowest_diagonal,
    "04.weights_at": weights_at,
    "04.one_step": one_step,
    "04.pixels_reached": pixels_reached,
}


@pytest.mark.parametrize("name", EXERCISES)
def test_an_independent_right_answer_passes(name, capsys):
    assert check(name, ANSWERS[name]) is True
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Exercise {name}"
    assert all("shape (" in line and "largest difference" in line for line in lines[1:-1])
    assert lines[-1].strip().startswith("Solved")


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_has_several_inputs_that_differ(name):
    results = [
        torch.as_tensor(EXERCISES[name].reference(*inputs)).flatten()[0].item()
        for inputs in EXERCISES[name].inputs(torch.Generator().manual_seed(0))
    ]
    assert len(set(results)) == len(results) >= 2


def todo(*_):
    raise NotImplementedError


def broken(features, weight):
    return weight @ weight


def in_place(features, weight):
    result = tag_scores(features, weight)
    features.zero_()
    weight.zero_()
    return result + 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (todo, "Not done yet: write the function"),
        (broken, "Not yet: your function raised RuntimeError: "),
        (lambda f, w: None, "Is a `return` missing?"),
        (lambda f, w: tag_scores(f, w).T, "expected shape (1, 2), got (2, 1)."),
        (lambda f, w: tag_scores(f, w) * 1.01, "largest difference "),
        (lambda f, w: tag_scores(f, w) * float("nan"), "largest difference nan"),
        (lambda f, w: "cat", "expected numbers, got str."),
        (lambda f, w: {1: 2}, "expected numbers, got dict."),
        (lambda f, w: [], "expected numbers, got list."),
        (lambda f: f, "Not yet: your function raised TypeError: "),
        (None, "Not yet: your function raised TypeError: "),
        (in_place, "largest difference 1.0e+00"),
    ],
)
def test_a_wrong_answer_gets_one_friendly_line(answer, said, capsys):
    assert check("01.tag_scores", answer) is False
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and said in lines[1]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        # The mistakes that are likely: no flip, no void, union forgotten.
        ("01.merge_scales", lambda a, b, s: merge_scales(a + b, [], s)),
        ("01.iou_fp_fn", lambda m, t: iou_fp_fn(m, t % 255)),
        ("01.iou_fp_fn", lambda m, t: [x.item() for x in [(m & (t == 1)).float().mean()] * 3]),
        # Lengths forgotten, the diagonal kept, rows for columns, only positives, an empty mean.
        ("03.agreement", lambda f, y, x: torch.einsum("chw,c->hw", f, f[:, y, x])),
        ("03.walk", lambda s, k: torch.linalg.matrix_power(s / s.sum(0), k)),
        ("03.walk", lambda s, k: walk(s, k).T),
        ("03.walk", lambda s, k: walk(s, 2)),
        ("03.class_map", lambda c, m, f, b: class_map(c, m, f, -1.0)),
        ("03.class_map", lambda c, m, f, b: class_map(c.T, m, f, b)),
        ("03.class_map", class_map_by_means),
        # Rows and columns exchanged, background left in, ≥ for >, of equals the last, nearest to the corner.
        ("05.class_points", lambda c: class_points(c.T)),
        ("05.class_points", lambda c: class_points(torch.nn.functional.pad(c, (1, 0, 1, 0)))),
        ("05.sweep_points", lambda v, t, s: sweep_points(v, t, s, above=lambda value, threshold: value >= threshold)),
        ("05.lowest_diagonal", lambda p, s: (s.flip(0)[p.flip(0).sum(1).argmin()], 1 - p.sum(1).min())),
        ("05.lowest_diagonal", lambda p, s: (s[p.norm(dim=1).argmin()], 1 - p[p.norm(dim=1).argmin()].sum())),
        # No pixel itself in the spread, no sigma, borders that wrap, shifts the wrong way, a pixel its own neighbour.
        ("04.weights_at", lambda i, y, x, d, s: weights_at(i, y, x, d, s, include_centre=False)),
        ("04.weights_at", lambda i, y, x, d, s: weights_at(i, y, x, d, 1.0)),
        ("04.one_step", lambda m, a, o: one_step(m, a, o, wrap=True)),
        ("04.one_step", lambda m, a, o: one_step(m, a, [(-dy, -dx) for dy, dx in o])),
        ("04.pixels_reached", lambda d, n: pixels_reached(d, n, stays=True)),
        ("04.pixels_reached", lambda d, n: (2 * max(d) * n + 1) ** 2),
    ],
)
def test_likely_mistakes_are_found(name, answer):
    assert check(name, answer) is False


def test_an_unknown_exercise_is_named(capsys):
    assert check("01.nothing", tag_scores) is False
    assert "no exercise '01.nothing'; there are 01.tag_scores" in capsys.readouterr().out


def test_the_check_leaves_the_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check("01.tag_scores", tag_scores)
    assert torch.equal(before, torch.get_rng_state())
