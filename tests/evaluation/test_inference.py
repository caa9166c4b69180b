from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from rsepm_edu.data.transforms import normalise
from rsepm_edu.evaluation.inference import (
    SCALES,
    Maps,
    evaluation_mode,
    multi_scale_maps,
    predict_labels,
    restrict_to_tags,
    segmenter_probabilities,
)
from rsepm_edu.models.network import Outputs, build_network

K = 3


class PoolingNetwork(nn.Module):
    """Three classes, read off the picture's colours: stride 8, decoder at stride 4."""

    stride = 8

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)
        generator = torch.Generator().manual_seed(0)
        self.to_cam = torch.randn(K, 3, 1, 1, generator=generator)
        self.to_labels = torch.randn(K + 1, 3, 1, 1, generator=generator)
        self.calls = []

    def forward(self, images, *, decode=True):
        self.calls.append(
            SimpleNamespace(
                shape=tuple(images.shape),
                training=self.training or self.norm.training,
                inference=torch.is_inference_mode_enabled(),
                decode=decode,
            )
        )
        features = self.norm(images)
        cam = F.conv2d(F.avg_pool2d(features, 8), self.to_cam.to(images))
        seg_logits = F.conv2d(F.avg_pool2d(features, 4), self.to_labels.to(images))
        stages = (features,)
        return Outputs(cam.mean(dim=(2, 3)), cam, seg_logits if decode else None, stages)


class RampNetwork(nn.Module):
    """Says the same of every picture: class k the further right the better."""

    stride = 4

    def forward(self, images, *, decode=True):
        batch, _, height, width = images.shape
        ramp = torch.linspace(0, 1, width // 4).expand(batch, K, height // 4, -1)
        return Outputs(ramp.mean(dim=(2, 3)), ramp, None, ())


def pictures(batch=2, size=(37, 53), seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 5, 6, generator=generator) * 255
    return F.interpolate(coarse, size, mode="bilinear").to(torch.uint8)


def pil_resize(planes, size):
    """Bilinear resizing by another library, plane by plane; smooths when it makes smaller."""
    return np.stack(
        [
            np.asarray(Image.fromarray(plane.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR))
            for plane in planes
        ]
    ).astype(np.float64)


def naive_maps(network, picture, tags, scales, mirror):
    """One picture, one view at a time, in numpy."""
    network.eval()
    height, width = picture.shape[1:]
    stride = network.stride
    cam, probabilities, present, views = 0.0, 0.0, 0.0, 0
    for scale in scales:
        size = [max(stride, int(side * scale / stride + 0.5) * stride) for side in (height, width)]
        view = pil_resize(picture.double().numpy(), size)
        for flipped in [False, True] if mirror else [False]:
            entering = view[:, :, ::-1].copy() if flipped else view
            outputs = network(torch.from_numpy(entering)[None].float())
            maps = pil_resize(outputs.cam[0].double().clamp(min=0).numpy(), (height, width))
            logits = pil_resize(outputs.seg_logits[0].double().numpy(), (height, width))
            exponentials = np.exp(logits)
            decoded = exponentials / exponentials.sum(axis=0)
            if flipped:
                maps, decoded = maps[:, :, ::-1], decoded[:, :, ::-1]
            cam, probabilities, views = cam + maps, probabilities + decoded, views + 1
            present = present + 1 / (1 + np.exp(-outputs.tag_logits[0].double().numpy()))
    for k in range(K):
        cam[k] = cam[k] / (cam[k].max() + 1e-5) if tags[k] else 0
    return cam, probabilities / views, present / views


@pytest.mark.parametrize("size", [(37, 53), (64, 48), (5, 3)])
@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("scales", [SCALES, (1.0,), (0.5,)])
def test_maps_equal_one_view_at_a_time(size, mirror, scales):
    network = PoolingNetwork()
    images = normalise(pictures(size=size))
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    maps = multi_scale_maps(network, images, tags, scales=scales, mirror=mirror)
    assert maps.cam.shape == (2, K, *size)
    assert maps.probabilities.shape == (2, K + 1, *size)
    assert maps.tag_probabilities.shape == (2, K)
    for index in range(2):
        expected = naive_maps(network, images[index], tags[index], scales, mirror)
        for got, wanted in zip(maps, expected, strict=True):
            np.testing.assert_allclose(got[index].numpy(), wanted, atol=2e-5)


def test_bytes_and_normalised_pictures_give_the_same():
    network = PoolingNetwork()
    images = pictures()
    for got, wanted in zip(
        multi_scale_maps(network, images),
        multi_scale_maps(network, normalise(images)),
        strict=True,
    ):
        assert torch.equal(got, wanted)


def test_every_scale_is_one_batch_with_its_mirror_image_at_a_multiple_of_the_stride():
    network = PoolingNetwork()
    multi_scale_maps(network, pictures(size=(37, 53)))
    assert [call.shape for call in network.calls] == [
        (4, 3, 40, 56),
        (4, 3, 16, 24),
        (4, 3, 56, 80),
        (4, 3, 72, 104),
    ]
    network.calls.clear()
    multi_scale_maps(network, pictures(size=(37, 53)), scales=(1.0,), mirror=False)
    assert [call.shape for call in network.calls] == [(2, 3, 40, 56)]


def test_mirrored_maps_are_turned_back():
    images = torch.zeros(1, 3, 32, 64, dtype=torch.uint8)
    images[..., :24] = 255  # all there is lies on the left
    network = PoolingNetwork()
    network.to_cam[0] = network.to_labels[1] = 1.0  # class 1 is brightness
    network.to_labels[0] = 0.0
    maps = multi_scale_maps(network, images)
    assert maps.cam[0, 0, :, :16].min() > 0.8 and maps.cam[0, 0, :, 32:].max() < 0.2
    labels = predict_labels(maps, torch.tensor([[1, 0, 0]]))
    assert labels[..., :16].min() == 1 and labels[..., 32:].max() == 0
    turned = multi_scale_maps(network, images.flip(-1))
    alone = multi_scale_maps(network, images, mirror=False)
    for with_mirror, of_turned, without in zip(maps[:2], turned[:2], alone[:2], strict=True):
        torch.testing.assert_close(of_turned.flip(-1), with_mirror)
        torch.testing.assert_close(without, with_mirror)  # this network is blind to direction


def test_a_network_that_prefers_one_side_is_made_even():
    images = pictures(size=(32, 64))
    one_sided = multi_scale_maps(RampNetwork(), images, mirror=False).cam
    assert one_sided[0, 0, 16, 60] > 2 * one_sided[0, 0, 16, 4]
    even = multi_scale_maps(RampNetwork(), images).cam
    torch.testing.assert_close(even, even.flip(-1))
    torch.testing.assert_close(even, torch.ones_like(even), atol=1e-4, rtol=0)


def test_absent_classes_are_zero_and_present_ones_reach_one():
    tags = torch.tensor([[1, 0, 1], [0, 0, 1]])
    cam = multi_scale_maps(PoolingNetwork(), pictures(), tags).cam
    assert cam.amax(dim=(2, 3))[tags == 0].max() == 0
    assert cam.min() >= 0 and cam.max() <= 1
    reached = cam.amax(dim=(2, 3))[tags == 1]
    assert ((reached > 0.99) | (reached == 0)).all() and (reached > 0.99).any()


def test_decoder_can_be_left_out():
    network = PoolingNetwork()
    maps = multi_scale_maps(network, pictures(), decode=False)
    assert maps.probabilities is None
    assert not any(call.decode for call in network.calls)


def test_probabilities_sum_to_one_over_labels():
    maps = multi_scale_maps(PoolingNetwork(), pictures())
    torch.testing.assert_close(maps.probabilities.sum(dim=1), torch.ones(2, 37, 53))


def test_pictures_of_a_batch_do_not_meet():
    network, images = PoolingNetwork(), pictures(batch=3)
    together = multi_scale_maps(network, images)
    for index in range(3):
        alone = multi_scale_maps(network, images[index : index + 1])
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[index : index + 1], part)


