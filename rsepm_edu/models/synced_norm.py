"""Batch norm over the pictures of all processes, so that shares of a batch act as the whole batch."""

import importlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rsepm_edu.errors import UserError


class _SumOfAll(torch.autograd.Function):
    """A sum over processes; each process's loss depends on it, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """What ``nn.SyncBatchNorm`` does, for the CPU, which torch leaves out; every process has equally many pictures.

    In evaluation mode the usual batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W to the same shape and dtype."""
        if not self.training:
            return super().forward(x)
        processes = dist.get_world_size()
        values = x.to(torch.promote_types(x.dtype, torch.float32))  # sums do not fit in half precision
        mean = _SumOfAll.apply(values.mean((0, 2, 3))) / processes
        centred = values - mean[:, None, None]
        variance = _SumOfAll.apply(centred.square().mean((0, 2, 3))) / processes
        self._follow(mean, variance, processes * x.numel() // x.shape[1])
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Make the batch norm of a network one over all processes, in place; weights, statistics and names stay.

    Args:
        network: its batch norms follow their statistics (``track_running_stats``), as ours all do.
        device: where it will run: torch's own on a GPU, ``CpuSyncBatchNorm`` on the CPU.

    Raises:
        UserError: a batch norm that cannot be made so; on the CPU that of some of timm's networks.
    """
    on_gpu = device.type == "cuda"
    norms: list[Any] = [norm for norm in network.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        kind = type(norm).__name__
        # Another class for the same module, not another module: a backbone of timm keeps a second list of its modules,
        # to freeze them by (``StageShare``).
        if type(norm) is nn.BatchNorm2d:
            synced: Any = nn.SyncBatchNorm if on_gpu else CpuSyncBatchNorm
            norm.__class__ = synced
        elif kind == "BatchNormAct2d" and on_gpu:
            norm.__class__ = importlib.import_module("timm.layers").SyncBatchNormAct
        else:
            raise UserError(f"backbone: expected plain batch norm for several processes on {device.type}, got {kind}")
        norm.process_group = None  # all; torch's class looks for it
