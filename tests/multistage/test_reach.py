import math

import pytest
import torch

from rsepm_edu.methods.random_walk import pair_offsets, random_walk
from rsepm_edu.multistage.reach import published_view, scaled_walk, step_square


def spread_of_a_walk(radius: int, steps: int, side: int) -> float:
    """Standard deviation along an axis of where a walk from the middle of a map without edges gets."""
    seed = torch.zeros(1, 1, side, side, dtype=torch.float64)
    seed[0, 0, side // 2, side // 2] = 1
    affinity = torch.ones(1, len(pair_offsets(radius)), side, side, dtype=torch.float64)
    walked = random_walk(seed, affinity, radius=radius, steps=steps)[0, 0]
    places = torch.arange(side, dtype=torch.float64) - side // 2
    return math.sqrt(float((walked.sum(0) * places**2).sum() / walked.sum()))


@pytest.mark.parametrize("radius", [2, 3, 5])
def test_a_walk_spreads_as_said(radius: int) -> None:
    assert spread_of_a_walk(radius, 9, 91) == pytest.approx(math.sqrt(9 * step_square(radius)), rel=1e-6)


@pytest.mark.parametrize(("radius", "steps"), [(5, 64), (4, 30)])
@pytest.mark.parametrize("share", [0.4, 0.6, 1.7])
def test_a_scaled_walk_spreads_over_the_same_share(radius: int, steps: int, share: float) -> None:
    other, count = scaled_walk(radius, steps, share)
    reached = math.sqrt(count * step_square(other)) / share
    assert reached == pytest.approx(math.sqrt(steps * step_square(radius)), rel=0.05)
    assert other == max(2, round(radius * share))


def test_no_step_stays_none_and_the_published_map_keeps_its_walk() -> None:
    assert scaled_walk(5, 256, 1.0) == (5, 256)
    assert scaled_walk(5, 0, 0.5)[1] == 0
    assert scaled_walk(5, 1, 0.01) == (2, 1)


@pytest.mark.parametrize(
    ("size", "seen"), [((224, 299), (375, 501)), ((300, 150), (750, 375)), ((375, 500), (375, 500))]
)
def test_smaller_pictures_are_seen_in_the_published_size(size: tuple[int, int], seen: tuple[int, int]) -> None:
    images = torch.rand(1, 3, 1, 1).expand(1, 3, *size)
    view = published_view(images)
    assert view.shape[2:] == seen
    torch.testing.assert_close(view, images[..., :1, :1].expand_as(view))
    larger = torch.rand(1, 3, 400, 390)
    assert published_view(larger) is larger
