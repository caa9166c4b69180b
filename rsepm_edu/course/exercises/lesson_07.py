"""The exercises of lesson 07: mixing."""

from typing import Any

import torch
from torch import Generator, Tensor

from rsepm_edu.course.exercises.exercise import Exercise
from rsepm_edu.labels import VOID
from rsepm_edu.methods.mixing import Mixed, paste_classes


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
    "07.saliency_weight": Exercise(saliency_weight, _saliencies, stub="weight_of"),
    "07.visible_tags": Exercise(visible_tags, _pasted, tolerance=0, stub="still_seen"),
}
