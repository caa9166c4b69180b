"""The exercises of lesson 10: full size."""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from rsepm_edu.course.exercises.exercise import Exercise


def fewest_parts(batch: int, fixed: float, per_picture: float, room: float) -> int:
    """The smallest divisor of `batch` that, as `accumulate`, fits into `room` (bytes); 0 if none does."""
    for parts in range(1, batch + 1):
        if batch % parts == 0 and fixed + batch // parts * per_picture <= room:
            return parts
    return 0


def scale_path(finite: Tensor, start: float, interval: int) -> Tensor:
    """The loss scale after each of T steps: halved by a gradient that overflows, doubled by `interval` good ones."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=start, growth_interval=interval)
    path = []
    for good in finite.tolist():
        scaler.scale(torch.zeros(()))  # tells it the device
        weight.grad = torch.full((1,), 1.0 if good else torch.inf)
        scaler.step(optimizer)
        scaler.update()
        path.append(scaler.get_scale())
    return torch.tensor(path, dtype=torch.float64)


def _budgets(generator: Generator) -> list[tuple[Any, ...]]:
    return [(32, 0.7e9, 1.4e9, 16e9), (30, 1e9, 1e9, 8.5e9), (16, 1e9, 2e9, 33e9), (8, 1e9, 4e9, 4.5e9)]


def _steps(generator: Generator) -> list[tuple[Any, ...]]:
    by_hand = torch.tensor([False, False, True, True, True, False, True])
    return [(by_hand, 65536.0, 2), (torch.rand(60, generator=generator) < 0.85, 1024.0, 5)]


EXERCISES: dict[str, Exercise] = {
    "10.fewest_parts": Exercise(fewest_parts, _budgets, tolerance=0),
    "10.scale_path": Exercise(scale_path, _steps, tolerance=0),
}
