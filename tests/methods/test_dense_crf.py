import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from rsepm_edu.methods.dense_crf import (
    all_pairs_kernel,
    dense_crf,
    dense_crf_labels,
    lattice_kernel,
    mean_field,
    pixel_features,
    smooth_kernel,
    with_background,
)

SMOOTH = {"smooth_sigma": 1.5, "smooth_weight": 2.0}
APPEARANCE = {"appearance_sigma": 4.0, "colour_sigma": 30.0, "appearance_weight": 1.5}


def random_image(*, batch=2, size=(8, 8), seed=0, dtype=torch.float64):
    """Two colours, left and right of a slanted line, with noise; whole numbers in 0…255, so every dtype holds them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.arange(size[1]) + 0.3 * torch.arange(size[0])[:, None]
    right = (x > 0.6 * size[1]).double()
    image = 60 + 120 * right + 12 * torch.randn(batch, 3, *size, generator=generator, dtype=torch.float64)
    return image.round().clamp(0, 255).to(dtype)


def random_probabilities(*, batch=2, classes=3, size=(8, 8), seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64).mul(2).softmax(1).to(dtype)


def naive_kernel(image, sigma, colour_sigma):
    """All pairs of pixels of one picture 3×H×W, normalised symmetrically, as rows of a list."""
    _, height, width = image.shape
    pixels = [(y, x, image[:, y, x].tolist()) for y in range(height) for x in range(width)]
    rows = []
    for y, x, colour in pixels:
        row = []
        for v, u, other in pixels:
            distance = ((y - v) ** 2 + (x - u) ** 2) / sigma**2
            if colour_sigma is not None:
                distance += sum((a - b) ** 2 for a, b in zip(colour, other, strict=True)) / colour_sigma**2
            row.append(math.exp(-distance / 2))
        rows.append(row)
    norm = [1 / math.sqrt(sum(row)) for row in rows]
    return [[norm[i] * k * norm[j] for j, k in enumerate(row)] for i, row in enumerate(rows)]


def softmax(logits):
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


def naive_crf(image, probabilities, *, iterations):
    """The mean field of ``SMOOTH`` and ``APPEARANCE``, pixel by pixel."""
    result = torch.empty_like(probabilities)
    for b in range(len(image)):
        kernels = [
            (SMOOTH["smooth_weight"], naive_kernel(image[b], SMOOTH["smooth_sigma"], None)),
            (
                APPEARANCE["appearance_weight"],
                naive_kernel(image[b], APPEARANCE["appearance_sigma"], APPEARANCE["colour_sigma"]),
            ),
        ]
        unary = [[math.log(min(max(p, 1e-5), 1)) for p in pixel] for pixel in probabilities[b].flatten(1).T.tolist()]
        beliefs = [softmax(logits) for logits in unary]
        for _ in range(iterations):
            messages = []
            for i, logits in enumerate(unary):
                total = list(logits)
                for weight, kernel in kernels:
                    for j, belief in enumerate(beliefs):
                        for c, q in enumerate(belief):
                            total[c] += weight * kernel[i][j] * q
                messages.append(total)
            beliefs = [softmax(total) for total in messages]
        result[b] = torch.tensor(beliefs, dtype=torch.float64).T.view_as(result[b])
    return result


def exact_kernels(image):
    appearance = pixel_features(image, APPEARANCE["appearance_sigma"], APPEARANCE["colour_sigma"])
    return [
        (SMOOTH["smooth_weight"], all_pairs_kernel(pixel_features(image, SMOOTH["smooth_sigma"]))),
        (APPEARANCE["appearance_weight"], all_pairs_kernel(appearance)),
    ]


def assert_near(result, wanted, tolerance=1e-9):
    torch.testing.assert_close(result.double(), wanted.double(), rtol=0, atol=tolerance)


def normalized(kernel, values):
    norm = kernel(torch.ones_like(values[..., :1])).rsqrt()
    return norm * kernel(norm * values)


# against the formula


@pytest.mark.parametrize(
    ("iterations", "classes"), [(0, 3), (1, 3), (4, 3), (1, 9)]
)  # few and many are apart in the code
def test_all_pairs_equal_the_naive_loops(iterations, classes):
    image, probabilities = random_image(), random_probabilities(classes=classes)
    wanted = naive_crf(image, probabilities, iterations=iterations)
    assert_near(mean_field(probabilities, exact_kernels(image), iterations=iterations), wanted)


def test_the_fast_form_is_near_all_pairs():
    image, probabilities = random_image(), random_probabilities()
    for iterations, tolerance in ((0, 1e-9), (1, 0.1), (4, 0.25)):
        wanted = mean_field(probabilities, exact_kernels(image), iterations=iterations)
        refined = dense_crf(image, probabilities, iterations=iterations, **SMOOTH, **APPEARANCE)
        assert_near(refined, wanted, tolerance)
        assert (refined - wanted).abs().mean() < tolerance / 5
    assert (refined.argmax(1) == wanted.argmax(1)).double().mean() > 0.98
    assert (probabilities.argmax(1) != wanted.argmax(1)).double().mean() > 0.1, "there was something to refine"


@pytest.mark.parametrize(("sigma", "tolerance"), [(0.5, 1e-5), (1.0, 1e-5), (3.0, 1e-12), (100.0, 1e-12)])
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 9), (7, 2)])
def test_rows_and_columns_equal_all_pairs(size, sigma, tolerance):
    values = random_probabilities(size=size).permute(0, 2, 3, 1)
    exact = all_pairs_kernel(pixel_features(random_image(size=size), sigma))
    assert_near(smooth_kernel(sigma)(values), exact(values), tolerance)


def test_the_lattice_is_near_all_pairs():
    """Of a range of 1: 0.01 on average, 0.1 at most. The approximation is the lattice's and cannot be made smaller."""
    image = random_image(size=(16, 20))
    features = pixel_features(image, 6.0, 25.0)
    values = torch.sigmoid((image[:, :2] - 120) / 20).permute(0, 2, 3, 1)
    exact = normalized(all_pairs_kernel(features), values)
    error = (normalized(lattice_kernel(features), values) - exact).abs()
    assert error.max() < 0.1
    assert error.mean() < 0.01


