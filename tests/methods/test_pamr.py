import math
import statistics

import pytest
import torch

from rsepm_edu.methods.pamr import pamr

DILATIONS = (1, 2, 4, 8, 12, 24)


def random_image(*, batch=2, channels=3, size=(6, 7), seed=0, dtype=torch.float64):
    """Two colours with noise, so that some neighbours are alike and some are not."""
    generator = torch.Generator().manual_seed(seed)
    dark = torch.rand(batch, 1, *size, generator=generator, dtype=torch.float64) < 0.5
    image = torch.rand(batch, channels, *size, generator=generator, dtype=torch.float64)
    return (image * 0.3 + dark).to(dtype)


def random_masks(*, batch=2, classes=4, size=(6, 7), seed=1, dtype=torch.float64):
    """Values well outside [0, 1]; the pictures have different numbers of channels that are not all zero."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64) * 3 + 1
    for b in range(batch):
        masks[b, [k for k in range(classes) if (k + b) % classes < b]] = 0
    return masks.to(dtype)


def naive_affinity(image, dilations, sigma):
    """For every pixel of one picture CxHxW: a list of (y, x, affinity) of its neighbours."""
    channels, height, width = image.shape
    values = image.double().tolist()
    result = {}
    for y in range(height):
        for x in range(width):
            places, around = [], []
            for d in dilations:
                for dy in (-d, 0, d):
                    for dx in (-d, 0, d):
                        place = (min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1))
                        around.append(place)
                        if (dy, dx) != (0, 0):
                            places.append(place)
            spread = [statistics.stdev(values[c][v][u] for v, u in around) for c in range(channels)]
            logits = [
                sum(-abs(values[c][y][x] - values[c][v][u]) / (1e-8 + sigma * spread[c]) for c in range(channels))
                / channels
                for v, u in places
            ]
            powers = [math.exp(logit - max(logits)) for logit in logits]
            result[y, x] = [(v, u, p / sum(powers)) for (v, u), p in zip(places, powers, strict=True)]
    return result


def naive_pamr(image, masks, *, dilations=DILATIONS, iterations=10, sigma=0.1):
    result = masks.double().clone()
    for b in range(len(image)):
        affinity = naive_affinity(image[b], dilations, sigma)
        for k in range(masks.shape[1]):
            plane = masks[b, k].double().tolist()
            for _ in range(iterations):
                plane = [
                    [sum(a * plane[v][u] for v, u, a in affinity[y, x]) for x in range(len(plane[0]))]
                    for y in range(len(plane))
                ]
            result[b, k] = torch.tensor(plane, dtype=torch.float64)
    return result


def assert_near(result, wanted, tolerance=1e-9):
    torch.testing.assert_close(result.double(), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [(6, 7), (1, 1), (1, 9), (5, 1)])
def test_pamr_equals_the_naive_loops(size):
    image, masks = random_image(size=size), random_masks(size=size)
    assert_near(pamr(image, masks), naive_pamr(image, masks))


@pytest.mark.parametrize(
    "settings",
    [
        {"dilations": (1,), "iterations": 1},
        {"dilations": (3, 1), "iterations": 4, "sigma": 0.5},
        {"dilations": [2, 2], "iterations": 2, "sigma": 0.01},
        {"iterations": 0},
    ],
)
def test_settings_of_pamr_equal_the_naive_loops(settings):
    image, masks = random_image(), random_masks()
    assert_near(pamr(image, masks, **settings), naive_pamr(image, masks, **settings))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_colours(channels):
    image, masks = random_image(channels=channels), random_masks()
    settings = {"dilations": (1, 2), "iterations": 3}
    assert_near(pamr(image, masks, **settings), naive_pamr(image, masks, **settings))


def test_the_affinity_is_what_it_should_be_on_a_row_of_three_pixels():
    image = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 3)
    masks = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).reshape(1, 1, 1, 3)
    # The middle pixel sees (0, 0, 1) three times: 3 ones of 9, a variance of (9 · 1/3 · 2/3) / 8 = 1/4. Of its 8
    # neighbours 3 are on the left, 2 itself (above and below, repeated) and 3 on the right, at distance 1 / (0.1/2).
    right = math.exp(-1 / (1e-8 + 0.1 * 0.5))
    wanted = 3 / (3 + 2 + 3 * right)
    result = pamr(image, masks, dilations=(1,), iterations=1)
    assert float(result[0, 0, 0, 1]) == pytest.approx(wanted, rel=1e-12)
    # The left pixel sees only its own colour: nothing is kept of the difference, all 8 count alike, 5 are itself.
    assert float(result[0, 0, 0, 0]) == pytest.approx(5 / 8, rel=1e-12)


def test_a_map_stays_on_its_side_of_an_edge():
    image = torch.zeros(1, 3, 12, 12)
    image[..., 6:] = 1.0
    masks = torch.zeros(1, 1, 12, 12)
    masks[0, 0, 3:9, 1:5] = 1.0
    refined = pamr(image, masks, dilations=(1, 2))
    assert refined[..., 6:].max() < 1e-3
    # within the side it moves: what was outside gets a share
    assert refined[0, 0, 0, 0] > 0.05


def test_all_neighbours_count_alike_in_a_picture_of_one_colour():
    image = torch.full((1, 3, 5, 5), 0.4)
    masks = torch.zeros(1, 1, 5, 5)
    masks[0, 0, 2, 2] = 1.0
    wanted = torch.zeros(1, 1, 5, 5)
    wanted[0, 0, 1:4, 1:4] = 1 / 8
    wanted[0, 0, 2, 2] = 0  # a pixel is not its own neighbour
    torch.testing.assert_close(pamr(image, masks, dilations=(1,), iterations=1), wanted)


def test_constant_maps_stay_and_no_map_leaves_its_range():
    image, masks = random_image(size=(9, 8)), random_masks(size=(9, 8))
    constant = torch.full_like(masks, -2.5)
    assert_near(pamr(image, constant), constant)
    refined = pamr(image, masks)
    assert (refined.amax(dim=(2, 3)) <= masks.amax(dim=(2, 3)) + 1e-12).all()
    assert (refined.amin(dim=(2, 3)) >= masks.amin(dim=(2, 3)) - 1e-12).all()
    spread = (refined.amax(dim=(2, 3)) - refined.amin(dim=(2, 3)))[masks.flatten(2).any(2)]
    assert (spread > 0).all(), "the maps are not simply flattened"


def test_pamr_is_linear_in_the_masks():
    image, first, second = random_image(), random_masks(), random_masks(seed=2)
    assert_near(pamr(image, 2 * first - 3 * second), 2 * pamr(image, first) - 3 * pamr(image, second))


@pytest.mark.parametrize(("scale", "shift"), [(255.0, 0.0), (0.1, 0.0), (1.0, 1000.0)])
def test_the_scale_and_the_brightness_of_the_picture_do_not_matter(scale, shift):
    image, masks = random_image(), random_masks()
    assert_near(pamr(image * scale + shift, masks), pamr(image, masks), 1e-4)


def test_large_colour_values_do_not_cost_precision_in_float32():
    image, masks = random_image(), random_masks()
    refined = pamr((image + 100).float(), masks.float())
    assert_near(refined, naive_pamr((image + 100).float(), masks.float()), 1e-4)


def test_pictures_with_different_numbers_of_channels_that_are_not_zero():
    image, masks = random_image(batch=4), random_masks(batch=4)
    masks[2] = 0
    active = masks.flatten(2).any(2)
    assert active.sum(1).tolist() == [4, 3, 0, 1]
    refined = pamr(image, masks)
    assert_near(refined, naive_pamr(image, masks))
    assert not refined[~active].any()


def test_masks_of_zeros_stay_zeros():
    refined = pamr(random_image(), torch.zeros(2, 4, 6, 7))
    assert torch.equal(refined, torch.zeros(2, 4, 6, 7))
    assert pamr(random_image(), torch.zeros(2, 0, 6, 7)).shape == (2, 0, 6, 7)
    assert pamr(torch.zeros(0, 3, 6, 7), torch.zeros(0, 4, 6, 7)).shape == (0, 4, 6, 7)


@pytest.mark.parametrize("iterations", [0, 2])
def test_inputs_are_left_as_they_were(iterations):
    image, masks = random_image(), random_masks()
    copies = image.clone(), masks.clone()
    for given in (masks, torch.zeros_like(masks)):
        refined = pamr(image, given, iterations=iterations)
        refined += 1
    assert torch.equal(image, copies[0]) and torch.equal(masks, copies[1]) and not given.any()


def test_memory_layout_does_not_matter():
    image, masks = random_image(), random_masks()
    shuffled = pamr(
        image.contiguous(memory_format=torch.channels_last), masks.transpose(2, 3).contiguous().transpose(2, 3)
    )
    assert_near(shuffled, pamr(image, masks), 1e-12)


@pytest.mark.parametrize("zero_channel", [False, True])
def test_gradients_flow_to_the_masks_and_to_nothing_else(zero_channel):
    image = random_image(size=(3, 4)).requires_grad_()
    masks = random_masks(classes=2, size=(3, 4))
    if zero_channel:
        masks[:] = 0
    masks.requires_grad_()
    torch.autograd.gradcheck(lambda m: pamr(image, m, dilations=(1, 2), iterations=2), (masks,))
    pamr(image, masks, dilations=(1, 2), iterations=2).square().sum().backward()
    assert image.grad is None


def test_the_gradient_of_a_sum_is_the_same_with_and_without_zero_channels():
    image = random_image(batch=1)
    masks = random_masks(batch=1, classes=2)
    masks[:, 1] = 0
    masks.requires_grad_()
    pamr(image, masks, iterations=3).sum().backward()
    assert_near(masks.grad[:, 1], masks.grad[:, 0].double())


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)],
)
def test_every_float_type_comes_back_and_is_near_to_float64(dtype, tolerance):
    image, masks = random_image(dtype=dtype), random_masks(dtype=dtype)
    refined = pamr(image, masks)
    assert refined.dtype == dtype
    assert_near(refined, naive_pamr(image, masks), tolerance)  # rounded once, values up to about 5


def test_image_and_masks_may_differ_in_type():
    image, masks = random_image(dtype=torch.float32), random_masks(dtype=torch.bfloat16)
    assert pamr(image, masks).dtype == torch.bfloat16
    assert_near(pamr(image.double(), masks.float()), naive_pamr(image, masks), 1e-5)


def test_a_batch_is_its_pictures_one_by_one():
    image, masks = random_image(batch=3), random_masks(batch=3)
    singles = [pamr(image[b : b + 1], masks[b : b + 1]) for b in range(3)]
    assert_near(pamr(image, masks), torch.cat(singles), 1e-12)


def test_channels_may_come_in_any_order_and_do_not_touch_each_other():
    image, masks = random_image(), random_masks()
    refined = pamr(image, masks)
    order = [2, 0, 3, 1]
    assert torch.equal(pamr(image, masks[:, order]), refined[:, order])
    for k in range(4):
        assert torch.equal(pamr(image, masks[:, k : k + 1]), refined[:, k : k + 1])


def test_a_mirrored_picture_gives_a_mirrored_result():
    image, masks = random_image(), random_masks()
    for flip in ((2,), (3,), (2, 3)):
        assert_near(pamr(image.flip(flip), masks.flip(flip)), pamr(image, masks).flip(flip))
    turned = pamr(image.transpose(2, 3), masks.transpose(2, 3))
    assert_near(turned, pamr(image, masks).transpose(2, 3))


@pytest.mark.parametrize(
    ("image", "masks", "message"),
    [
        ((3, 6, 7), (1, 2, 6, 7), r"^image: expected BxCxhxw, got shape \(3, 6, 7\)$"),
        ((1, 3, 6, 7), (2, 6, 7), r"^masks: expected BxCxhxw, got shape \(2, 6, 7\)$"),
        ((1, 3, 6, 7), (2, 2, 6, 7), r"^masks: expected .* \(1, 3, 6, 7\), got \(2, 2, 6, 7\)$"),
        ((1, 3, 6, 7), (1, 2, 7, 6), r"^masks: expected B and HxW of the image .* got \(1, 2, 7, 6\)$"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(image, masks, message):
    with pytest.raises(ValueError, match=message):
        pamr(torch.zeros(image), torch.zeros(masks))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="^image: expected a floating dtype, got torch.uint8$"):
        pamr(torch.zeros(1, 3, 6, 7, dtype=torch.uint8), torch.zeros(1, 2, 6, 7))
    with pytest.raises(TypeError, match="^masks: expected a floating dtype, got torch.int64$"):
        pamr(torch.zeros(1, 3, 6, 7), torch.zeros(1, 2, 6, 7, dtype=torch.int64))


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"dilations": ()}, r"\(\), 10 and 0.1"),
        ({"dilations": (1, 0)}, r"\(1, 0\), 10 and 0.1"),
        ({"iterations": -1}, r"\(1, 2, 4, 8, 12, 24\), -1 and 0.1"),
        ({"sigma": 0.0}, r"\(1, 2, 4, 8, 12, 24\), 10 and 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, got):
    message = f"^expected dilations >= 1, iterations >= 0 and sigma > 0, got {got}$"
    with pytest.raises(ValueError, match=message):
        pamr(random_image(), random_masks(), **settings)


@pytest.mark.gpu
def test_the_gpu_gives_the_same():
    image, masks = random_image(), random_masks()
    refined = pamr(image.cuda(), masks.cuda())
    assert refined.is_cuda
    assert_near(refined.cpu(), pamr(image, masks))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    image, masks = random_image(), random_masks()
    for name in ("image", "masks"):
        tensors = {"image": image.clone(), "masks": masks.clone()}
        tensors[name][1, 2, 3, 4] = value
        with pytest.raises(ValueError, match="^image, masks: expected finite numbers, got NaN or infinity$"):
            pamr(**tensors)


def test_channels_that_are_named_need_not_be_looked_for():
    image, masks = random_image(), random_masks()
    masks[:, 2] = 0
    wanted = pamr(image, masks)
    for order in ([0, 1, 3], [3, 0, 1, 2]):  # one of zeros may be among them
        assert torch.equal(pamr(image, masks, channels=torch.tensor([order, order])), wanted)
    assert not pamr(image, masks * 0, channels=torch.zeros(2, 0, dtype=torch.int64)).any()


def test_of_channels_that_are_named_nan_spreads():
    image, masks = random_image(), random_masks()
    masks[1, 2, 3, 4] = math.nan
    refined = pamr(image, masks, channels=torch.tensor([[2], [2]]))
    assert refined[1, 2].isnan().all() and refined[0, 2].isfinite().all()
