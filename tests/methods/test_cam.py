from math import exp, log

import pytest
import torch
from torch import nn

from rsepm_edu.methods.cam import cam_from_features, normalize_cam, tag_loss

SIZES = [(1, 1, 1, 1, 1), (2, 3, 5, 4, 7), (3, 2, 1, 5, 1)]  # B, C, K, h, w


def random_case(batch, channels, classes, height, width, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(classes, channels, generator=generator, dtype=torch.float64)
    return features.to(dtype), weight.to(dtype)


def random_maps(*, batch=3, classes=4, size=(5, 7), seed=0, dtype=torch.float64):
    """Raw scores of both signs, one class nowhere positive, and tags with an absent class in every row."""
    generator = torch.Generator().manual_seed(seed)
    cam = torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64) * 3
    cam[0, 1] = -cam[0, 1].abs() - 0.1
    tags = torch.ones(batch, classes, dtype=torch.float64)
    tags[torch.arange(batch), torch.arange(batch) % classes] = 0
    return cam.to(dtype), tags.to(dtype)


def naive_cam(features, weight):
    batch, channels, height, width = features.shape
    result = torch.zeros(batch, len(weight), height, width, dtype=torch.float64)
    for b in range(batch):
        for k in range(len(weight)):
            for y in range(height):
                for x in range(width):
                    result[b, k, y, x] = sum(float(weight[k, c]) * float(features[b, c, y, x]) for c in range(channels))
    return result


def naive_normalized(cam, tags=None):
    result = torch.zeros(cam.shape, dtype=torch.float64)
    for b, maps in enumerate(cam.double().tolist()):
        for k, rows in enumerate(maps):
            if tags is not None and float(tags[b, k]) == 0:
                continue
            highest = max(max(0.0, value) for row in rows for value in row)
            for y, row in enumerate(rows):
                for x, value in enumerate(row):
                    result[b, k, y, x] = max(0.0, value) / (highest + 1e-5)
    return result


@pytest.mark.parametrize("shape", SIZES)
def test_cam_equals_the_naive_loops(shape):
    features, weight = random_case(*shape)
    cam = cam_from_features(features, weight)
    torch.testing.assert_close(cam, naive_cam(features, weight), rtol=0, atol=1e-12)


def test_cam_by_hand():
    features = torch.tensor([[[[1.0, 0.0], [2.0, -1.0]], [[0.0, 3.0], [1.0, 1.0]]]])
    weight = torch.tensor([[2.0, 1.0], [-1.0, 1.0]])
    wanted = torch.tensor([[[[2.0, 3.0], [5.0, -1.0]], [[-1.0, 3.0], [-1.0, 2.0]]]])
    assert torch.equal(cam_from_features(features, weight), wanted)
    wanted = torch.tensor([[[[2.0, 3.0], [5.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]]) / (5 + 1e-5)
    torch.testing.assert_close(normalize_cam(cam_from_features(features, weight), torch.tensor([[1.0, 0.0]])), wanted)


def test_cam_of_a_hook_and_a_linear_layer_equals_a_convolution_before_the_pooling():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()).double()
    linear = nn.Linear(6, 4, bias=False).double()
    pooled_first = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    convolution = nn.Conv2d(6, 4, 1, bias=False).double()
    convolution.weight.data = linear.weight.data[:, :, None, None].clone()
    images = torch.randn(2, 3, 9, 5, dtype=torch.float64)

    seen = []
    hook = body.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        logits = pooled_first(images)
        hook.remove()
        by_convolution = convolution(body(images))
        for weight in (linear.weight, convolution.weight):
            cam = cam_from_features(seen[0], weight)
            torch.testing.assert_close(cam, by_convolution, rtol=0, atol=1e-12)
            torch.testing.assert_close(cam.mean(dim=(2, 3)), logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 6)])
@pytest.mark.parametrize("with_tags", [True, False])
def test_normalized_cam_equals_the_naive_loops(size, with_tags):
    cam, tags = random_maps(size=size)
    tags = tags if with_tags else None
    torch.testing.assert_close(normalize_cam(cam, tags), naive_normalized(cam, tags), rtol=0, atol=1e-12)


def test_normalized_cam_lies_in_0_to_1_and_reaches_1_where_something_is_positive():
    cam, tags = random_maps()
    seed = normalize_cam(cam * 1e6, tags)
    assert seed.min() == 0 and seed.max() <= 1
    peaks = seed.amax(dim=(2, 3))
    assert (peaks[tags == 0] == 0).all()
    shown = (tags > 0) & (cam.amax(dim=(2, 3)) > 0)
    assert (peaks[shown] > 1 - 1e-9).all()
    assert shown.sum() < (tags > 0).sum(), "the case should hold a present class that is nowhere positive"
    assert (peaks[(tags > 0) & ~shown] == 0).all()


def test_normalized_cam_does_not_depend_on_the_scale_of_the_scores():
    cam, tags = random_maps()
    torch.testing.assert_close(normalize_cam(7 * cam, tags), normalize_cam(cam, tags), rtol=1e-4, atol=0)


def test_eps_keeps_zero_zero_and_can_be_set():
    assert torch.equal(normalize_cam(torch.zeros(1, 2, 3, 3)), torch.zeros(1, 2, 3, 3))
    assert torch.equal(normalize_cam(torch.full((1, 1, 2, 2), 3.0), eps=1.0), torch.full((1, 1, 2, 2), 0.75))