def test_network_runs_in_eval_mode_and_keeps_its_state():
    network = PoolingNetwork().train()
    before = network.norm.running_mean.clone()
    multi_scale_maps(network, pictures())
    assert not any(call.training for call in network.calls)
    assert all(call.inference for call in network.calls)
    assert network.training and network.norm.training
    assert torch.equal(network.norm.running_mean, before)


def test_each_module_gets_its_own_mode_back_even_after_an_exception():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Dropout(), nn.ReLU())).train()
    network[0].eval()  # held fixed in training
    modes = [module.training for module in network.modules()]
    with pytest.raises(RuntimeError, match="stop"), evaluation_mode(network):
        assert not any(module.training for module in network.modules())
        raise RuntimeError("stop")
    assert [module.training for module in network.modules()] == modes


def test_a_network_that_fails_is_back_in_training_mode():
    class Failing(PoolingNetwork):
        def forward(self, images, *, decode=True):
            raise RuntimeError("stop")

    network = Failing().train()
    network.norm.eval()
    with pytest.raises(RuntimeError, match="stop"):
        multi_scale_maps(network, pictures())
    assert network.training and not network.norm.training
    assert not torch.is_inference_mode_enabled()


def test_results_are_ordinary_tensors_that_can_enter_a_loss():
    weight = torch.ones((), requires_grad=True)
    for part in multi_scale_maps(PoolingNetwork(), pictures()):
        assert not part.is_inference() and not part.requires_grad
        (weight * part).sum().backward()
    assert torch.isfinite(weight.grad)


