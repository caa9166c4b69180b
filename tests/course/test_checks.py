import math
import statistics

import pytest
import torch
from torch.nn import functional as F

from rsepm_edu.course.checks import check
from rsepm_edu.course.exercises import EXERCISES


def count_pixels(prediction, truth, num_labels, void=255):
    """Pixel by pixel."""
    counts = [[0] * num_labels for _ in range(num_labels)]
    for found, true in zip(prediction.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if true != void:
            counts[true % 255][found] += 1
    return torch.tensor(counts)


def mean_iou(confusion, absent=None):
    """From sets of pixels: not by sums of rows and columns."""
    values = []
    for label in range(len(confusion)):
        pairs = [(t, p) for t in range(len(confusion)) for p in range(len(confusion)) if label in (t, p)]
        union = sum(int(confusion[t, p]) for t, p in pairs)
        values.append(int(confusion[label, label]) / union if union else absent)
    values = [value for value in values if value is not None]
    return sum(values) / len(values)


def paired_range(before, after):
    differences = sorted(float(b) - float(a) for a, b in zip(before, after, strict=True))
    return sum(differences) / len(differences), differences[0], differences[-1]


def dishonest_row(curves, reported, fixed):
    """The one whose number is its highest, which at the fixed threshold nobody has."""
    for row, (curve, number) in enumerate(zip(curves.tolist(), reported.tolist(), strict=True)):
        if abs(number - max(curve)) < 1e-4 and abs(number - curve[fixed]) > 0.1:
            return row
    return -1


def fewest_parts(batch, fixed, per_picture, room):
    """From the largest part that fits, downwards."""
    most = int((room - fixed) // per_picture)
    return next((batch // part for part in range(min(most, batch), 0, -1) if batch % part == 0), 0)


def scale_path(finite, start, interval, backoff=0.5, keeps_count=False):
    """As a count of good steps in a row."""
    scale, good, path = start, 0, []
    for fine in finite.tolist():
        if fine:
            good += 1
        else:
            scale, good = scale * backoff, good if keeps_count else 0
        if fine and good == interval:
            scale, good = 2 * scale, 0
        path.append(scale)
    return path


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


def seen_pixels(layers):
    """From the last layer to the first: how many positions below are needed for so many above."""
    needed = 1
    for kernel, stride in reversed(layers):
        needed = (needed - 1) * stride + kernel
    return needed


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


def pixels_reached(dilations, iterations, stays=False):
    """A set of places: no map, no picture."""
    steps = [(dy * d, dx * d) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    places = {(0, 0)}
    for _ in range(iterations):
        moved = {(y + dy, x + dx) for y, x in places for dy, dx in steps}
        places = places | moved if stays else moved
    return len(places)


def quarrel_filter(seed, certain, uncertain, margin, behind=lambda gap, margin: gap < margin):
    batch, classes, height, width = seed.shape
    mask = torch.full((batch, height, width), 255)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                ranked = sorted((-float(seed[b, k, y, x]), k) for k in range(classes))
                best, second = -ranked[0][0], -ranked[1][0]
                if best <= uncertain:
                    mask[b, y, x] = 0
                elif best >= certain and not behind(best - second, margin):
                    mask[b, y, x] = ranked[0][1] + 1
    return mask


def teacher_after(students, start, decay):
    teacher = start.tolist()
    for student in students.tolist():
        teacher = [decay * t + (1 - decay) * s for t, s in zip(teacher, student, strict=True)]
    return teacher


def strength(grey, weights=(1, 2, 1)):
    rows = grey.tolist()
    height, width = len(rows), len(rows[0])

    def at(y, x):
        return rows[min(max(y, 0), height - 1)][min(max(x, 0), width - 1)]

    result = torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            pairs = list(zip((-1, 0, 1), weights, strict=True))
            across = sum(w * (at(y + d, x + 1) - at(y + d, x - 1)) for d, w in pairs)
            down = sum(w * (at(y + 1, x + d) - at(y - 1, x + d)) for d, w in pairs)
            result[y, x] = abs(across) + abs(down)
    return result


def share_left(mask_a, mask_b, chosen):
    pairs = list(zip(mask_a.flatten().tolist(), mask_b.flatten().tolist(), strict=True))
    labels = [k + 1 for k, taken in enumerate(chosen.tolist()) if taken]
    shares = []
    for k in range(1, len(chosen) + 1):
        covered = [a in labels for a, b in pairs if b == k]
        shares.append(1 - sum(covered) / len(covered) if covered else 1.0)
    return shares


def mean_field_step(probabilities, beliefs, kernel, weight):
    """Pixel by pixel; powers instead of logarithms."""
    rows = []
    for i in range(len(beliefs)):
        scores = []
        for label in range(beliefs.shape[1]):
            message = sum(kernel[i, j].item() * beliefs[j, label].item() for j in range(len(beliefs)))
            scores.append(probabilities[i, label].item() * math.exp(weight * message))
        rows.append([score / sum(scores) for score in scores])
    return rows


def affinity_from(edge, start, radius, ends=1):
    """Of the edges from start to j; with ends=0 those strictly between."""
    values = edge.tolist()
    row = []
    for j in range(len(values)):
        low, high = min(start, j), max(start, j)
        row.append(1 - max(values[low + 1 - ends : high + ends], default=0.0) if high - low < radius else 0.0)
    row[start] = 1.0
    return row


def put_together(tiles, parts):
    """Place by place: not slices, not joins."""
    count, classes, h, w = tiles.shape
    batch = count // parts**2
    whole = torch.zeros(batch, classes, parts * h, parts * w)
    for b in range(batch):
        for y in range(parts * h):
            for x in range(parts * w):
                piece = y // h * parts + x // w
                whole[b, :, y, x] = tiles[piece * batch + b, :, y % h, x % w]
    return whole


def untouched(side, parts, reach, cut_at_border=False):
    """A position is counted if all that it sees within the picture lies in its own tile."""
    tile, count = side // parts, 0
    for y in range(side):
        for x in range(side):
            sees = [(p, q) for p in (y, x) for q in range(p - reach, p + reach + 1)]
            count += all(q // tile == p // tile for p, q in sees if cut_at_border or 0 <= q < side)
    return count


def saliency_weight(above, below, grafted):
    rows = list(zip(above.flatten().tolist(), below.flatten().tolist(), grafted.flatten().tolist(), strict=True))
    carried = sum(a for a, _, g in rows if g) / sum(a for a, _, _ in rows)
    left = sum(b for _, b, g in rows if not g) / sum(b for _, b, _ in rows)
    return carried / (carried + left)


def visible_tags(mask, paste, tags, min_visible, nothing_stays=True):
    kept = []
    for k, tag in enumerate(tags.tolist(), start=1):
        before = sum(label == k for label in mask.flatten().tolist())
        after = sum(
            label == k and not hidden
            for label, hidden in zip(mask.flatten().tolist(), paste.flatten().tolist(), strict=True)
        )
        stays = after >= min_visible * before if before else nothing_stays
        kept.append(float(tag and stays))
    return kept


def part_weights(pseudo_masks, parts):
    size = len(pseudo_masks) // parts
    counts = [0] * parts
    for b, mask in enumerate(pseudo_masks.tolist()):
        counts[b // size] += sum(label != 255 for row in mask for label in row)
    return [count / sum(counts) for count in counts]


def balanced_loss(seg_logits, pseudo_mask):
    losses = {False: [], True: []}
    for b, y, x in torch.cartesian_prod(*(torch.arange(n) for n in pseudo_mask.shape)).tolist():
        label = int(pseudo_mask[b, y, x])
        if label != 255:
            probabilities = seg_logits[b, :, y, x].exp() / seg_logits[b, :, y, x].exp().sum()
            losses[label > 0].append(-math.log(probabilities[label]))
    return (statistics.fmean(losses[True]) + statistics.fmean(losses[False])) / 2


ANSWERS = {
    "00.confusion_matrix": count_pixels,
    "00.mean_iou": mean_iou,
    "01.merge_scales": merge_scales,
    "01.seen_pixels": seen_pixels,
    "01.tag_scores": tag_scores,
    "02.put_together": put_together,
    "02.untouched": untouched,
    "03.agreement": agreement,
    "03.walk": walk,
    "04.pixels_reached": pixels_reached,
    "04.weights_at": weights_at,
    "05.class_points": class_points,
    "05.sweep_points": sweep_points,
    "06.quarrel_filter": quarrel_filter,
    "06.teacher_after": teacher_after,
    "07.saliency_weight": saliency_weight,
    "07.visible_tags": visible_tags,
    "08.share_left": share_left,
    "08.strength": strength,
    "09.balanced_loss": balanced_loss,
    "09.part_weights": part_weights,
    "10.fewest_parts": fewest_parts,
    "10.scale_path": scale_path,
    "11.affinity_from": affinity_from,
    "11.mean_field_step": mean_field_step,
    "12.dishonest_row": dishonest_row,
    "12.paired_range": paired_range,
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
        # Void as background, rows for columns, absent classes as 1 or 0, background left out.
        ("00.confusion_matrix", lambda p, t, n: count_pixels(p, t, n, void=None)),
        ("00.confusion_matrix", lambda p, t, n: count_pixels(p, t, n).T),
        ("00.mean_iou", lambda c: mean_iou(c, absent=1.0)),
        ("00.mean_iou", lambda c: mean_iou(c, absent=0.0)),
        ("00.mean_iou", lambda c: mean_iou(c[1:, 1:])),
        # The mistakes that are likely: no flip, strides forgotten, from the wrong end, windows added up.
        ("01.merge_scales", lambda a, b, s: merge_scales(a + b, [], s)),
        ("01.seen_pixels", lambda layers: seen_pixels([(kernel, 1) for kernel, _ in layers])),
        ("01.seen_pixels", lambda layers: seen_pixels(layers[::-1])),
        ("01.seen_pixels", lambda layers: sum(kernel for kernel, _ in layers)),
        # Tiles of one picture after another, columns before rows, cuts at the border, one axis alone.
        ("02.put_together", lambda t, n: put_together(t.unflatten(0, (-1, n * n)).transpose(0, 1).flatten(0, 1), n)),
        ("02.put_together", lambda t, n: put_together(t.transpose(2, 3), n).transpose(2, 3)),
        ("02.untouched", lambda n, p, r: untouched(n, p, r, cut_at_border=True)),
        ("02.untouched", lambda n, p, r: math.isqrt(untouched(n, p, r))),
        # Area, one saliency, no share; hidden tags kept.
        ("07.saliency_weight", lambda a, b, g: g.float().mean()),
        ("07.saliency_weight", lambda a, b, g: (a * g).sum() / a.sum()),
        ("07.saliency_weight", lambda a, b, g: (a * g).sum() / ((a * g).sum() + (b * ~g).sum())),
        ("07.visible_tags", lambda m, p, y, v: y),
        ("07.visible_tags", lambda m, p, y, v: visible_tags(m, ~p, y, v)),
        ("07.visible_tags", lambda m, p, y, v: visible_tags(m, p, y, 1e-9)),
        ("07.visible_tags", lambda m, p, y, v: visible_tags(m, p, y, v, nothing_stays=False)),
        # Lengths forgotten, the diagonal kept, rows for columns, only positives, an empty mean.
        ("03.agreement", lambda f, y, x: torch.einsum("chw,c->hw", f, f[:, y, x])),
        ("03.walk", lambda s, k: torch.linalg.matrix_power(s / s.sum(0), k)),
        ("03.walk", lambda s, k: walk(s, k).T),
        ("03.walk", lambda s, k: walk(s, 2)),
        # Rows and columns exchanged, background left in, ≥ for >, of equals the last, nearest to the corner.
        ("05.class_points", lambda c: class_points(c.T)),
        ("05.class_points", lambda c: class_points(torch.nn.functional.pad(c, (1, 0, 1, 0)))),
        ("05.sweep_points", lambda v, t, s: sweep_points(v, t, s, above=lambda value, threshold: value >= threshold)),
        # No pixel itself in the spread, no sigma, borders that wrap, shifts the wrong way, a pixel its own neighbour.
        ("04.weights_at", lambda i, y, x, d, s: weights_at(i, y, x, d, s, include_centre=False)),
        ("04.weights_at", lambda i, y, x, d, s: weights_at(i, y, x, d, 1.0)),
        ("04.pixels_reached", lambda d, n: pixels_reached(d, n, stays=True)),
        ("04.pixels_reached", lambda d, n: (2 * max(d) * n + 1) ** 2),
        # Ends of ranges for a range of differences, the wrong sign, the best row, any rounding.
        ("12.paired_range", lambda b, a: ((a - b).mean(), a.min() - b.max(), a.max() - b.min())),
        ("12.paired_range", lambda b, a: paired_range(a, b)),
        ("12.dishonest_row", lambda c, r, f: r.argmax()),
        ("12.dishonest_row", lambda c, r, f: (r != c[:, f]).float().argmax()),
        # Background made void too, ≤ for <, start forgotten.
        ("06.quarrel_filter", lambda s, c, u, m: quarrel_filter(s, c, -1.0, m)),
        ("06.quarrel_filter", lambda s, c, u, m: quarrel_filter(s, c, u, m, behind=lambda g, m: g <= m)),
        ("06.teacher_after", lambda s, t, d: teacher_after(s, s[0], d)),
        ("06.teacher_after", lambda s, t, d: teacher_after(s, t, 1 - d)),
        # No weights 1, 2, 1; zeros beyond the border; all of A pasted; void of A pasted.
        ("08.strength", lambda g: strength(g, weights=(0, 4, 0))),
        ("08.strength", lambda g: strength(torch.nn.functional.pad(g, [1] * 4))[1:-1, 1:-1]),
        ("08.share_left", lambda a, b, c: share_left(a, b, c | True)),
        ("08.share_left", lambda a, b, c: share_left(torch.where(a == 255, 1 + c.int().argmax(), a), b, c)),
        # Beliefs for probabilities, no logarithm, no unary at all; ends left out, radius forgotten, radius included.
        ("11.mean_field_step", lambda p, q, k, w: mean_field_step(q, q, k, w)),
        ("11.mean_field_step", lambda p, q, k, w: (p + w * k @ q).softmax(1)),
        ("11.mean_field_step", lambda p, q, k, w: mean_field_step(torch.ones_like(p), q, k, w)),
        ("11.affinity_from", lambda e, i, r: affinity_from(e, i, r, ends=0)),
        ("11.affinity_from", lambda e, i, r: affinity_from(e, i, 99)),
        ("11.affinity_from", lambda e, i, r: affinity_from(e, i, r + 1)),
        # By pictures; plain, and void as background.
        ("09.part_weights", lambda m, n: torch.full((n,), 1 / n)),
        # Parts that leave a rest, the weights and what belongs to them forgotten, never "none"; no halving, a count
        # that goes on after an overflow, a doubling a step late.
        ("10.fewest_parts", lambda b, f, p, r: math.ceil(b * p / (r - f))),
        ("10.fewest_parts", lambda b, f, p, r: fewest_parts(b, 0, p, r)),
        ("10.fewest_parts", lambda b, f, p, r: fewest_parts(b, f, p, r) or b),
        ("10.scale_path", lambda f, s, n: scale_path(f, s, n, backoff=1.0)),
        ("10.scale_path", lambda f, s, n: scale_path(f, s, n, keeps_count=True)),
        ("10.scale_path", lambda f, s, n: scale_path(f, s, n + 1)),
        ("09.balanced_loss", lambda s, m: F.cross_entropy(s, m, ignore_index=255)),
        ("09.balanced_loss", lambda s, m: balanced_loss(s, m.where(m != 255, 0))),
    ],
)
def test_likely_mistakes_are_found(name, answer):
    assert check(name, answer) is False


def test_an_unknown_exercise_is_named(capsys):
    assert check("01.nothing", tag_scores) is False
    assert "no exercise '01.nothing'; there are 00.confusion_matrix" in capsys.readouterr().out


def test_the_check_leaves_the_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check("01.tag_scores", tag_scores)
    assert torch.equal(before, torch.get_rng_state())
