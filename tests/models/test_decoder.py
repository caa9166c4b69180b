import pytest
import torch
from torch import nn

from rsepm_edu.models.decoder import ASPP, DeepLabV3PlusDecoder, convolution


def positions_seen(branch: nn.Module, side: int) -> set[tuple[int, int]]:
    """Offsets (dy, dx) of the inputs that the middle output of a branch depends on, by its gradient."""
    x = torch.randn(1, 4, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2
    branch.double().eval()(x)[0, :, middle, middle].sum().backward()
    assert x.grad is not None
    return {(int(y) - middle, int(x) - middle) for y, x in x.grad[0].abs().sum(0).nonzero()}


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("rate", [1, 2, 6])
def test_a_dilated_convolution_sees_nine_positions_a_rate_apart(rate: int, separable: bool) -> None:
    branch = convolution(4, 64, 3, dilation=rate, separable=separable)
    assert positions_seen(branch, 15) == {(dy * rate, dx * rate) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}


def test_separable_convolutions_have_fewer_weights() -> None:
    weights = [
        sum(
            module.weight.numel()
            for module in convolution(32, 48, 3, separable=separable)
            if isinstance(module, nn.Conv2d)
        )
        for separable in (False, True)
    ]
    assert weights == [32 * 48 * 9, 32 * 9 + 32 * 48]


@pytest.mark.parametrize("separable", [False, True])
def test_aspp_is_its_branches_side_by_side(separable: bool) -> None:
    aspp = ASPP(6, 5, rates=(1, 2), separable=separable).eval()
    x = torch.randn(2, 6, 7, 9)
    with torch.no_grad():
        sides = [branch(x) for branch in aspp.branches]
        mean = x.mean((2, 3)) @ aspp.pooled[0].weight[:, :, 0, 0].T
        if separable:
            mean += aspp.pooled[0].bias
        else:  # batch norm as it starts: mean 0, variance 1
            assert aspp.pooled[0].bias is None
            mean /= (1 + aspp.pooled[1].eps) ** 0.5
        mean = mean.relu()
        expected = aspp.join(torch.cat([*sides, mean[:, :, None, None].expand(-1, -1, 7, 9)], dim=1))
        assert len(sides) == 3
        torch.testing.assert_close(aspp(x), expected)
    assert aspp(x).shape == (2, 5, 7, 9)


@pytest.mark.parametrize(("inputs", "separable", "reduced"), [(33, True, True), (32, True, False), (33, False, False)])
def test_a_separable_aspp_reduces_wide_inputs_first(inputs: int, separable: bool, reduced: bool) -> None:
    aspp = ASPP(inputs, 8, rates=(1, 2), separable=separable).eval()
    assert aspp.branches[0][0].weight.shape[1] == (8 if reduced else inputs)
    x = torch.randn(2, inputs, 5, 6)
    assert aspp(x).shape == (2, 8, 5, 6)
    groups = aspp.branches[1][0].groups
    assert groups == ((8 if reduced else inputs) if separable else 1)


def test_aspp_looks_at_the_whole_picture() -> None:
    aspp = ASPP(4, 32, rates=(1,), separable=False)
    assert len(positions_seen(aspp, 9)) == 81


@pytest.mark.parametrize("separable", [False, True])
def test_logits_come_at_the_size_of_stage_2(separable: bool) -> None:
    decoder = DeepLabV3PlusDecoder(32, 12, 6, channels=16, rates=(1, 2), separable=separable)
    assert decoder(torch.randn(2, 12, 17, 21), torch.randn(2, 32, 5, 6)).shape == (2, 6, 17, 21)


def test_low_level_features_are_as_wide_as_the_authors() -> None:
    assert DeepLabV3PlusDecoder(8, 12, 6).low[0].weight.shape == (256, 12, 1, 1)
    assert DeepLabV3PlusDecoder(8, 12, 6, low_channels=48).low[0].weight.shape == (48, 12, 1, 1)
    assert DeepLabV3PlusDecoder(8, 12, 6, channels=64, separable=True).low[0].weight.shape == (16, 12, 1, 1)


def test_dropout_and_last_layer_are_the_authors() -> None:
    decoder = DeepLabV3PlusDecoder(8, 12, 6, channels=16)
    assert [module.p for module in decoder.modules() if isinstance(module, nn.Dropout)] == [0.5, 0.5, 0.1]
    kinds = [type(layer).__name__ for layer in decoder.refine]
    assert kinds == ["Sequential", "Dropout", "Sequential", "Dropout", "Conv2d"]
    assert decoder.refine[-1].kernel_size == (3, 3) and decoder.refine[-1].bias is None


@pytest.mark.parametrize(("separable", "count"), [(False, 2), (True, 1)])
def test_a_small_batch_can_train_and_every_weight_gets_a_gradient(separable: bool, count: int) -> None:
    torch.manual_seed(0)
    decoder = DeepLabV3PlusDecoder(32, 12, 6, channels=16, rates=(1, 2), separable=separable).train()
    low = torch.randn(count, 12, 16, 16, requires_grad=True)
    high = torch.randn(count, 32, 4, 4, requires_grad=True)
    decoder(low, high).square().mean().backward()
    for name, tensor in [("low", low), ("high", high), *decoder.named_parameters()]:
        assert tensor.grad is not None and bool((tensor.grad != 0).any()), name
