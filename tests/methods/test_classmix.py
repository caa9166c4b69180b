import pytest
import torch

from rsepm_edu.methods.classmix import class_mix
from rsepm_edu.methods.edgepredictmix import edge_predict_mix
from rsepm_edu.methods.mixing import choose_half, partners


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_argmax(maps):
    batch, _, height, width = maps.shape
    masks = torch.zeros(batch, height, width, dtype=torch.int64)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                scores = maps[b, :, y, x].tolist()
                masks[b, y, x] = scores.index(max(scores))
    return masks


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_class_mix_equals_the_naive_loops(probability_case, naive_visible, batch, seed):
    images, tags, maps = probability_case(batch=batch, classes=5, seed=seed)
    mixed = class_mix(images, tags, maps, generator=generator(seed))
    masks, source = naive_argmax(maps), generator(seed)
    below = partners(batch, generator=source).tolist()
    shown = torch.tensor([[(mask == k + 1).any() for k in range(5)] for mask in masks])
    chosen = choose_half(shown, generator=source).tolist()
    for b, other in enumerate(below):
        labels = [k + 1 for k in range(5) if chosen[b][k]]
        pasted = torch.zeros(masks.shape[1:], dtype=torch.bool)
        for y in range(masks.shape[1]):
            for x in range(masks.shape[2]):
                pasted[y, x] = int(masks[b, y, x]) in labels
                origin = b if pasted[y, x] else other
                assert torch.equal(mixed.images[b, :, y, x], images[origin, :, y, x])
                assert int(mixed.pseudo_masks[b, y, x]) == int(masks[origin, y, x])
        for k in range(5):
            kept = float(tags[other, k]) * naive_visible(masks[other], pasted, k + 1)
            assert float(mixed.tags[b, k]) == max(kept, float(chosen[b][k]))


def test_it_pastes_no_more_than_edge_predict_mix_which_takes_every_class(probability_case):
    images, tags, maps = probability_case(batch=5, classes=5)
    mixed = class_mix(images, tags, maps, generator=generator(4))
    everything = edge_predict_mix(images, tags, maps.argmax(1), generator=generator(4))
    own = torch.arange(images[0, 0].numel() * 5).view_as(mixed.source)
    assert not ((mixed.source == own) & (everything.source != own)).any()
    assert not torch.equal(mixed.source, everything.source)


def test_background_is_not_pasted_and_half_of_the_classes_is():
    maps = torch.zeros(2, 4, 1, 8)
    maps[0, :, 0] = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).T.float()
    maps[1, 0] = 1
    images = torch.stack([torch.full((3, 1, 8), 0.25), torch.full((3, 1, 8), 0.75)])
    tags = torch.tensor([[1.0, 1, 1], [0, 0, 0]])
    for seed in range(5):
        mixed = class_mix(images, tags, maps, generator=generator(seed))
        assert (mixed.images[0, 0, 0] == 0.25).sum() == 4 and (mixed.images[0, 0, 0, :2] == 0.75).all()
        assert int(mixed.tags[0].sum()) == 2
        assert torch.equal(mixed.images[1], images[0]), "nothing to paste"