def test_two_pixels_by_hand():
    # Neighbours at distance 1 with σ = 1: k = exp(-1/2), every row sums to 1 + k, so the messages are
    # (q_i + k·q_j) / (1 + k).
    probabilities = torch.tensor([[[[0.9, 0.4]], [[0.1, 0.6]]]], dtype=torch.float64)
    k = math.exp(-0.5)
    message = [(0.4 + k * 0.9) / (1 + k), (0.6 + k * 0.1) / (1 + k)]
    wanted = softmax([math.log(0.4) + 2 * message[0], math.log(0.6) + 2 * message[1]])
    refined = mean_field(probabilities, [(2.0, smooth_kernel(1.0))], iterations=1)
    assert refined[0, :, 0, 1].tolist() == pytest.approx(wanted, rel=1e-12)


def test_pixel_features_are_column_row_and_colours():
    image = random_image(size=(3, 4))
    features = pixel_features(image, 2.0, 5.0)
    assert features.shape == (2, 3, 4, 5)
    assert features[1, 2, 3].tolist() == pytest.approx([1.5, 1.0, *(image[1, :, 2, 3] / 5).tolist()])
    assert torch.equal(pixel_features(image, 2.0), features[..., :2])


# what it is for


def test_a_blurred_border_moves_to_the_edge_of_the_photograph():
    image = torch.full((1, 3, 24, 24), 50, dtype=torch.uint8)
    image[..., 14:] = 200
    right = torch.linspace(0.1, 0.9, 24).expand(1, 1, 24, 24)  # says: from column 12 on
    refined = dense_crf(image, torch.cat([1 - right, right], dim=1)).argmax(1)
    assert torch.equal(refined[0, 0], (torch.arange(24) >= 14).long())
    assert (refined == refined[:, :1]).all()


def test_labels_are_refined_and_void_is_filled():
    image = torch.full((1, 3, 24, 24), 50, dtype=torch.uint8)
    image[..., 14:] = 200
    wanted = (torch.arange(24) >= 14).to(torch.uint8).expand(1, 24, 24)
    labels = wanted.clone()
    labels[..., 10:18] = 255
    labels[0, 5, 3] = 1
    refined = dense_crf_labels(image, labels, 2)
    assert refined.dtype == torch.uint8
    assert torch.equal(refined, wanted)


