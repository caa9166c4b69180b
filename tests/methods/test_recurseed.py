import math

import numpy as np
import pytest
import torch
from PIL import Image

from rsepm_edu.labels import VOID
from rsepm_edu.methods.cam import normalize_cam
from rsepm_edu.methods.pamr import pamr
from rsepm_edu.methods.recurseed import (
    cam_loss,
    conditional_filter,
    decoder_loss,
    pamr_at,
    rec_counts,
    recur_seed,
)
from rsepm_edu.methods.scg import scg

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def random_maps(*, batch=2, classes=3, size=(5, 7), seed=0, dtype=torch.float64):
    """Scores in twentieths, so that many equal 0.55, 0.10 and one another."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 21, (batch, classes, *size), generator=generator)
    scores = torch.where(torch.rand(batch, 1, *size, generator=generator) < 0.3, scores // 8, scores)
    return (scores.double() / 20).to(dtype)


def random_scores(*, batch=2, classes=3, size=(4, 5), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64)).to(dtype)


def random_tags(*, batch=2, classes=3):
    tags = torch.ones(batch, classes, dtype=torch.float64)
    tags[torch.arange(batch), torch.arange(batch) % classes] = 0
    return tags


def random_mask(*, batch=2, labels=4, size=(4, 5), seed=0, void=0.3):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, labels, (batch, *size), generator=generator)
    mask[torch.rand(mask.shape, generator=generator) < void] = VOID
    return mask


def naive_filter(maps, certain, uncertain):
    batch, classes, height, width = maps.shape
    result = torch.zeros(batch, height, width, dtype=torch.int64)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                scores = [float(maps[b, k, y, x]) for k in range(classes)]
                best = max(scores)
                if best >= certain:
                    result[b, y, x] = scores.index(best) + 1
                elif best <= uncertain:
                    result[b, y, x] = 0
                else:
                    result[b, y, x] = VOID
    return result


def span(index, fine, coarse):
    """The fine positions, of a side of `fine`, that a position of a side of `coarse` covers, also in part."""
    return range(index * fine // coarse, -(-(index + 1) * fine // coarse))


def naive_average(maps, size):
    """Averaged to a coarser size, as adaptive pooling does it."""
    result = torch.zeros(*maps.shape[:2], *size, dtype=torch.float64)
    for b in range(maps.shape[0]):
        for k in range(maps.shape[1]):
            for y in range(size[0]):
                for x in range(size[1]):
                    values = [
                        float(maps[b, k, v, u])
                        for v in span(y, maps.shape[2], size[0])
                        for u in span(x, maps.shape[3], size[1])
                    ]
                    result[b, k, y, x] = sum(values) / len(values)
    return result


def naive_cam_loss(cam, target, tags, weight=None):
    total = count = 0.0
    target = naive_average(target, cam.shape[2:])
    for b, maps in enumerate(cam.double().tolist()):
        for k, rows in enumerate(maps):
            highest = max(max(0.0, value) for row in rows for value in row)
            for y, row in enumerate(rows):
                for x, value in enumerate(row):
                    share = float(tags[b, k]) * (1.0 if weight is None else float(weight[b, 0, y, x]))
                    total += share * abs(max(0.0, value) / (highest + 1e-5) - float(target[b, k, y, x]))
                    count += share
    return total / max(1.0, count)


def naive_decoder_loss(seg_logits, mask):
    """Both of the size of the mask."""
    losses = []
    for b, rows in enumerate(mask.tolist()):
        for y, row in enumerate(rows):
            for x, label in enumerate(row):
                if label != VOID:
                    logits = seg_logits[b, :, y, x].double().tolist()
                    losses.append(math.log(sum(math.exp(value) for value in logits)) - logits[label])
    return sum(losses) / max(1, len(losses))


# conditional_filter


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("thresholds", [(0.55, 0.10), (1.0, 0.0), (0.35, 0.30)])
def test_conditional_filter_equals_the_naive_loops(dtype, thresholds):
    maps = random_maps(dtype=dtype)
    # as this type knows the numbers: in half precision 0.55 is not quite 0.55, but still equal to itself
    limits = [float(torch.tensor(value, dtype=dtype)) for value in thresholds]
    mask = conditional_filter(maps, certain=thresholds[0], uncertain=thresholds[1])
    assert mask.dtype == torch.int64
    assert torch.equal(mask, naive_filter(maps, *limits))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_score_at_a_threshold_counts_and_the_next_number_is_void(dtype):
    certain, uncertain = torch.tensor(0.55, dtype=dtype), torch.tensor(0.10, dtype=dtype)
    if dtype in (torch.float32, torch.float64):
        below = torch.nextafter(certain, torch.zeros_like(certain))
        above = torch.nextafter(uncertain, torch.ones_like(uncertain))
    else:
        below, above = certain - 0.01, uncertain + 0.01
    maps = torch.stack([certain, below, above, uncertain]).reshape(1, 1, 1, 4)
    assert conditional_filter(maps).tolist() == [[[1, VOID, VOID, 0]]]


def test_the_cases_hold_every_label_thresholds_and_ties():
    maps = random_maps()
    assert set(conditional_filter(maps).unique().tolist()) == {0, 1, 2, 3, VOID}
    best = maps.amax(dim=1)
    assert (best == 0.55).any() and (best == 0.10).any()
    assert ((maps == best[:, None]).sum(1)[best >= 0.55] > 1).any()


def test_filter_of_a_batch_is_that_of_its_pictures():
    maps = random_maps(batch=3)
    singles = [conditional_filter(maps[b : b + 1]) for b in range(3)]
    assert torch.equal(conditional_filter(maps), torch.cat(singles))


def test_filter_follows_the_order_of_the_classes():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, 5, 7, generator=generator)  # no ties
    order = [2, 0, 1]
    renamed = torch.arange(256)
    renamed[1:4] = torch.tensor([order.index(k) + 1 for k in range(3)])
    assert torch.equal(conditional_filter(maps[:, order]), renamed[conditional_filter(maps)])


@pytest.mark.parametrize(("certain", "uncertain"), [(0.1, 0.1), (0.1, 0.5), (1.1, 0.1), (0.5, -0.1)])
def test_filter_refuses_thresholds_out_of_order(certain, uncertain):
    message = rf"^expected 0 <= uncertain < certain <= 1, got uncertain={uncertain}, certain={certain}$"
    with pytest.raises(ValueError, match=message):
        conditional_filter(random_maps(), certain=certain, uncertain=uncertain)


def test_filter_refuses_other_shapes_and_types():
    with pytest.raises(ValueError, match=r"^maps: expected BxCxhxw, got shape \(3, 5, 7\)$"):
        conditional_filter(random_maps()[0])
    with pytest.raises(TypeError, match="^maps: expected a floating dtype, got torch.int64$"):
        conditional_filter(torch.zeros(1, 2, 3, 3, dtype=torch.int64))


# recur_seed


def recursion_case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, 12, 16, generator=generator, dtype=torch.float64)
    features = torch.randn(2, 4, 3, 4, generator=generator, dtype=torch.float64)
    cam = 3 * torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.float64)
    return images.to(dtype), features.to(dtype), cam.to(dtype), random_tags()


def pillow_resize(maps, size):
    """Bilinear with Pillow, which weights areas when it makes a picture smaller."""
    resized = [
        np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        for plane in maps.flatten(0, 1).float().numpy()
    ]
    return torch.from_numpy(np.stack(resized)).reshape(*maps.shape[:2], *size).double()


@pytest.mark.parametrize("size", [None, (6, 8), (24, 20)])
def test_recur_seed_is_scg_then_pamr_then_the_filter(size):
    images, features, cam, tags = recursion_case()
    result = recur_seed(images, features, cam, tags, size=size, certain=0.6, uncertain=0.2)
    size = size or (12, 16)

    scg_map = scg(features, normalize_cam(cam, tags), tags)
    assert torch.equal(result.scg_map, scg_map)
    # Pillow works in float32
    spread = pamr(pillow_resize(images, size), pillow_resize(scg_map, size))
    highest = spread.amax(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(result.rs_map, spread / (highest + 1e-5), rtol=0, atol=1e-4)
    wanted = conditional_filter(result.rs_map, certain=0.6, uncertain=0.2)
    assert torch.equal(result.pseudo_mask, wanted)
    assert set(wanted.unique().tolist()) >= {0, VOID} and ((wanted > 0) & (wanted < VOID)).any()


@pytest.mark.parametrize("settings", [{}, {"first_threshold": 0.1}])
def test_recur_seed_passes_every_stage_and_the_threshold_on(settings):
    images, features, cam, tags = recursion_case()
    stages = (features[:, :2], features[:, 2:])
    wanted = scg(stages, normalize_cam(cam, tags), tags, **settings)
    assert torch.equal(recur_seed(images, stages, cam, tags, **settings).scg_map, wanted)
    assert not settings or not torch.equal(wanted, scg(stages, normalize_cam(cam, tags), tags))


def test_recur_seed_keeps_absent_classes_out():
    images, features, cam, tags = recursion_case()
    result = recur_seed(images, features, cam, tags)
    for maps in (result.scg_map, result.rs_map):
        assert not maps[tags == 0].any() and maps[tags > 0].any()
    for b in range(2):
        allowed = {0, VOID} | {k + 1 for k in range(3) if tags[b, k]}
        assert set(result.pseudo_mask[b].unique().tolist()) <= allowed
    nothing = recur_seed(images, features, cam, torch.zeros_like(tags))
    assert not nothing.scg_map.any() and not nothing.pseudo_mask.any()


def test_targets_carry_no_gradient():
    images, features, cam, tags = recursion_case()
    for tensor in (images, features, cam):
        tensor.requires_grad_()
    result = recur_seed(images, features, cam, tags)
    assert not any(part.requires_grad for part in result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_recur_seed_works_in_at_least_single_precision(dtype):
    images, features, cam, tags = recursion_case(dtype)
    result = recur_seed(images, features, cam, tags.to(dtype))
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    assert result.scg_map.dtype == result.rs_map.dtype == exact
    assert result.pseudo_mask.dtype == torch.int64
    wanted = recur_seed(images.double(), features.double(), cam.double(), tags)
    for a, b in zip(result[:2], wanted[:2], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-4)


def test_recur_seed_of_a_batch_is_that_of_its_pictures():
    images, features, cam, tags = recursion_case()
    whole = recur_seed(images, features, cam, tags)
    singles = [recur_seed(images[b : b + 1], features[b : b + 1], cam[b : b + 1], tags[b : b + 1]) for b in range(2)]
    for part, parts in zip(whole, zip(*singles, strict=True), strict=True):
        torch.testing.assert_close(part, torch.cat(parts), rtol=0, atol=1e-9)


def test_recur_seed_refuses_what_does_not_go_together():
    images, features, cam, tags = recursion_case()
    with pytest.raises(ValueError, match=r"^images: expected BxCxhxw, got shape \(3, 12, 16\)$"):
        recur_seed(images[0], features, cam, tags)
    with pytest.raises(ValueError, match=r"^masks: expected B and HxW of the image \(1, 3, 12, 16\)"):
        recur_seed(images[:1], features, cam, tags)
    with pytest.raises(ValueError, match=r"^tags: expected BxK = \(2, 3\), got shape \(2, 2\)$"):
        recur_seed(images, features, cam, tags[:, :2])


@pytest.mark.parametrize("size", [(6, 8), (5, 11), (24, 20)])
def test_pamr_at_averages_the_image_and_resizes_the_maps(size):
    images, _, cam, _ = recursion_case()
    maps = cam.sigmoid()
    wanted = pamr(pillow_resize(images, size), pillow_resize(maps, size))
    result = pamr_at(images, maps, size)
    assert result.shape == (2, 3, *size)
    torch.testing.assert_close(result, wanted, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"^maps: expected BxCxhxw, got shape \(3, 3, 4\)$"):
        pamr_at(images, maps[0], size)


# cam_loss and rec_counts


@pytest.mark.parametrize("size", [(4, 5), (8, 10), (7, 13), (9, 5), (3, 2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_cam_loss_equals_the_naive_loops(size, weighted):
    cam, target, tags = random_scores(), random_maps(size=size), random_tags()
    weight = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(1)) if weighted else None
    loss = cam_loss(cam, target, tags, weight)
    assert loss.shape == () and 0 < float(loss) < 1
    assert float(loss) == pytest.approx(naive_cam_loss(cam, target, tags, weight), abs=1e-9)


def test_a_finer_target_by_hand():
    cam = torch.tensor([[[[1.0, 1.0]]]], dtype=torch.float64)
    target = torch.tensor([[[[0.0, 1.0, 0.25, 0.25], [1.0, 1.0, 0.75, 0.75]]]], dtype=torch.float64)
    loss = cam_loss(cam, target, torch.ones(1, 1))
    assert float(loss) == pytest.approx((0.25 + 0.5) / 2, abs=1e-4)  # means of 0.75 and 0.5 against 1 and 1


def test_fractions_of_tags_weigh_their_classes():
    cam, target = random_scores(), random_maps(size=(8, 10))
    tags = torch.tensor([[0.25, 0.0, 1.0], [0.0, 0.5, 0.0]])
    weight = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(2))
    loss = cam_loss(cam, target, tags, weight)
    # a tag of 1/4 still shows its class in full
    assert float(loss) == pytest.approx(naive_cam_loss(cam, target, tags, weight), abs=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
def test_rec_counts_are_what_the_loss_is_a_mean_over(weighted):
    cam, target = random_scores(), random_maps(size=(4, 5))
    tags = torch.tensor([[0.25, 0.0, 1.0], [0.0, 0.5, 0.0]], dtype=torch.float64)
    weight = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(1)).double() if weighted else None
    counts = rec_counts(tags, cam, weight)
    assert counts.shape == cam.shape
    for b in range(2):
        for k in range(3):
            for y in range(4):
                for x in range(5):
                    share = 1.0 if weight is None else float(weight[b, 0, y, x])
                    assert float(counts[b, k, y, x]) == pytest.approx(float(tags[b, k]) * share, abs=1e-12)
    difference = float(((normalize_cam(cam) - target).abs() * counts).sum())
    assert float(cam_loss(cam, target, tags, weight)) == pytest.approx(difference / float(counts.sum()), abs=1e-9)
    with pytest.raises(ValueError, match=r"^weight: expected Bx1xhxw = \(2, 1, 4, 5\), got shape \(2, 3, 4, 5\)$"):
        rec_counts(tags, cam, torch.ones(2, 3, 4, 5))


def test_a_map_that_covers_the_picture_is_pulled_back_where_the_target_is_nothing():
    cam = torch.ones(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]], dtype=torch.float64)
    loss = cam_loss(cam, target, torch.ones(1, 1))
    assert float(loss.detach()) == pytest.approx(1 / 2, rel=1e-4)
    loss.backward()
    assert (cam.grad[0, 0, :, 1] > 0).all()


def test_cam_loss_of_little_weight_does_not_blow_up():
    cam, target, tags = random_scores(), random_maps(size=(4, 5)), random_tags()
    weight = torch.zeros(2, 1, 4, 5)
    assert float(cam_loss(cam, target, tags, weight)) == 0
    weight[0, 0, 1, 2] = 0.01
    loss = float(cam_loss(cam, target, tags, weight))
    assert 0 < loss < 0.02
    assert loss == pytest.approx(naive_cam_loss(cam, target, tags, weight), abs=1e-9)


def test_cam_loss_is_zero_without_a_class_and_where_the_map_is_the_target():
    cam, target, tags = random_scores(), random_maps(size=(4, 5)), random_tags()
    assert float(cam_loss(cam, target, torch.zeros_like(tags))) == 0
    assert float(cam_loss(cam, normalize_cam(cam), tags)) == 0


def test_the_gradient_of_the_cam_loss_flows_to_present_classes_and_not_to_the_target():
    cam, target, tags = random_scores(), random_maps(size=(4, 5)), random_tags()
    target = target + 0.013  # off the map's own zeros, where the absolute value has a kink
    torch.autograd.gradcheck(lambda maps: cam_loss(maps, target, tags), (cam.requires_grad_(),))
    target.requires_grad_()
    cam_loss(cam, target, tags).backward()
    assert target.grad is None
    assert not cam.grad[tags == 0].any()
    assert (cam.grad[tags > 0].abs().amax(dim=(1, 2)) > 0).all()
    cam.grad = None
    cam_loss(cam, target, torch.zeros_like(tags)).backward()
    assert not cam.grad.any()


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.float16, 1e-5), (torch.bfloat16, 1e-5)],
)
def test_cam_loss_of_every_float_type(dtype, tolerance):
    cam, target, tags = random_scores(dtype=dtype), random_maps(size=(4, 5), dtype=dtype), random_tags()
    loss = cam_loss(cam, target, tags.to(dtype))
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(loss) == pytest.approx(naive_cam_loss(cam, target, tags), abs=tolerance)


def test_a_batch_too_large_for_sums_in_half_precision():
    cam = torch.zeros(2, 2, 200, 200, dtype=torch.float16)
    cam[:, :, 0, 0] = 1
    loss = cam_loss(cam, torch.full_like(cam, 0.5), torch.ones(2, 2))  # 160,000 positions; fp16 ends at 65,504
    assert float(loss) == pytest.approx(0.5, abs=1e-3)


def test_cam_loss_refuses_what_does_not_go_together():
    cam, target, tags = random_scores(), random_maps(size=(4, 5)), random_tags()
    with pytest.raises(ValueError, match=r"^target: .* B and K of the cam \(2, 3, 4, 5\), got shape \(2, 1, 4, 5\)$"):
        cam_loss(cam, target[:, :1], tags)
    with pytest.raises(ValueError, match=r"^tags: expected BxK = \(2, 3\), got shape \(2, 1\)$"):
        cam_loss(cam, target, tags[:, :1])
    with pytest.raises(ValueError, match=r"^weight: expected Bx1xhxw = \(2, 1, 4, 5\), got shape \(4, 5\)$"):
        cam_loss(cam, target, tags, torch.ones(4, 5))
    with pytest.raises(ValueError, match=r"^cam: expected BxCxhxw, got shape \(3, 4, 5\)$"):
        cam_loss(cam[0], target, tags)


# decoder_loss


@pytest.mark.parametrize("void", [0.0, 0.3, 1.0])
def test_decoder_loss_equals_the_naive_loops(void):
    seg_logits, mask = random_scores(classes=4), random_mask(void=void)
    loss = decoder_loss(seg_logits, mask)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(naive_decoder_loss(seg_logits, mask), abs=1e-9)


@pytest.mark.parametrize("missing", ["background", "foreground"])
def test_decoder_loss_without_background_or_without_foreground(missing):
    seg_logits, mask = random_scores(classes=4), random_mask()
    mask[(mask == 0) if missing == "background" else (mask > 0)] = VOID
    assert float(decoder_loss(seg_logits, mask)) == pytest.approx(naive_decoder_loss(seg_logits, mask), abs=1e-9)


def test_logits_are_brought_to_the_size_of_the_mask():
    seg_logits, mask = random_scores(classes=4, size=(2, 3)), random_mask(size=(8, 9))
    enlarged = pillow_resize(seg_logits, (8, 9))  # float32
    assert float(decoder_loss(seg_logits, mask)) == pytest.approx(naive_decoder_loss(enlarged, mask), abs=1e-5)


def test_all_void_is_zero_with_a_zero_gradient():
    seg_logits = random_scores(classes=4).requires_grad_()
    loss = decoder_loss(seg_logits, torch.full((2, 4, 5), VOID))
    loss.backward()
    assert loss.item() == 0 and not seg_logits.grad.any()


def test_the_gradient_of_the_decoder_loss_leaves_void_alone():
    seg_logits, mask = random_scores(classes=4), random_mask()
    torch.autograd.gradcheck(lambda logits: decoder_loss(logits, mask), (seg_logits.requires_grad_(),))
    decoder_loss(seg_logits, mask).backward()
    size = seg_logits.grad.abs().sum(dim=1)
    assert not size[mask == VOID].any()
    assert (size[mask != VOID] > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoder_loss_of_every_float_type(dtype):
    seg_logits, mask = random_scores(classes=4, dtype=dtype), random_mask()
    loss = decoder_loss(seg_logits, mask)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(loss) == pytest.approx(naive_decoder_loss(seg_logits, mask), abs=1e-5)


def test_decoder_loss_follows_the_order_of_the_labels():
    seg_logits, mask = random_scores(classes=4), random_mask()
    order = [0, 3, 1, 2]
    renamed = torch.arange(256)
    renamed[:4] = torch.tensor([order.index(label) for label in range(4)])
    loss = decoder_loss(seg_logits[:, order], renamed[mask])
    assert float(loss) == pytest.approx(float(decoder_loss(seg_logits, mask)), abs=1e-12)


def test_decoder_loss_refuses_what_does_not_go_together():
    seg_logits, mask = random_scores(classes=4), random_mask()
    with pytest.raises(ValueError, match=r"^seg_logits: expected BxCxhxw, got shape \(4, 4, 5\)$"):
        decoder_loss(seg_logits[0], mask)
    with pytest.raises(ValueError, match=r"^pseudo_mask: expected BxHxW, B = 2, got shape \(1, 4, 5\)$"):
        decoder_loss(seg_logits, mask[:1])
    with pytest.raises(ValueError, match=r"^pseudo_mask: expected BxHxW, B = 2, got shape \(4, 5\)$"):
        decoder_loss(seg_logits, mask[0])


@pytest.mark.gpu
def test_the_gpu_gives_the_same():
    images, features, cam, tags = recursion_case()
    on_gpu = recur_seed(images.cuda(), features.cuda(), cam.cuda(), tags.cuda())
    for a, b in zip(on_gpu, recur_seed(images, features, cam, tags), strict=True):
        assert a.is_cuda
        torch.testing.assert_close(a.cpu(), b, rtol=0, atol=1e-9)
    seg_logits, mask = random_scores(classes=4), random_mask()
    torch.testing.assert_close(decoder_loss(seg_logits.cuda(), mask.cuda()).cpu(), decoder_loss(seg_logits, mask))
    for dtype in (torch.float64, torch.float32):
        maps = random_maps(dtype=dtype)
        assert torch.equal(conditional_filter(maps.cuda()).cpu(), conditional_filter(maps))