def test_double_precision_stays():
    maps = multi_scale_maps(PoolingNetwork().double(), normalise(pictures()).double())
    assert {part.dtype for part in maps} == {torch.float64}


def test_the_real_network_takes_any_photograph():
    torch.manual_seed(0)
    network = build_network("creatures", ("cat", "dog", "owl"), decoder_channels=8)
    maps = multi_scale_maps(network, pictures(batch=1, size=(61, 43)), scales=(1.0, 0.5))
    assert maps.cam.shape == (1, 3, 61, 43)
    assert maps.probabilities.shape == (1, 4, 61, 43)
    assert predict_labels(maps).shape == (1, 61, 43)


def test_wrong_arguments_are_named():
    network, images = PoolingNetwork(), pictures()
    with pytest.raises(ValueError, match=r"images: expected Bx3xHxW, got \(3, 37, 53\)"):
        multi_scale_maps(network, images[0])
    with pytest.raises(ValueError, match=r"images: expected Bx3xHxW, got \(2, 1, 37, 53\)"):
        multi_scale_maps(network, images[:, :1])
    with pytest.raises(TypeError, match="images: expected uint8 or .*, got torch.int64"):
        multi_scale_maps(network, images.long())
    for scales in ((), (1.0, 0.0)):
        with pytest.raises(ValueError, match="scales: expected positive numbers"):
            multi_scale_maps(network, images, scales=scales)
    with pytest.raises(ValueError, match=r"tags: expected BxK = \(2, 3\)"):
        multi_scale_maps(network, images, torch.ones(2, 4))


def test_restricting_to_tags_equals_a_loop():
    logits = torch.randn(2, K + 1, 4, 5, generator=torch.Generator().manual_seed(1))
    probabilities = logits.softmax(dim=1)
    tags = torch.tensor([[1, 0, 1], [0, 0, 0]])
    before = probabilities.clone()
    restricted = restrict_to_tags(probabilities, tags)
    assert torch.equal(probabilities, before)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                values = probabilities[b, :, y, x].double().tolist()
                kept = [v if k == 0 or tags[b, k - 1] else 0.0 for k, v in enumerate(values)]
                wanted = [v / sum(kept) for v in kept]
                assert restricted[b, :, y, x].tolist() == pytest.approx(wanted, abs=1e-6)


def test_where_nothing_present_is_probable_background_takes_all():
    probabilities = torch.tensor([0.0, 1.0, 0.0, 0.0]).reshape(1, 4, 1, 1)
    restricted = restrict_to_tags(probabilities, torch.tensor([[0, 1, 1]]))
    assert restricted.flatten().tolist() == [1, 0, 0, 0]


def some_maps():
    probabilities = torch.tensor([[0.1, 0.3, 0.2, 0.4], [0.5, 0.2, 0.2, 0.1]])
    return Maps(
        cam=torch.zeros(1, K, 1, 2),
        probabilities=probabilities.T.reshape(1, 4, 1, 2),
        tag_probabilities=torch.tensor([[0.34, 0.9, 0.33]]),
    )


def test_labels_come_from_classes_the_classifier_finds():
    assert predict_labels(some_maps()).tolist() == [[[1, 0]]]  # class 3 is not probable enough
    assert predict_labels(some_maps(), tag_threshold=0.3).tolist() == [[[3, 0]]]
    assert predict_labels(some_maps(), tag_threshold=0.95).tolist() == [[[0, 0]]]


def test_given_tags_decide_before_the_classifier():
    assert predict_labels(some_maps(), torch.tensor([[0, 0, 1]])).tolist() == [[[3, 0]]]
    assert predict_labels(some_maps(), torch.tensor([[0, 1, 0]])).tolist() == [[[2, 0]]]


def test_labels_need_the_decoder():
    with pytest.raises(ValueError, match="expected decoder probabilities, got none"):
        predict_labels(some_maps()._replace(probabilities=None))


# a segmenter of the last stage


class PoolingSegmenter(PoolingNetwork):
    """The decoder of PoolingNetwork as a network of its own."""

    def forward(self, images):
        return super().forward(images).seg_logits


@pytest.mark.parametrize("mirror", [True, False])
def test_a_segmenters_probabilities_are_those_of_a_decoder_that_says_the_same(mirror):
    network = PoolingSegmenter().train()
    images = pictures()
    scales = (0.5, 1.0, 1.5)
    found = segmenter_probabilities(network, images, scales=scales, mirror=mirror)
    wanted = multi_scale_maps(PoolingNetwork(), images, scales=scales, mirror=mirror).probabilities
    torch.testing.assert_close(found, wanted)
    assert found.shape == (2, K + 1, 37, 53) and not found.is_inference()
    assert network.training and not any(call.training for call in network.calls)
    with pytest.raises(ValueError, match="scales: expected positive numbers"):
        segmenter_probabilities(network, images, scales=())
