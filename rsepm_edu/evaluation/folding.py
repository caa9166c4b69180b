"""A network for looking alone: each batch norm becomes part of the convolution before it.

In eval mode batch norm is a factor and a summand a channel, so that a convolution with other weights does both: the
same numbers but for rounding, and a pass over the features less.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._pytree import tree_leaves

from rsepm_edu.evaluation.inference import evaluation_mode

Network = TypeVar("Network", bound=nn.Module)

NEAR = 1e-3
"""By so much, relative to the largest, outputs may change before a network is taken as it is."""


@torch.no_grad()
def folded(network: Network) -> Network:
    """A copy of a network in which no batch norm is left that follows a convolution.

    Which follows which is seen on a small picture. Should outputs change by more than ``NEAR`` (a convolution whose
    output something else reads too), the network itself is returned.

    Args:
        network: from B×3×H×W normalised images to anything; left as it is.

    Returns:
        A copy in eval mode, its convolutions channels last, for inference alone; or ``network``.
    """
    parameter = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(1, 3, 64, 64, generator=generator).to(parameter)
    twin = copy.deepcopy(network).eval().requires_grad_(False)
    with evaluation_mode(network):
        before = network(picture)
    for convolution, norm in _pairs(twin, picture):
        assert norm.running_mean is not None and norm.running_var is not None
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        for parent in twin.modules():
            for name, child in parent.named_children():
                if child is norm:
                    setattr(parent, name, nn.Identity())
    twin = twin.to(memory_format=torch.channels_last)
    after = twin(picture)
    return twin if _alike(before, after) else network


def _pairs(network: nn.Module, picture: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and the batch norms that take their outputs."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by the output, which is held so that no other gets its number
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module, output
        elif id(inputs[0]) in made and isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            found.append((made[id(inputs[0])][0], module))

    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.SyncBatchNorm)
    hooks = [module.register_forward_hook(see) for module in network.modules() if type(module) in kinds]
    try:
        network(picture)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _alike(before: object, after: object) -> bool:
    pairs = zip(tree_leaves(before), tree_leaves(after), strict=True)
    tensors = [(one, other) for one, other in pairs if isinstance(one, Tensor)]
    return all(bool((one - other).abs().max() <= NEAR * (one.abs().max() + 1e-6)) for one, other in tensors)