def test_labels_are_probabilities_of_confidence():
    image = random_image(size=(24, 24))
    labels = torch.randint(0, 5, (2, 24, 24), generator=torch.Generator().manual_seed(2))
    labels[labels == 4] = 255
    # Messages about as strong as the labels, so that a little more or less confidence shows.
    settings = {"iterations": 2, "smooth_sigma": 2.0, "smooth_weight": 2.0, "appearance_sigma": 4.0}
    settings |= {"colour_sigma": 20.0, "appearance_weight": 16.0}
    probabilities = torch.full((2, 4, 24, 24), 0.4 / 3)
    for label in range(4):
        probabilities[:, label][labels == label] = 0.6
    probabilities.movedim(1, -1)[labels == 255] = 0.25
    wanted = dense_crf(image, probabilities, **settings).argmax(1)
    assert torch.equal(dense_crf_labels(image, labels, 4, confidence=0.6, **settings), wanted)
    assert 0.1 < (wanted != labels)[labels != 255].double().mean() < 0.9


def test_the_settings_for_labels_are_those_of_irnet():
    image, labels = random_image(size=(20, 20)), random_probabilities(size=(20, 20)).argmax(1)
    settings = {"smooth_sigma": 3, "smooth_weight": 3, "appearance_sigma": 50, "colour_sigma": 5}
    given = dense_crf_labels(image, labels, 3, confidence=0.7, iterations=10, appearance_weight=10, **settings)
    assert torch.equal(dense_crf_labels(image, labels, 3), given)


