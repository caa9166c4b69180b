"""Scoring, each map put together by hand: one picture, one view, one class at a time."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsepm_edu.data.transforms import normalise
from rsepm_edu.evaluation.scoring import SeedScores, score_seeds, seed_maps, segmentation_confusion
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.labels import VOID
from rsepm_edu.methods.pamr import pamr
from rsepm_edu.methods.scg import scg
from rsepm_edu.models.network import SingleStageNetwork, build_network

CLASSES = ("cat", "dog", "cow")
TAGS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
STRIDE = 4
THRESHOLDS = [0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Blots of colour with noise on them, B×3×H×W uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 5, generator=generator)
    fine = torch.rand(count, 3, *size, generator=generator)
    return (200 * F.interpolate(coarse, size=size) + 55 * fine).to(torch.uint8)


@pytest.fixture(scope="module")
def network() -> SingleStageNetwork:
    """Random weights with statistics of their pictures, and a decoder to which all labels occur."""
    torch.manual_seed(3)
    made = build_network("creatures", CLASSES, decoder_channels=16, decoder_rates=(1, 2), separable=True)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        made.train()(normalise(pictures(4, (44, 52), seed=1)))
    last = made.decoder.refine[-1]
    last.weight.data *= 8
    made.classifier.weight.data *= 4
    with torch.no_grad():
        logits = made.eval()(normalise(pictures(4, (44, 52), seed=1))).seg_logits
        last.bias -= logits.mean(dim=(0, 2, 3))
    return made


# the maps


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def shrunk(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def stretched(plane: Tensor) -> Tensor:
    return plane.clamp(min=0) / (plane.max().clamp(min=0) + 1e-5)


@torch.no_grad()
def summed_views(
    network: SingleStageNetwork, image: Tensor, scales: Sequence[float], mirror: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one picture 3×H×W: sum of positive CAMs, mean label probabilities, mean tag probabilities."""
    size = image.shape[1:]
    cam, probabilities, tags, views = torch.zeros(3, *size), torch.zeros(4, *size), torch.zeros(3), 0
    for scale in scales:
        height, width = (max(1, round(side * scale / STRIDE)) * STRIDE for side in size)
        view = image[None] if (height, width) == tuple(size) else shrunk(image[None], (height, width))
        for flipped in (False, True) if mirror else (False,):
            outputs = network(view.flip(3) if flipped else view)
            assert outputs.seg_logits is not None
            positive = enlarged(outputs.cam.clamp(min=0), size)[0]
            soft = enlarged(outputs.seg_logits, size)[0].exp()
            soft = soft / soft.sum(dim=0)
            cam += positive.flip(2) if flipped else positive
            probabilities += soft.flip(2) if flipped else soft
            tags += 1 / (1 + (-outputs.tag_logits[0]).exp())
            views += 1
    return cam, probabilities / views, tags / views


