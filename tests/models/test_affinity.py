from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsepm_edu.methods.random_walk import affinity_labels, affinity_loss, pair_offsets, propagate, propagate_affinity
from rsepm_edu.models.affinity import AffinityNetwork, BoundaryNetwork, WalkNetwork
from rsepm_edu.models.backbones import build_backbone

KINDS = [BoundaryNetwork, AffinityNetwork]


@pytest.fixture(params=KINDS)
def network(request: pytest.FixtureRequest) -> WalkNetwork:
    torch.manual_seed(0)
    return request.param(build_backbone("creatures"))


def pictures(count: int = 2, size: tuple[int, int] = (32, 40)) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "stride", "features"), [("creatures", 2, 48), ("resnet18", 4, 112)])
def test_maps_come_at_the_stride_of_stage_2_and_of_stage_3(name: str, stride: int, features: int) -> None:
    images = torch.randn(1, 3, 64, 96)
    boundary = BoundaryNetwork(build_backbone(name)).eval()
    edge = boundary(images)
    assert boundary.stride == stride and edge.shape == (1, 1, 64 // stride, 96 // stride)
    assert (edge > 0).all() and (edge < 1).all()
    affinity = AffinityNetwork(build_backbone(name)).eval()
    assert affinity.stride == 2 * stride and affinity(images).shape == (1, features, 32 // stride, 48 // stride)


def test_heads_have_the_widths_of_the_papers() -> None:
    backbone = build_backbone("resnet50")
    edge = BoundaryNetwork(backbone)
    assert [branch[0].weight.shape[:2] for branch in edge.branches] == [(32, c) for c in (256, 512, 1024, 2048)]
    assert edge.join.weight.shape == (1, 128, 1, 1)
    affinity = AffinityNetwork(backbone)
    assert [branch.weight.shape[0] for branch in affinity.branches] == [64, 128, 256]
    assert affinity.join.weight.shape == (448, 448, 1, 1)


def naive_boundary(network: BoundaryNetwork, stages: tuple[Tensor, ...]) -> Tensor:
    """Each position's 1×1 convolutions as matrix products, group norm from its formula."""
    parts = []
    for (convolution, norm), stage in zip(network.branches, stages, strict=True):
        maps = torch.einsum("bchw,oc->bohw", stage, convolution.weight[:, :, 0, 0])
        groups = maps.reshape(len(maps), 4, -1)
        centred = groups - groups.mean(2, keepdim=True)
        groups = centred / (groups.var(2, unbiased=False, keepdim=True) + norm.eps).sqrt()
        maps = groups.view_as(maps) * norm.weight[:, None, None] + norm.bias[:, None, None]
        parts.append(F.interpolate(maps, size=stages[0].shape[2:], mode="bilinear").clamp(min=0))
    score = torch.einsum("bchw,c->bhw", torch.cat(parts, 1), network.join.weight[0, :, 0, 0]) + network.join.bias
    return (1 / (1 + torch.exp(-score)))[:, None]


def naive_features(network: AffinityNetwork, stages: tuple[Tensor, ...]) -> Tensor:
    def elu(maps: Tensor) -> Tensor:
        return torch.where(maps > 0, maps, maps.exp() - 1)

    parts = []
    for convolution, stage in zip(network.branches, stages[1:], strict=True):
        maps = torch.einsum("bchw,oc->bohw", stage, convolution.weight[:, :, 0, 0])
        parts.append(elu(F.interpolate(maps, size=stages[1].shape[2:], mode="bilinear")))
    return elu(torch.einsum("bchw,oc->bohw", torch.cat(parts, 1), network.join.weight[:, :, 0, 0]))


@pytest.mark.parametrize(
    ("kind", "naive"), [(BoundaryNetwork, naive_boundary), (AffinityNetwork, naive_features)], ids=["edge", "features"]
)
def test_heads_equal_their_description(kind: type, naive: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    network = kind(build_backbone("resnet18")).double().eval()
    for parameter in network.parameters():  # norms and biases other than 1 and 0
        if parameter.requires_grad:
            nn.init.normal_(parameter, 0.1, 0.5)
    with torch.no_grad():
        images = pictures(2, (64, 64)).double()
        torch.testing.assert_close(network(images), naive(network, network.backbone(images)))


def test_the_backbone_is_fixed_and_every_weight_of_the_head_learns(network: WalkNetwork) -> None:
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    network.train()
    assert not any(module.training for module in network.backbone.modules())
    assert all(module.training for name, module in network.named_modules() if not name.startswith("backbone"))
    images = pictures()
    size = [side // network.stride for side in images.shape[2:]]
    labels = torch.randint(0, 2, (2, *size), generator=torch.Generator().manual_seed(2))
    loss = affinity_loss(network.affinity(images, radius=3), affinity_labels(labels, radius=3))
    loss.backward()
    for name, parameter in network.named_parameters():
        if name.startswith("backbone."):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and bool(parameter.grad.any()), name
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())


def test_affinities_have_a_plane_for_each_pair(network: WalkNetwork) -> None:
    affinity = network.affinity(pictures(), radius=4)
    assert affinity.shape == (2, len(pair_offsets(4)), 32 // network.stride, 40 // network.stride)
    assert (affinity >= 0).all() and (affinity <= 1).all() and affinity.requires_grad


@pytest.mark.parametrize("size", [(4, 5), (32, 40)])
def test_a_walk_is_the_method_between_two_resizings(network: WalkNetwork, size: tuple[int, int]) -> None:
    network.eval()
    images = pictures()
    seed = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    walked = network.walk(images, seed, steps=8)
    assert walked.shape == (2, 3, 32, 40) and not walked.requires_grad
    at_stride = F.interpolate(
        seed, (32 // network.stride, 40 // network.stride), mode="bilinear", antialias=size == (32, 40)
    )
    if isinstance(network, BoundaryNetwork):
        edge = network.mirrored_edge(images)
        logits = (edge / (1 - edge)).log()
        plain, mirrored = ((p / (1 - p)).log() for p in (network(images), network(images.flip(-1)).flip(-1)))
        torch.testing.assert_close(logits, (plain + mirrored) / 2, rtol=1e-3, atol=1e-4)
        expected = propagate(at_stride, edge, beta=10, steps=8)
    else:
        expected = propagate_affinity(at_stride, network(images), beta=8, steps=8)
    torch.testing.assert_close(walked, F.interpolate(expected, (32, 40), mode="bilinear"), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network.walk(images, seed, steps=8, beta=1.0), walked)


def test_a_batch_is_its_pictures_one_by_one(network: WalkNetwork) -> None:
    network.eval()
    images, seed = pictures(), torch.rand(2, 2, 16, 20)
    singles = [network.walk(images[b : b + 1], seed[b : b + 1], steps=4) for b in range(2)]
    torch.testing.assert_close(network.walk(images, seed, steps=4), torch.cat(singles), rtol=1e-4, atol=1e-5)