def test_inputs_are_left_as_they_were():
    cam, tags = random_maps()
    copies = cam.clone(), tags.clone()
    normalize_cam(cam, tags)
    assert torch.equal(cam, copies[0]) and torch.equal(tags, copies[1])


def test_gradients():
    features, weight = random_case(2, 3, 2, 2, 3)
    cam, tags = random_maps(batch=2, classes=3, size=(2, 3))
    torch.autograd.gradcheck(cam_from_features, (features.requires_grad_(), weight.requires_grad_()))
    torch.autograd.gradcheck(lambda maps: normalize_cam(maps, tags), (cam.requires_grad_(),))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)],
)
def test_every_float_type_gives_its_own_type_back(dtype, tolerance):
    features, weight = random_case(2, 3, 4, 5, 6, dtype=dtype)
    cam = cam_from_features(features, weight)
    assert cam.dtype == dtype
    torch.testing.assert_close(cam.double(), naive_cam(features, weight), rtol=tolerance, atol=tolerance)
    tags = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0]])
    for given in (tags, tags.bool(), tags.to(dtype)):
        seed = normalize_cam(cam, given)
        assert seed.dtype == dtype
        torch.testing.assert_close(seed.double(), naive_normalized(cam, tags), rtol=0, atol=min(tolerance, 1e-2))


def test_a_batch_is_its_pictures_one_by_one():
    features, weight = random_case(3, 4, 5, 4, 3)
    tags = torch.tensor([[1, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    cam = cam_from_features(features, weight)
    singles = [cam_from_features(features[b : b + 1], weight) for b in range(3)]
    torch.testing.assert_close(cam, torch.cat(singles), rtol=0, atol=1e-12)
    singles = [normalize_cam(cam[b : b + 1], tags[b : b + 1]) for b in range(3)]
    assert torch.equal(normalize_cam(cam, tags), torch.cat(singles))


def test_classes_may_come_in_any_order():
    features, weight = random_case(2, 4, 5, 4, 3)
    tags = torch.tensor([[1, 0, 1, 0, 1], [0, 1, 1, 0, 0]])
    order = [3, 0, 4, 2, 1]
    cam = cam_from_features(features, weight)
    torch.testing.assert_close(cam_from_features(features, weight[order]), cam[:, order], rtol=0, atol=1e-12)
    assert torch.equal(normalize_cam(cam[:, order], tags[:, order]), normalize_cam(cam, tags)[:, order])


@pytest.mark.parametrize(
    ("features", "weight", "message"),
    [
        ((3, 4, 4), (2, 3), r"^features: expected BxCxhxw, got shape \(3, 4, 4\)$"),
        ((1, 3, 4, 4), (2, 4), r"^weight: expected KxC or KxCx1x1, C = 3, got shape \(2, 4\)$"),
        ((1, 3, 4, 4), (3,), r"^weight: expected KxC or KxCx1x1, C = 3, got shape \(3,\)$"),
        # Nine values a class, as many as there are channels: still no 1x1 convolution.
        ((1, 9, 4, 4), (2, 1, 3, 3), r"^weight: .* C = 9, got shape \(2, 1, 3, 3\)$"),
    ],
)
def test_features_and_weights_that_do_not_go_together_are_refused(features, weight, message):
    with pytest.raises(ValueError, match=message):
        cam_from_features(torch.zeros(features), torch.zeros(weight))


def test_maps_and_tags_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match=r"^cam: expected BxCxhxw, got shape \(2, 3, 4\)$"):
        normalize_cam(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"^tags: expected BxK = \(2, 3\), got shape \(3, 2\)$"):
        normalize_cam(torch.zeros(2, 3, 4, 4), torch.zeros(3, 2))
    with pytest.raises(TypeError, match=r"^cam: expected a floating dtype, got torch.int64$"):
        normalize_cam(torch.zeros(2, 3, 4, 4, dtype=torch.int64))


def test_tag_loss_is_the_mean_binary_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    for tags in (
        (torch.rand(4, 3, generator=generator) < 0.5).double(),
        torch.rand(4, 3, generator=generator).double(),
    ):
        total = 0.0
        for logit, tag in zip(logits.flatten().tolist(), tags.flatten().tolist(), strict=True):
            probability = 1 / (1 + exp(-logit))
            total -= tag * log(probability) + (1 - tag) * log(1 - probability)
        assert float(tag_loss(logits, tags)) == pytest.approx(total / 12, rel=1e-6)


def test_tag_loss_of_a_fraction_is_least_at_that_probability():
    logits = torch.linspace(-3, 3, 601)[:, None]
    tags = torch.full((1, 1), 0.3)
    values = torch.stack([tag_loss(logit[None], tags) for logit in logits])
    probability = float(logits[int(values.argmin())].sigmoid())
    assert probability == pytest.approx(0.3, abs=0.002)
    assert float(values[300]) == pytest.approx(log(2))


def test_tag_loss_of_low_precision_logits_is_computed_in_float32():
    logits = torch.tensor([[9.0, -9.0]], dtype=torch.bfloat16)
    loss = tag_loss(logits, torch.tensor([[1.0, 0.0]]))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(log(1 + exp(-9.0)), rel=1e-4)


@pytest.mark.gpu
def test_the_gpu_gives_the_same():
    features, weight = random_case(2, 3, 4, 5, 6)
    cam, tags = random_maps()
    on_gpu = cam_from_features(features.cuda(), weight.cuda())
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), cam_from_features(features, weight), rtol=0, atol=1e-12)
    torch.testing.assert_close(normalize_cam(cam.cuda(), tags.cuda()).cpu(), normalize_cam(cam, tags))
