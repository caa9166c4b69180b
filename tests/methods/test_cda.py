import pytest
import torch

from rsepm_edu.labels import VOID
from rsepm_edu.methods.cda import context_decoupling, random_places
from rsepm_edu.methods.mixing import choose_one, partners


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_places(region, draw):
    """Where each true pixel goes: {new place: old place}."""
    height, width = region.shape
    old = [tuple(place) for place in region.nonzero().tolist()]
    if not old:
        return {}
    facing = [(y, width - 1 - x) if draw[0] < 0.5 else (y, x) for y, x in old]
    corner = [min(place[axis] for place in facing) for axis in (0, 1)]
    extent = [max(place[axis] for place in facing) - corner[axis] + 1 for axis in (0, 1)]
    target = [int(draw[1 + axis] * (side - extent[axis] + 1)) for axis, side in enumerate((height, width))]
    return {
        (y - corner[0] + target[0], x - corner[1] + target[1]): place for (y, x), place in zip(facing, old, strict=True)
    }


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (6, 7), (11, 14)])
def test_regions_land_where_the_drawn_numbers_say(size):
    regions = torch.rand(12, *size, generator=generator()) < 0.3
    regions[:, size[0] // 2 + 1 :], regions[:, :, size[1] // 2 + 1 :] = False, False
    regions[0] = False
    source = random_places(regions, generator=generator(1))
    assert source.dtype == torch.int64
    for region, index, draw in zip(regions, source, torch.rand(12, 3, generator=generator(1)).tolist(), strict=True):
        assert sorted(index.tolist()) == list(range(size[0] * size[1])), "every pixel goes somewhere"
        wanted = naive_places(region, draw)
        moved = region.flatten()[index].view(size)
        assert {tuple(place) for place in moved.nonzero().tolist()} == wanted.keys()
        for (y, x), (v, u) in wanted.items():
            assert int(index[y * size[1] + x]) == v * size[1] + u


def test_every_place_and_both_mirror_images_come_up():
    region = torch.zeros(1, 3, 4, dtype=torch.bool)
    region[0, 1, 0] = region[0, 0, 1] = True  # 2 x 2 box: 2 x 3 places
    source = generator()
    seen = set()
    for _ in range(200):
        moved = region[0].flatten()[random_places(region, generator=source)[0]]
        seen.add(tuple(moved.nonzero().flatten().tolist()))
    assert len(seen) == 12


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_decoupling_equals_the_naive_loops(probability_case, naive_filter, naive_visible, batch, seed):
    images, tags, maps = probability_case(batch=batch, seed=seed)
    limits = {"smallest": 0.02, "largest": 0.6}
    mixed = context_decoupling(images, tags, maps, generator=generator(seed), **limits)
    masks, source = naive_filter(maps), generator(seed)
    height, width = masks.shape[1:]
    below = partners(batch, generator=source).tolist()
    eligible = torch.zeros(tags.shape, dtype=torch.bool)
    for b, other in enumerate(below):
        for k in range(tags.shape[1]):
            share = int((masks[b] == k + 1).sum()) / (height * width)
            eligible[b, k] = share > 0 and 0.02 <= share <= 0.6 and float(tags[other, k]) == 0
    chosen = choose_one(eligible, generator=source)
    draws = torch.rand(batch, 3, generator=source).tolist()
    for b, other in enumerate(below):
        [label] = (chosen[b].nonzero().flatten() + 1).tolist() or [VOID]
        moved = naive_places(masks[b] == label, draws[b]) if label != VOID else {}
        pasted = torch.zeros(height, width, dtype=torch.bool)
        for y in range(height):
            for x in range(width):
                if (y, x) in moved:
                    pasted[y, x] = True
                    assert torch.equal(mixed.images[b, :, y, x], images[b, :, *moved[y, x]])
                    assert int(mixed.pseudo_masks[b, y, x]) == label
                else:
                    assert torch.equal(mixed.images[b, :, y, x], images[other, :, y, x])
                    assert int(mixed.pseudo_masks[b, y, x]) == int(masks[other, y, x])
        for k in range(tags.shape[1]):
            kept = float(tags[other, k]) * naive_visible(masks[other], pasted, k + 1)
            assert float(mixed.tags[b, k]) == max(kept, float(k + 1 == label))


def test_the_cases_of_the_loops_paste_something(probability_case):
    pasted = 0
    for seed in range(4):
        images, tags, maps = probability_case(batch=5, seed=seed)
        limits = {"smallest": 0.02, "largest": 0.6}
        mixed = context_decoupling(images, tags, maps, generator=generator(seed), **limits)
        below = partners(5, generator=generator(seed))
        pasted += int((mixed.images != images[below]).flatten(1).any(1).sum())
    assert pasted >= 5


def two_pictures(covered, *, same=False):
    """Picture 0 shows a class on so many of 100 pixels; picture 1 shows the other class, or the same, on 10."""
    maps = torch.zeros(2, 3, 10, 10)
    maps[0, 1].view(-1)[:covered] = 1
    maps[1, 1 if same else 2].view(-1)[50:60] = 1
    maps[:, 0] = 1 - maps[:, 1:].sum(1)
    images = torch.stack([torch.full((3, 10, 10), 0.25), torch.full((3, 10, 10), 0.75)])
    return images, torch.tensor([[1.0, 0.0], [1.0, 0.0]] if same else [[1.0, 0.0], [0.0, 1.0]]), maps


@pytest.mark.parametrize(("covered", "pasted"), [(0, 0), (9, 0), (10, 10), (70, 70), (71, 0)])
def test_only_objects_of_a_fitting_size_are_cut_out(covered, pasted):
    images, tags, maps = two_pictures(covered)
    mixed = context_decoupling(images, tags, maps, generator=generator())
    assert int((mixed.images[0, 0] == 0.25).sum()) == pasted
    assert float(mixed.tags[0, 0]) == float(pasted > 0)


def test_a_scene_is_not_given_what_it_has():
    images, tags, maps = two_pictures(30, same=True)
    mixed = context_decoupling(images, tags, maps, generator=generator())
    assert torch.equal(mixed.images[0], images[1]) and torch.equal(mixed.tags[0], tags[1])


def test_void_is_not_pasted_and_void_below_stays():
    images, tags, maps = two_pictures(30)
    maps[0, 1].view(-1)[20:30], maps[0, 0].view(-1)[20:30] = 0.5, 0.5
    maps[1, 2, 9], maps[1, 0, 9] = 0.5, 0.5
    for seed in range(4):
        mixed = context_decoupling(images, tags, maps, generator=generator(seed))
        pasted = mixed.images[0, 0] == 0.25
        assert int(pasted.sum()) == 20 and (mixed.pseudo_masks[0][pasted] == 1).all()
        assert (mixed.pseudo_masks[0, 9][~pasted[9]] == VOID).all()
        assert int((mixed.pseudo_masks[0] == VOID).sum()) == 10 - int(pasted[9].sum())