def test_background_goes_in_front():
    seed = torch.tensor([[0.2, 0.0, 1.0], [0.5, 0.0, 0.3]], dtype=torch.float64).view(1, 2, 1, 3)
    wanted = torch.tensor([0.25, 1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 3)
    assert_near(with_background(seed), torch.cat([wanted, seed], dim=1), 1e-12)
    assert_near(with_background(seed, power=1.0)[:, :1], wanted.sqrt(), 1e-12)
    assert with_background(seed.half()).dtype == torch.float16


# how it behaves


def test_beliefs_add_up_to_one_whatever_the_probabilities_add_up_to():
    image, probabilities = random_image(), random_probabilities()
    probabilities[:, 0] = 0  # the logarithm of nothing is clipped
    refined = dense_crf(image, probabilities * 0.5)
    assert refined.isfinite().all()
    assert_near(refined.sum(1), torch.ones(2, 8, 8), 1e-9)
    assert refined.is_contiguous()


def test_a_batch_is_its_pictures_one_by_one():
    image, probabilities = random_image(batch=3), random_probabilities(batch=3)
    singles = [dense_crf(image[b : b + 1], probabilities[b : b + 1]) for b in range(3)]
    assert_near(dense_crf(image, probabilities), torch.cat(singles), 1e-9)
    assert dense_crf(image[:0], probabilities[:0]).shape == (0, 3, 8, 8)


def test_the_order_of_the_classes_does_not_matter():
    image, probabilities = random_image(), random_probabilities(classes=4)
    order = [2, 0, 3, 1]
    assert_near(dense_crf(image, probabilities[:, order]), dense_crf(image, probabilities)[:, order], 1e-9)


@pytest.mark.parametrize("classes", [3, 9])
def test_a_great_weight_does_not_overflow(classes):
    refined = dense_crf(random_image().float(), random_probabilities(classes=classes).float(), appearance_weight=1e4)
    assert refined.isfinite().all()
    assert_near(refined.sum(1), torch.ones(2, 8, 8), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_and_does_not_overflow(dtype):
    # More pixels of one colour than float16 can count, and colours that bfloat16 holds.
    image = torch.full((1, 3, 260, 260), 128, dtype=dtype)
    image[..., 130:] = 240
    probabilities = random_probabilities(batch=1, size=(260, 260), dtype=dtype)
    refined = dense_crf(image, probabilities, iterations=2)
    assert refined.dtype == dtype
    wanted = dense_crf(image.float(), probabilities.float(), iterations=2)
    assert torch.equal(refined, wanted.to(dtype))


def test_autocast_does_not_round_the_messages():
    image, probabilities = random_image().float(), random_probabilities().float()
    wanted = dense_crf(image, probabilities, iterations=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(dense_crf(image, probabilities, iterations=3), wanted)


def test_uint8_and_floating_images_are_the_same():
    image, probabilities = random_image(), random_probabilities()
    assert torch.equal(dense_crf(image.to(torch.uint8), probabilities), dense_crf(image, probabilities))


def test_inputs_are_left_as_they_were_and_carry_no_gradient():
    image, probabilities = random_image().requires_grad_(), random_probabilities(classes=1).requires_grad_()
    copies = image.detach().clone(), probabilities.detach().clone()
    assert not dense_crf(image, probabilities).requires_grad
    assert torch.equal(image, copies[0]) and torch.equal(probabilities, copies[1])


@pytest.mark.gpu
def test_the_gpu_gives_the_same():
    image, probabilities = random_image(), random_probabilities()
    refined = dense_crf(image.cuda(), probabilities.cuda())
    assert refined.is_cuda
    assert_near(refined.cpu(), dense_crf(image, probabilities))


# what it rejects


@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        ((1, 3, 6, 7), (2, 6, 7), r"^probabilities: expected BxCxhxw, got shape \(2, 6, 7\)$"),
        ((3, 6, 7), (1, 2, 6, 7), r"^image: expected Bx3xHxW = \(1, 3, 6, 7\), got shape \(3, 6, 7\)$"),
        ((1, 1, 6, 7), (1, 2, 6, 7), r"^image: expected Bx3xHxW = \(1, 3, 6, 7\), got shape \(1, 1, 6, 7\)$"),
        ((2, 3, 6, 7), (1, 2, 6, 7), r"^image: .* \(1, 3, 6, 7\), got shape \(2, 3, 6, 7\)$"),
        ((1, 3, 7, 6), (1, 2, 6, 7), r"^image: .* \(1, 3, 6, 7\), got shape \(1, 3, 7, 6\)$"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(image, probabilities, message):
    with pytest.raises(ValueError, match=message):
        dense_crf(torch.zeros(image), torch.zeros(probabilities))


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="^probabilities: expected a floating dtype, got torch.int64$"):
        dense_crf(random_image(), random_probabilities().long())
    with pytest.raises(TypeError, match="^image: expected uint8 or a floating dtype, got torch.int64$"):
        dense_crf(random_image().long(), random_probabilities())
    with pytest.raises(TypeError, match="^labels: expected an integer dtype, got torch.float64$"):
        dense_crf_labels(random_image(), torch.zeros(2, 8, 8, dtype=torch.float64), 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": -1}, "^iterations: expected >= 0, got -1$"),
        ({"smooth_sigma": 0}, r"^expected sigmas > 0 and weights >= 0, got \[0, 67, 3\] and \[3, 4\]$"),
        ({"appearance_sigma": -1.0}, r"got \[1, -1.0, 3\] and \[3, 4\]$"),
        ({"colour_sigma": 0.0}, r"got \[1, 67, 0.0\] and \[3, 4\]$"),
        ({"smooth_weight": -1}, r"got \[1, 67, 3\] and \[-1, 4\]$"),
        ({"appearance_weight": -1}, r"got \[1, 67, 3\] and \[3, -1\]$"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        dense_crf(random_image(), random_probabilities(), **settings)


@pytest.mark.parametrize(
    ("labels", "num_labels", "confidence", "message"),
    [
        (torch.zeros(8, 8).long(), 2, 0.7, r"^labels: expected BxHxW, got shape \(8, 8\)$"),
        (torch.full((2, 8, 8), 2), 2, 0.7, r"^labels: expected 0 ... 1 or 255, got \[2\]$"),
        (torch.full((2, 8, 8), -1), 2, 0.7, r"^labels: expected 0 ... 1 or 255, got \[-1\]$"),
        (torch.zeros(2, 8, 8).long(), 1, 0.7, r"^expected num_labels >= 2 and confidence in \(0, 1\), got 1 and 0.7$"),
        (torch.zeros(2, 8, 8).long(), 2, 1.0, r"^expected num_labels >= 2 and confidence in \(0, 1\), got 2 and 1.0$"),
    ],
)
def test_wrong_labels_are_refused(labels, num_labels, confidence, message):
    with pytest.raises(ValueError, match=message):
        dense_crf_labels(random_image(), labels, num_labels, confidence=confidence)


def test_a_power_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="^power: expected > 0, got 0$"):
        with_background(random_probabilities(), power=0)


# against pydensecrf


def pydensecrf(image, unary, smooth, appearance):
    """Labels H×W by pydensecrf from an image H×W×3 and a unary C×H×W; smooth = (σ, weight), appearance = (σ, σ, w)."""
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed")
    classes, height, width = unary.shape
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(unary.reshape(classes, -1), dtype=np.float32))
    field.addPairwiseGaussian(sxy=smooth[0], compat=smooth[1])
    field.addPairwiseBilateral(
        sxy=appearance[0], srgb=appearance[1], rgbim=np.ascontiguousarray(image), compat=appearance[2]
    )
    return np.array(field.inference(10)).argmax(0).reshape(height, width)


def photographs(folder, count):
    """Image H×W×3 and mask H×W (present classes counted from 0, void 255) of photographs all over the train list."""
    names = (folder / "ImageSets/Segmentation/train.txt").read_text().split()
    for name in names[:: len(names) // count][:count]:
        image = np.array(Image.open(folder / f"JPEGImages/{name}.jpg").convert("RGB"))
        mask = np.array(Image.open(folder / f"SegmentationClass/{name}.png"))
        present = np.unique(mask[mask != 255])
        yield image, np.where(mask == 255, 255, np.searchsorted(present, mask)).astype(np.uint8)


def test_probabilities_agree_with_pydensecrf(voc_sample):
    for image, mask in photographs(voc_sample, 2):
        labels = torch.from_numpy(mask).long().masked_fill(torch.from_numpy(mask) == 255, 0)
        maps = F.one_hot(labels).movedim(-1, 0)[None].float()
        noise = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))
        probabilities = (4 * F.avg_pool2d(maps + noise, 31, stride=1, padding=15)).softmax(1)
        wanted = pydensecrf(image, -probabilities[0].log().numpy(), (1, 3), (67, 3, 4))
        refined = dense_crf(torch.from_numpy(image).permute(2, 0, 1)[None], probabilities).argmax(1)[0].numpy()
        assert (refined == wanted).mean() >= 0.98
        assert (probabilities.argmax(1)[0].numpy() == wanted).mean() < 0.99, "there was something to refine"


def test_labels_agree_with_pydensecrf(voc_sample):
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is not installed")
    from pydensecrf.utils import unary_from_labels

    for image, mask in photographs(voc_sample, 2):
        num_labels = int(mask[mask != 255].max()) + 1
        unsure = (mask + 1).astype(np.int64)  # 255 becomes 0, which pydensecrf leaves open
        unary = unary_from_labels(unsure, num_labels, gt_prob=0.7, zero_unsure=True).reshape(num_labels, *mask.shape)
        wanted = pydensecrf(image, unary, (3, 3), (50, 5, 10))
        image_tensor, labels = torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(mask)[None]
        assert (dense_crf_labels(image_tensor, labels, num_labels)[0].numpy() == wanted).mean() >= 0.98


def test_pictures_and_probabilities_out_of_their_range_are_refused():
    image, probabilities = random_image(), random_probabilities()
    for wrong, message in (
        (image / 255, r"^image: expected values in 0 ... 255, got none above 0\.\d+, as in 0 ... 1$"),
        (image / 127.5 - 1, r"^image: expected numbers in 0 ... 255, got -"),
        (image * 257, r"^image: expected numbers in 0 ... 255, got "),
        (image.masked_fill(image == image.max(), torch.nan), "^image: expected numbers in 0 ... 255, got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            dense_crf(wrong, probabilities)
    for wrong in (
        probabilities.logit(),
        probabilities * 100,
        probabilities.masked_fill(probabilities == probabilities.max(), torch.nan),
    ):
        with pytest.raises(ValueError, match=r"^probabilities: expected numbers in 0 ... 1, got "):
            dense_crf(image, wrong)
    dense_crf(torch.zeros_like(image), probabilities + 1e-5)  # black is black in any range; rounding is no mistake
    dense_crf((image / 255).to(torch.uint8), probabilities)
