from math import ceil

import pytest
import torch

from rsepm_edu.labels import VOID
from rsepm_edu.methods.mixing import partners
from rsepm_edu.methods.saliency_grafting import saliency_grafting


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_saliency(maps):
    """The sum of the classes' probabilities at each pixel, as nested lists."""
    return [
        [[sum(image[1:, y, x].tolist()) for x in range(maps.shape[3])] for y in range(maps.shape[2])] for image in maps
    ]


def patches(size, cells):
    """The pixels of each patch, by the patch's row and column."""
    result = {}
    for y in range(size[0]):
        for x in range(size[1]):
            result.setdefault((y // ceil(size[0] / cells), x // ceil(size[1] / cells)), []).append((y, x))
    return result


@pytest.mark.parametrize(("size", "cells"), [((11, 14), 8), ((12, 16), 4), ((5, 3), 8), ((9, 9), 1)])
@pytest.mark.parametrize("batch", [1, 4])
def test_grafting_equals_the_naive_loops(probability_case, naive_filter, size, cells, batch):
    images, tags, maps = probability_case(size=size, batch=batch, seed=batch)
    mixed = saliency_grafting(images, tags, maps, generator=generator(3), cells=cells)
    source = generator(3)
    below = partners(batch, generator=source).tolist()
    by_patch, masks, saliency = patches(size, cells), naive_filter(maps), naive_saliency(maps)
    rows, columns = (max(place[axis] for place in by_patch) + 1 for axis in (0, 1))
    draws = torch.rand(batch, rows, columns, generator=source)
    for b, other in enumerate(below):
        mean = {place: sum(saliency[b][y][x] for y, x in pixels) / len(pixels) for place, pixels in by_patch.items()}
        most = max(mean.values())
        grafted = {place for place, value in mean.items() if most and float(draws[(b, *place)]) < value / most}
        own = others = 0.0
        for place, pixels in by_patch.items():
            for y, x in pixels:
                origin = b if place in grafted else other
                assert torch.equal(mixed.images[b, :, y, x], images[origin, :, y, x])
                assert int(mixed.pseudo_masks[b, y, x]) == int(masks[origin, y, x])
                own += saliency[b][y][x] * (place in grafted)
                others += saliency[other][y][x] * (place not in grafted)
        own /= max(1e-12, sum(map(sum, saliency[b])))
        others /= max(1e-12, sum(map(sum, saliency[other])))
        if own + others:
            share = own / (own + others)
        else:
            share = sum(len(by_patch[place]) for place in grafted) / (size[0] * size[1])
        torch.testing.assert_close(mixed.tags[b], share * tags[b] + (1 - share) * tags[other])


def two_pictures(left, right):
    """Two pictures of 8 × 16 with one class each, salient in these columns alone."""
    maps = torch.zeros(2, 3, 8, 16)
    maps[0, 1, :, left], maps[1, 2, :, right] = 1, 1
    maps[:, 0] = 1 - maps[:, 1:].sum(1)
    images = torch.stack([torch.full((3, 8, 16), 0.25), torch.full((3, 8, 16), 0.75)])
    return images, torch.eye(2), maps


def test_the_most_salient_patches_are_grafted_and_what_is_not_salient_never():
    images, tags, maps = two_pictures(slice(0, 4), slice(8, 16))
    for seed in range(5):
        mixed = saliency_grafting(images, tags, maps, generator=generator(seed))
        assert (mixed.images[0, 0, :, :4] == 0.25).all() and (mixed.images[0, 0, :, 4:] == 0.75).all()
        assert mixed.tags[0].tolist() == [0.5, 0.5], "each object is there as a whole"


def test_a_patch_comes_as_often_as_its_saliency_says():
    images, tags, maps = two_pictures(slice(0, 4), slice(8, 16))
    maps[0, 1, :, 4:6] = 0.25
    maps[0, 0] = 1 - maps[0, 1]
    source = generator()
    count = sum(
        float((saliency_grafting(images, tags, maps, generator=source).images[0, 0, ::1, 4] == 0.25).double().mean())
        for _ in range(100)
    )
    assert abs(count / 100 - 0.25) < 0.08  # 800 patches, 5 standard deviations


def test_a_hidden_object_weighs_less_and_a_covered_one_nothing():
    images, tags, maps = two_pictures(slice(0, 4), slice(2, 6))
    mixed = saliency_grafting(images, tags, maps, generator=generator())
    # All of the one is there and half of the other: 1 / (1 + 1/2).
    torch.testing.assert_close(mixed.tags[0], torch.tensor([2 / 3, 1 / 3]))
    images, tags, maps = two_pictures(slice(0, 4), slice(0, 4))
    assert saliency_grafting(images, tags, maps, generator=generator()).tags.tolist() == [[1, 0], [0, 1]]


def test_without_anything_salient_tags_go_by_area():
    images, tags, maps = two_pictures(slice(0), slice(0))
    mixed = saliency_grafting(images, tags, maps, generator=generator())
    assert torch.equal(mixed.images, images.flip(0)) and torch.equal(mixed.tags, tags.flip(0))
    assert not mixed.pseudo_masks.any()


def test_void_is_grafted_too():
    images, tags, maps = two_pictures(slice(0, 4), slice(8, 16))
    maps[0, 1, :, :4], maps[0, 0, :, :4] = 0.5, 0.5
    mixed = saliency_grafting(images, tags, maps, generator=generator())
    assert (mixed.pseudo_masks[0, :, :4] == VOID).all()


def test_impossible_cells_are_refused_and_no_gradient_flows(probability_case):
    images, tags, maps = probability_case()
    with pytest.raises(ValueError, match="^cells: expected at least 1, got 0$"):
        saliency_grafting(images, tags, maps, generator=generator(), cells=0)
    mixed = saliency_grafting(images, tags, maps.requires_grad_(), generator=generator())
    assert not mixed.tags.requires_grad
