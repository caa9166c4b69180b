"""The exercises of lesson 07: mixing."""

from typing import Any

import torch
from torch import Generator, Tensor

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.labels import VOID
from rsepm_edu.methods.mixing import Mixed, paste_classes


def choose_half(present: Tensor, draw: Tensor) -> Tensor:
    """BxK in {0, 1}: of the present classes of each row, half (rounded up), those with the greatest numbers drawn."""
    chosen = torch.zeros_like(present)
    for row, (among, numbers) in enumerate(zip(present.bool(), draw, strict=True)):
        count = (int(among.sum()) + 1) // 2
        chosen[row, torch.where(among, numbers, -1.0).topk(count).indices] = 1
    return chosen


def saliency_weight(above: Tensor, below: Tensor, grafted: Tensor) -> Tensor:
    """λ of Saliency Grafting from two saliency maps HxW and the bool region HxW that comes from the first."""
    own = (above * grafted).sum() / above.sum()
    others = (below * ~grafted).sum() / below.sum()
    return own / (own + others)


def visible_tags(mask: Tensor, paste: Tensor, tags: Tensor, min_visible: float) -> Tensor:
    """Which of the K tags of the picture below stay: `mask` HxW are its labels, `paste` bool HxW is what is hidden."""
    hidden = len(tags) + 1  # a class more, pasted where `paste` is true, and taken off again
    above = torch.where(paste, hidden, 0)
    image, more = torch.zeros(1, 1, *mask.shape), torch.cat([tags, torch.zeros(1)])[None]
    chosen = torch.arange(hidden)[None] == hidden - 1
    mixed = paste_classes(
        Mixed.unmixed(image, more, above[None]),
        Mixed.unmixed(image, more, mask[None]),
        chosen,
        min_visible=min_visible,
    )
    return mixed.tags[0, : len(tags)]


def _draws(generator: Generator) -> list[tuple[Any, ...]]:
    few = torch.tensor([[0.0, 1, 0], [0, 1, 1]]), torch.tensor([[0.9, 0.1, 0.8], [0.9, 0.3, 0.2]])
    present = (torch.rand(20, 8, generator=generator) < 0.6).float()
    draw = torch.rand(20, 8, generator=generator)
    present[:, 0], draw[0, 0] = 1, 1.0
    return [few, (present, draw)]


def _saliencies(generator: Generator) -> list[tuple[Any, ...]]:
    def case(height: int, width: int, share: float) -> tuple[Any, ...]:
        above, below = torch.rand(2, height, width, generator=generator).square().unbind()
        return above, 5 * below, torch.rand(height, width, generator=generator) < share

    return [case(4, 4, 0.3), case(7, 9, 0.8)]


def _pasted(generator: Generator) -> list[tuple[Any, ...]]:
    # Class 1 is hidden but for a twentieth, 2 but for a fifth, 3 has no pixel at all, 4 is not in the picture.
    mask = torch.zeros(12, 20, dtype=torch.int64)
    mask[0], mask[4], mask[8:], mask[2] = 1, 2, torch.randint(0, 3, (4, 20), generator=generator), VOID
    paste = torch.zeros(12, 20, dtype=torch.bool)
    paste[0, 1:], paste[4, 4:], paste[8:] = True, True, True
    one = mask[:5], paste[:5], torch.tensor([1.0, 1, 1, 0]), 0.1
    other = mask, ~paste, torch.tensor([1.0, 1, 0, 0]), 0.9
    return [one, other]


EXERCISES: dict[str, Exercise] = {
    "07.choose_half": Exercise(choose_half, _draws, tolerance=0),
    "07.saliency_weight": Exercise(saliency_weight, _saliencies),
    "07.visible_tags": Exercise(visible_tags, _pasted, tolerance=0),
}
