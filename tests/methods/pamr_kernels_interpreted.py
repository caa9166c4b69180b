"""The kernels of PAMR, run by Triton's interpreter on the CPU (see test_pamr_kernels.py, which starts this)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rsepm_edu.methods import pamr as plain
from rsepm_edu.methods import pamr_kernels as kernels

DILATIONS = (1, 3)
OFFSETS = [(dy * d, dx * d) for d in DILATIONS for dy, dx in plain.NEIGHBOURS]

# One pixel; odd sizes of one tile and of several; one map, as many as one program takes, and more.
CASES = [(1, 1, 1, (1, 1)), (2, 3, 4, (6, 7)), (3, 2, 1, (1, 9)), (2, 1, 6, (9, 17))]
CASES += [(1, 5, 2, (4, 5)), (1, 4, 9, (17, 4))]


def case(batch: int, channels: int, maps: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, channels, *size, generator=generator) * 0.3
    image += (torch.rand(batch, 1, *size, generator=generator) < 0.5).float() + 100  # large means cost no precision
    return image, torch.randn(batch, maps, *size, generator=generator) * 3


@pytest.mark.parametrize(("batch", "channels", "maps", "size"), CASES)
def test_both_kernels_give_what_the_plain_form_gives(
    batch: int, channels: int, maps: int, size: tuple[int, int]
) -> None:
    image, masks = case(batch, channels, maps, size)
    affinity = kernels.fused_affinity(image, DILATIONS, sigma=0.1)
    exact = plain.colour_affinity(image.double(), OFFSETS, sigma=0.1)
    torch.testing.assert_close(affinity.double(), exact, rtol=0, atol=2e-4)  # 100.3 has a rounding of 4e-6
    torch.testing.assert_close(affinity, plain.colour_affinity(image, OFFSETS, sigma=0.1), rtol=0, atol=1e-5)
    wanted = masks.double()
    for times in range(3):
        found = kernels.fused_sum(masks, affinity, DILATIONS, times=times)
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=5e-6)
        wanted = plain.weighted_sum(wanted, affinity.double(), OFFSETS)


def test_memory_layout_does_not_matter() -> None:
    image, masks = case(2, 3, 4, (5, 6))
    turned = masks.transpose(2, 3).contiguous().transpose(2, 3)
    last = image.contiguous(memory_format=torch.channels_last)
    affinity = kernels.fused_affinity(last, DILATIONS, sigma=0.1)
    assert torch.equal(affinity, kernels.fused_affinity(image, DILATIONS, sigma=0.1))
    refined = kernels.fused_sum(masks, affinity, DILATIONS, times=1)
    assert torch.equal(kernels.fused_sum(turned, affinity, DILATIONS, times=1), refined)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_pamr_by_kernels_is_pamr(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float) -> None:
    image, masks = case(2, 2, 3, (6, 7))
    image -= 100
    masks[0, 1] = 0  # so that the pictures have different numbers of maps to work on
    image, masks = image.to(dtype), masks.to(dtype)
    wanted = plain.pamr(image.double(), masks.double(), dilations=DILATIONS, iterations=3)
    calls: list[int] = []

    def counted(*given: object, times: int, form: Callable[..., Tensor] = kernels.fused_sum) -> Tensor:
        calls.append(times)
        return form(*given, times=times)

    monkeypatch.setattr(plain, "kernels_agree", lambda device: True)
    monkeypatch.setattr(plain, "fused_sum", counted)
    refined = plain.pamr(image, masks, dilations=DILATIONS, iterations=3)
    assert calls == [3] and refined.dtype == dtype
    torch.testing.assert_close(refined.double(), wanted, rtol=0, atol=tolerance)
    # What the kernels are not for goes the plain way.
    assert torch.equal(plain.pamr(image.double(), masks.double(), dilations=DILATIONS, iterations=3), wanted)
    plain.pamr(image, masks.requires_grad_(), dilations=DILATIONS, iterations=3).sum().backward()
    assert calls == [3] and masks.grad is not None
