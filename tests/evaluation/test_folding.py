import copy

import pytest
import torch
from torch import Tensor, nn

from rsepm_edu.evaluation.folding import folded
from rsepm_edu.models.network import build_network


def with_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as after a training: statistics, factors and summands that are not 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.weight.shape
            module.running_mean.copy_(torch.randn(shape, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(shape, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(shape, generator=generator) + 0.5)
            module.bias.data.copy_(torch.randn(shape, generator=generator) * 0.1)
    return network


@pytest.mark.parametrize("backbone", ["creatures", "resnet18", "mobilenet_v2"])
def test_a_folded_network_gives_the_same_and_holds_no_batch_norm(backbone: str) -> None:
    torch.manual_seed(0)
    network = with_statistics(build_network(backbone, ("cat", "dog"), decoder_channels=16, decoder_rates=(1, 2)))
    network.train()
    state = copy.deepcopy(network.state_dict())
    light = folded(network)
    assert light is not network and not any(isinstance(module, nn.BatchNorm2d) for module in light.modules())
    assert not any(parameter.requires_grad for parameter in light.parameters())
    assert (light.stride, light.learnt, light.classes) == (network.stride, network.learnt, network.classes)
    assert network.training and all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    images = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = network.eval()(images), light(images)
    for name in ("cam", "seg_logits", "tag_logits"):
        one, other = getattr(wanted, name), getattr(found, name)
        torch.testing.assert_close(other, one, rtol=0, atol=1e-4 * float(one.abs().max()))


class TwoReaders(nn.Module):
    """A convolution that is read by its batch norm and by something else."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        return self.norm(y) + y


class TwoRuns(TwoReaders):
    """A convolution that two batch norms follow."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x)) + self.other(self.convolution(-x))


@pytest.mark.parametrize("kind", [TwoReaders, TwoRuns])
def test_what_cannot_be_folded_still_gives_the_same(kind: type[TwoReaders]) -> None:
    network = with_statistics(kind()).eval()
    images = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        torch.testing.assert_close(folded(network)(images), network(images))
