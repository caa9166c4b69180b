"""What the tests of the mixing methods share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rsepm_edu.labels import VOID

Case = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def probability_case() -> Callable[..., Case]:
    """Images, tags and maps: certain objects, certain background and much between the two; absent classes zero."""

    def make(*, batch: int = 4, classes: int = 3, size: tuple[int, int] = (11, 14), seed: int = 0) -> Case:
        source = torch.Generator().manual_seed(seed)
        images = torch.rand(batch, 3, *size, generator=source, dtype=torch.float64)
        tags = (torch.rand(batch, classes, generator=source) < 0.5).double()
        coarse = torch.randn(batch, classes + 1, 3, 3, generator=source, dtype=torch.float64)
        logits = 5 * torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
        logits[:, 1:][tags == 0] = -torch.inf
        return images, tags, logits.softmax(dim=1)

    return make


@pytest.fixture
def naive_filter() -> Callable[..., Tensor]:
    """The conditional filter, pixel by pixel."""

    def masks_of(maps: Tensor, *, certain: float = 0.55, uncertain: float = 0.10) -> Tensor:
        batch, labels, height, width = maps.shape
        masks = torch.full((batch, height, width), VOID)
        for b in range(batch):
            for y in range(height):
                for x in range(width):
                    scores = maps[b, 1:, y, x].tolist()
                    if max(scores) >= certain:
                        masks[b, y, x] = 1 + scores.index(max(scores))
                    elif max(scores) <= uncertain:
                        masks[b, y, x] = 0
        return masks

    return masks_of


@pytest.fixture
def naive_visible() -> Callable[..., float]:
    """Whether a tag below is kept: a tenth of its labelled pixels is not pasted over, or it had none."""

    def visible(below: Tensor, pasted: Tensor, label: int, *, min_visible: float = 0.1) -> float:
        before = after = 0
        for y in range(below.shape[0]):
            for x in range(below.shape[1]):
                before += int(below[y, x]) == label
                after += int(below[y, x]) == label and not bool(pasted[y, x])
        return float(before == 0 or after >= min_visible * before)

    return visible