@torch.no_grad()
def composed(
    network: SingleStageNetwork,
    image: Tensor,
    tags: Tensor,
    *,
    scales: Sequence[float],
    mirror: bool,
    scg_threshold: float,
    pamr_stride: int,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """All maps of one picture 3×H×W, 3×H×W each, the labels by arg-max and how far they lead the next, H×W."""
    height, width = image.shape[1:]
    cam, probabilities, _ = summed_views(network, image, scales, mirror)
    stage2 = network.backbone.stages[0](image[None])
    stage3 = network.backbone.stages[1](stage2)
    stage4 = network.backbone.stages[2](stage3)
    stage5 = network.backbone.stages[3](stage4)
    small = shrunk(image[None], (height // pamr_stride, width // pamr_stride))

    def refined(plane: Tensor) -> Tensor:
        moved = pamr(small, enlarged(plane[None, None], small.shape[2:]))
        return enlarged(stretched(moved), (height, width))[0, 0]

    names = ("cam", "cam+pamr", "cam+scg", "cam+scg+pamr", "decoder", "decoder+pamr")
    maps = {name: torch.zeros(3, height, width) for name in names}
    present = [k for k in range(3) if tags[k]]
    everything = probabilities[0] + sum(probabilities[k + 1] for k in present)
    labels, best = torch.zeros(height, width, dtype=torch.int64), probabilities[0].clone()
    lead = torch.full_like(best, torch.inf)
    for k in present:
        maps["cam"][k] = stretched(cam[k])
        coarse = stretched(shrunk(maps["cam"][k][None, None], stage5.shape[2:]))
        spread = scg([stage4, stage5], coarse, torch.ones(1, 1), first_threshold=scg_threshold)
        maps["cam+scg"][k] = enlarged(spread, (height, width))[0, 0]
        maps["decoder"][k] = probabilities[k + 1] / everything
        for name in ("cam", "cam+scg", "decoder"):
            maps[f"{name}+pamr"][k] = refined(maps[name][k])
        labels = torch.where(probabilities[k + 1] > best, k + 1, labels)
        lead = torch.minimum(lead + (probabilities[k + 1] - best).clamp(min=0), (probabilities[k + 1] - best).abs())
        best = torch.maximum(probabilities[k + 1], best)
    return maps, labels, lead


DEFAULTS = {"scales": (1.0, 0.5, 1.5, 2.0), "mirror": True, "scg_threshold": 0.5, "pamr_stride": 4}
OTHERS = {"scales": (0.75, 1.0), "mirror": False, "scg_threshold": 0.8, "pamr_stride": 2}


@pytest.mark.parametrize("settings", [{}, OTHERS], ids=["defaults", "others"])
def test_every_map_is_the_one_put_together_by_hand(network: SingleStageNetwork, settings: dict) -> None:
    images = normalise(pictures(2, (44, 53)))
    maps, labels = seed_maps(network, images, TAGS, SeedOptions(**settings))
    assert list(maps) == ["cam", "cam+pamr", "cam+scg", "cam+scg+pamr", "decoder", "decoder+pamr"]
    assert labels is not None and len(labels.unique()) > 2
    for b in range(2):
        wanted, wanted_labels, lead = composed(network, images[b], TAGS[b], **DEFAULTS | settings)
        for name, planes in wanted.items():
            assert maps[name].shape == (2, 3, 44, 53)
            for k in range(3):
                torch.testing.assert_close(maps[name][b, k], planes[k], rtol=0, atol=1e-4, msg=f"{name} {b} {k}")
                assert float(planes[k].max() - planes[k].min()) > 0.05 or not TAGS[b, k], "a map, not a field"
        decided = lead > 1e-4  # nearer than that, the order of the sum decides
        assert decided.float().mean() > 0.9 and torch.equal(labels[b][decided], wanted_labels[decided])


def test_without_the_decoder_the_other_maps_are_the_same(network: SingleStageNetwork) -> None:
    images = normalise(pictures(2, (44, 53)))
    whole, _ = seed_maps(network, images, TAGS, SeedOptions(**OTHERS))
    maps, labels = seed_maps(network, images, TAGS, SeedOptions(decode=False, **OTHERS))
    assert list(maps) == ["cam", "cam+pamr", "cam+scg", "cam+scg+pamr"] and labels is None
    for name, values in maps.items():
        torch.testing.assert_close(values, whole[name])


# the scores


def naive_scores(pairs: list[tuple[Tensor, Tensor]], classes: Sequence[int] = (1, 2, 3)) -> tuple[float, float, float]:
    """mIoU, FP and FN of (prediction, mask) pairs, a class at a time over all of their pixels."""
    iou, fp, fn = [], [], []
    for label in (0, *classes):
        both = either = more = less = 0
        for prediction, mask in pairs:
            known = mask != VOID
            said, true = (prediction == label) & known, (mask == label) & known
            both += int((said & true).sum())
            either += int((said | true).sum())
            more += int((said & ~true).sum())
            less += int((true & ~said).sum())
        if either:
            iou.append(both / either)
            if label:
                fp.append(more / either)
                fn.append(less / either)
    return sum(iou) / len(iou), sum(fp) / len(fp), sum(fn) / len(fn)


def naive_labels(seed: Tensor, threshold: float) -> Tensor:
    labels, best = torch.zeros(seed.shape[1:], dtype=torch.int64), torch.full(seed.shape[1:], threshold)
    for k, plane in enumerate(seed):
        labels = torch.where(plane > best, k + 1, labels)
        best = torch.maximum(plane, best)
    return labels


def naive_rows(
    seeds: list[dict[str, Tensor]],
    labels: list[Tensor] | None,
    masks: list[Tensor],
    chosen: dict[str, dict[str, float]],
    classes: Sequence[int] = (1, 2, 3),
) -> list[tuple]:
    """The rows of pictures' seeds 3×H×W by name, labels and masks H×W: name, threshold, choice, numbers."""
    rows: list[tuple] = []
    for name in seeds[0]:
        by_threshold = {}
        for threshold in THRESHOLDS:
            found = [naive_labels(seed[name], threshold) for seed in seeds]
            by_threshold[threshold] = naive_scores(list(zip(found, masks, strict=True)), classes)
        best = max(THRESHOLDS, key=lambda threshold: by_threshold[threshold][0])
        rows.append((name, best, "oracle", by_threshold[best]))
        rows += [(name, thresholds[name], way, by_threshold[thresholds[name]]) for way, thresholds in chosen.items()]
    if labels is not None:
        rows.append(("decoder (arg-max)", None, "none", naive_scores(list(zip(labels, masks, strict=True)), classes)))
    return rows


def expect_rows(rows: list, wanted: list[tuple], *, seed: int, prefix: str = "") -> None:
    assert [row.method for row in rows] == [prefix + name for name, *_ in wanted]
    for row, (_, threshold, choice, numbers) in zip(rows, wanted, strict=True):
        assert (row.threshold, row.choice, row.oracle, row.seed) == (threshold, choice, choice == "oracle", seed)
        assert (row.miou / 100, row.fp, row.fn) == pytest.approx(numbers, abs=1e-12), row.method


def draw_masks(count: int, size: tuple[int, int], seed: int = 2) -> list[Tensor]:
    """Blots of labels with a stripe of void."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 4, (count, 1, 3, 4), generator=generator).float()
    masks = F.interpolate(coarse, size=size)[:, 0].long()
    masks[:, :, ::5] = VOID
    return list(masks)


@pytest.mark.parametrize("classes", [(1, 2, 3), (1, 3)])
def test_rows_are_those_of_a_count_by_hand(classes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    masks = [mask.to(torch.uint8) for mask in draw_masks(3, (9, 12))]
    tags = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    seeds, labels = [], []
    for mask, present in zip(masks, tags, strict=True):
        noise = torch.rand(2, 3, 9, 12, generator=generator)
        right = torch.stack([(mask == k) * 0.3 for k in (1, 2, 3)])
        first, second = (0.7 * noise + right) * present[:, None, None]
        seeds.append({"one": first, "two": second})
        labels.append(torch.randint(0, 4, (9, 12), generator=generator))
    chosen = {"area": {"one": 0.25, "two": 0.5}, "contrast": {"one": 0.8, "two": 0.05}}
    wanted = naive_rows(seeds, labels, masks, chosen, classes)
    assert len({row[1] for row in wanted}) > 3

    def batch(start: int, end: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        named = {name: torch.stack([seed[name] for seed in seeds[start:end]]) for name in ("one", "two")}
        return named, torch.stack(labels[start:end]), torch.stack(masks[start:end])

    settings = {"seed": 5, "chosen": chosen, "prefix": "RS: ", "classes": [CLASSES[label - 1] for label in classes]}
    together, apart, rest = SeedScores(CLASSES), SeedScores(CLASSES), SeedScores(CLASSES)
    together.update(*batch(0, 2))
    together.update(*batch(2, 3))
    expect_rows(together.rows(**settings), wanted, seed=5, prefix="RS: ")
    apart.update(*batch(1, 3))
    rest.update(*batch(0, 1))
    apart.merge(rest)
    expect_rows(apart.rows(**settings), wanted, seed=5, prefix="RS: ")


class Photographs(list):
    """Samples that stand for a data set with masks."""

    classes = CLASSES

    def take(self, indices):
        return Photographs(self[index] for index in indices)


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    """Three pictures of different sizes, with void in their masks."""
    tags = (TAGS[0], TAGS[1], torch.tensor([1.0, 1.0, 1.0]))
    samples = Photographs()
    for index, size in enumerate([(24, 32), (33, 40), (40, 21)]):
        [image], [mask] = pictures(1, size, seed=index), draw_masks(1, size, seed=index)
        samples.append({"image": image, "tags": tags[index], "mask": mask.to(torch.uint8)})
    return samples


@pytest.mark.parametrize("decode", [True, False])
def test_a_split_is_scored_picture_by_picture(
    network: SingleStageNetwork, photographs: Photographs, decode: bool
) -> None:
    seeds, labels = [], []
    for sample in photographs:
        maps, found = seed_maps(network, normalise(sample["image"])[None], sample["tags"][None], SeedOptions(**OTHERS))
        assert found is not None
        seeds.append({name: planes[0] for name, planes in maps.items() if decode or "decoder" not in name})
        labels.append(found[0])
    result = score_seeds(network, photographs, SeedOptions(decode=decode, **OTHERS), progress=False)
    wanted = naive_rows(seeds, labels if decode else None, [sample["mask"] for sample in photographs], {})
    expect_rows(result.rows(seed=1), wanted, seed=1)


@pytest.mark.parametrize(("scales", "mirror"), [((1.0, 0.5, 1.5, 2.0), True), ((0.75, 1.0), False)])
def test_the_segmentation_of_a_split_is_counted_pixel_by_pixel(
    network: SingleStageNetwork, photographs: Photographs, scales: tuple[float, ...], mirror: bool
) -> None:
    wanted, seen = [[0] * 4 for _ in range(4)], set()
    for sample in photographs:
        _, probabilities, tags = summed_views(network, normalise(sample["image"]), scales, mirror)
        present = [0, *(k + 1 for k in range(3) if tags[k] >= 0.34)]
        seen.add(tuple(present))
        planes = probabilities.tolist()
        for y, row in enumerate(sample["mask"].tolist()):
            for x, truth in enumerate(row):
                if truth != VOID:
                    wanted[truth][max(present, key=lambda label: planes[label][y][x])] += 1
    assert any(1 < len(present) < 4 for present in seen), "the classifier rules some classes out"
    settings = {} if mirror else {"scales": scales, "mirror": mirror}
    assert segmentation_confusion(network, photographs, progress=False, **settings).tolist() == wanted
