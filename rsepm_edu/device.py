"""Choosing where to compute."""

import torch

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
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch words it, by build and driver
        reason = str(error).splitlines()[0]
        raise UserError(f"device: expected cpu or a GPU that is there, got {str(wanted)!r} ({reason})") from error
    return device
