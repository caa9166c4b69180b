"""Choosing where to compute, and how to get there."""

import torch
from torch import Tensor

from rsepm_edu.errors import UserError


def resolve_device(name: str | torch.device | None = None) -> torch.device:
    """A device that is there and works; None: the GPU if there is one, else the CPU.

    Raises:
        UserError: no such device.
    """
    wanted = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device).cpu()  # the meta device makes tensors too, but holds no numbers
    except Exception as error:  # of many kinds, by build and driver; its words are for developers of torch
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        missing = " (the driver is missing or too old)" if "NVIDIA driver" in str(error) else ""
        raise UserError(
            f"device: expected one that is there ({', '.join(there)}), got {str(wanted)!r}{missing}"
        ) from error
    return device


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; from the host to a GPU by way of page-locked memory, so that the host does not wait."""
    if tensor.device.type != "cpu" or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
