"""Several processes train one network: torchrun starts them, each has a GPU (or a core) and the same weights.

Each process works on its share of every batch (``data.loading``), DistributedDataParallel averages their gradients, and
the losses become those of the whole batch. How processes meet and agree is in ``rsepm_edu.processes``.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rsepm_edu.processes import World
from rsepm_edu.training.step import Term


class _Pass(nn.Module):
    """All forward passes of a step as one, which is what DistributedDataParallel expects between two backward ones."""

    def __init__(self, network: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        self.compute = compute

    def forward(self, *inputs: Any) -> Any:
        return self.compute(*inputs)


def replicate(network: nn.Module, compute: Callable[..., Any]) -> DistributedDataParallel:
    """``compute`` with gradients averaged over all processes in the backward pass; ``network`` gets rank 0's weights.

    Args:
        network: whose weights learn; batch norm as ``models.synced_norm`` leaves it.
        compute: from inputs to losses, through any number of passes of ``network``.
    """
    # Unused parameters: the decoder's, before its phase. Once it is used torch warns, one time, that none are left.
    return DistributedDataParallel(_Pass(network, compute), find_unused_parameters=True)


def without_exchange(compute: Callable[..., Any], on: bool) -> AbstractContextManager[Any]:
    """A block whose gradients stay here and go with a later part of the batch, where ``on``."""
    return compute.no_sync() if on and isinstance(compute, DistributedDataParallel) else nullcontext()


def global_means(world: World, terms: dict[str, Term]) -> tuple[dict[str, Tensor], Tensor]:
    """From each process's means to means over the pictures of all.

    A mean S / max(1, n) over what is labelled has another n in each process. Their average would weigh pictures by the
    company they are in; this is ΣS / max(1, Σn), what one process would get.

    Args:
        world: all processes.
        terms: means with gradients, and n, by name.

    Returns:
        The losses by name, scaled so that the average of their gradients over processes is the gradient of the global
        means; and these means, without gradient, in the same order.
    """
    losses = {name: term.loss for name, term in terms.items()}
    means = torch.stack([loss.detach() for loss in losses.values()])
    if world.size == 1:
        return losses, means
    here = torch.stack([term.counted.double() for term in terms.values()])
    sums, everywhere = world.sum(torch.stack([means.double() * here.clamp(min=1), here]))
    shares = (here.clamp(min=1) / everywhere.clamp(min=1)).float()
    scaled = {name: loss * world.size * share for (name, loss), share in zip(losses.items(), shares, strict=True)}
    return scaled, sums / everywhere.clamp(min=1)
