from collections import Counter

import pytest
import torch

from rsepm_edu.labels import VOID
from rsepm_edu.methods.cda import context_decoupling
from rsepm_edu.methods.classmix import class_mix
from rsepm_edu.methods.cutmix import cut_mix
from rsepm_edu.methods.edgepredictmix import edge_predict, edge_predict_and_mix
from rsepm_edu.methods.mixing import (
    Mixed,
    choose_half,
    choose_one,
    label_counts,
    mix_maps,
    partners,
    paste_classes,
    paste_region,
)
from rsepm_edu.methods.recurseed import conditional_filter
from rsepm_edu.methods.saliency_grafting import saliency_grafting


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_present(rows=50, classes=9):
    return torch.rand(rows, classes, generator=generator(7)) < torch.linspace(0, 1, rows)[:, None]


def naive_counts(masks):
    result = [[0] * 256 for _ in masks]
    for b, mask in enumerate(masks.tolist()):
        for row in mask:
            for label in row:
                result[b][label] += 1
    return result


# choose_half


@pytest.mark.parametrize(("present", "wanted"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (9, 5)])
def test_half_is_rounded_up(present, wanted):
    row = torch.zeros(1, 12, dtype=torch.bool)
    row[0, torch.randperm(12, generator=generator(1))[:present]] = True
    chosen = choose_half(row, generator=generator())
    assert chosen.dtype == torch.bool
    assert int(chosen.sum()) == wanted


def test_chosen_classes_are_present_and_half_of_them_in_every_row():
    present = random_present()
    assert not present[0].any() and present[-1].all()
    chosen = choose_half(present, generator=generator())
    assert chosen.shape == present.shape
    assert not (chosen & ~present).any()
    for row, among in zip(chosen.tolist(), present.tolist(), strict=True):
        assert sum(row) == -(-sum(among) // 2)


def test_every_half_comes_up_about_as_often():
    present = torch.tensor([[True, False, True, True, True]]).expand(6000, 5)
    chosen = choose_half(present, generator=generator())
    counted = Counter(tuple(row.nonzero().flatten().tolist()) for row in chosen)
    assert set(counted) == {(0, 2), (0, 3), (0, 4), (2, 3), (2, 4), (3, 4)}
    assert all(abs(number - 1000) < 150 for number in counted.values())  # 5 standard deviations


def test_the_generator_alone_decides_which_half():
    present = random_present()
    first = choose_half(present, generator=generator(3))
    torch.manual_seed(123)
    assert torch.equal(choose_half(present, generator=generator(3)), first)
    assert not torch.equal(choose_half(present, generator=generator(4)), first)
    shared = generator(3)
    choose_half(present, generator=shared)
    assert not torch.equal(choose_half(present, generator=shared), first), "a second draw is another one"


def test_choosing_leaves_the_input_alone_and_takes_no_rows_or_no_classes():
    present = random_present()
    copy = present.clone()
    choose_half(present, generator=generator())
    assert torch.equal(present, copy)
    assert choose_half(present[:0], generator=generator()).shape == (0, 9)
    assert choose_half(present[:, :0], generator=generator()).shape == (50, 0)


@pytest.mark.gpu
def test_every_device_draws_the_same():
    present = random_present()
    chosen = choose_half(present.cuda(), generator=generator())
    assert chosen.is_cuda
    assert torch.equal(chosen.cpu(), choose_half(present, generator=generator()))
    masks = torch.randint(0, 256, (3, 8, 9), generator=generator())
    assert torch.equal(label_counts(masks.cuda()).cpu(), label_counts(masks))


# partners


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 33])
def test_partners_are_one_cycle_through_all_pictures(count):
    for seed in range(10):
        partner = partners(count, generator=generator(seed))
        assert partner.dtype == torch.int64 and partner.shape == (count,)
        seen, picture = [], 0
        while picture not in seen and count:
            seen.append(picture)
            picture = int(partner[picture])
        assert len(seen) == count, "the walk from picture 0 meets every picture before it comes back"
        if count > 1:
            assert not (partner == torch.arange(count)).any()


def test_every_cycle_comes_up_about_as_often():
    shared = generator()
    counted = Counter(tuple(partners(4, generator=shared).tolist()) for _ in range(3000))
    assert len(counted) == 6  # (4 - 1)! cycles of four
    assert all(abs(number - 500) < 105 for number in counted.values())  # 5 standard deviations


def test_the_generator_alone_decides_who_is_whose_partner():
    first = partners(16, generator=generator(3))
    torch.manual_seed(123)
    assert torch.equal(partners(16, generator=generator(3)), first)
    assert not torch.equal(partners(16, generator=generator(4)), first)


# label_counts


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 1, 9), (0, 4, 4)])
def test_label_counts_equal_the_naive_loops(shape):
    masks = torch.randint(0, 6, shape, generator=generator())
    masks[torch.rand(shape, generator=generator()) < 0.2] = VOID
    counts = label_counts(masks)
    assert counts.dtype == torch.int64 and counts.shape == (shape[0], 256)
    assert counts.tolist() == naive_counts(masks)


def test_a_label_without_a_column_is_refused():
    with pytest.raises(RuntimeError, match="index 256 is out of bounds"):
        label_counts(torch.full((1, 2, 2), 256))


# choose_one


def test_one_present_class_of_each_row_is_drawn_each_about_as_often():
    present = torch.tensor([[True, False, True, True]]).expand(3000, 4)
    chosen = choose_one(present, generator=generator())
    assert (chosen.sum(1) == 1).all() and not (chosen & ~present).any()
    assert all(abs(int(count) - 1000) < 130 for count in chosen.sum(0)[[0, 2, 3]])  # 5 standard deviations
    assert not choose_one(torch.zeros(3, 4, dtype=torch.bool), generator=generator()).any()


# where each pixel comes from


def random_batch(*, batch=3, size=(6, 7), seed=0):
    source = generator(seed)
    images = torch.rand(batch, 3, *size, generator=source)
    tags = (torch.rand(batch, 3, generator=source) < 0.5).float()
    masks = torch.tensor([0, 1, 2, 3, VOID])[torch.randint(0, 5, (batch, *size), generator=source)]
    return images, tags, masks


def naive_origin(number, size):
    """Picture, row and column of a pixel that is counted picture by picture and row by row."""
    picture, rest = divmod(number, size[0] * size[1])
    return (picture, *divmod(rest, size[1]))


def test_an_unmixed_batch_is_its_own_source():
    images, tags, masks = random_batch()
    batch = Mixed.unmixed(images, tags, masks)
    assert batch.images is images and batch.tags is tags and batch.pseudo_masks is masks
    assert batch.source.dtype == torch.int64
    for b in range(3):
        for y in range(6):
            for x in range(7):
                assert naive_origin(int(batch.source[b, y, x]), (6, 7)) == (b, y, x)


def test_rows_are_chosen_in_every_field():
    batch = Mixed.unmixed(*random_batch())
    chosen = batch.rows(torch.tensor([2, 0, 2, 1]))
    for field, wanted in zip(chosen, batch, strict=True):
        assert torch.equal(field, torch.stack([wanted[b] for b in (2, 0, 2, 1)]))


def test_what_is_pasted_brings_its_source_along():
    batch = Mixed.unmixed(*random_batch())
    below = batch.rows(torch.tensor([1, 2, 0]))
    chosen = torch.tensor([[True, False, False], [False, True, True], [False, False, False]])
    region = torch.rand(3, 6, 7, generator=generator(5)) < 0.4
    by_class, by_region = paste_classes(batch, below, chosen), paste_region(batch, below, region, torch.zeros(3))
    for b, other in enumerate((1, 2, 0)):
        for y in range(6):
            for x in range(7):
                label = int(batch.pseudo_masks[b, y, x])
                pasted = label not in (0, VOID) and bool(chosen[b, label - 1])
                origin = b if pasted else other
                assert naive_origin(int(by_class.source[b, y, x]), (6, 7)) == (origin, y, x)
                origin = b if region[b, y, x] else other
                assert naive_origin(int(by_region.source[b, y, x]), (6, 7)) == (origin, y, x)


def naive_mix_maps(maps, source):
    """Each position takes the value where the pixel in its middle came from."""
    count, channels, rows, columns = maps.shape
    height, width = source.shape[1:]
    result = torch.zeros_like(maps)
    for b in range(count):
        for y in range(rows):
            for x in range(columns):
                middle = int(height * (y + 0.5) / rows), int(width * (x + 0.5) / columns)
                picture, v, u = naive_origin(int(source[b][middle]), (height, width))
                for c in range(channels):
                    result[b, c, y, x] = maps[picture, c, int(v / (height / rows)), int(u / (width / columns))]
    return result


@pytest.mark.parametrize("size", [(12, 16), (6, 8), (3, 4), (1, 1), (5, 7), (11, 3)])
@pytest.mark.parametrize("scattered", [False, True])
def test_mix_maps_equals_the_naive_loops(size, scattered):
    maps = torch.rand(3, 2, *size, generator=generator())
    pixels = 3 * 12 * 16
    if scattered:
        source = torch.randint(0, pixels, (3, 12, 16), generator=generator(1))
    else:  # as most methods mix: from the same place of one picture or the other
        batch = Mixed.unmixed(torch.zeros(3, 3, 12, 16), torch.zeros(3, 1), torch.zeros(3, 12, 16, dtype=torch.int64))
        region = torch.rand(3, 12, 16, generator=generator(2)) < 0.5
        source = torch.where(region, batch.source, batch.source.roll(1, 0))
    mixed = mix_maps(maps, source)
    assert torch.equal(mixed, naive_mix_maps(maps, source))
    if size == (12, 16):  # exact: whatever the place
        flat = maps.transpose(0, 1).reshape(2, -1)
        assert torch.equal(mixed, flat[:, source].transpose(0, 1))


@pytest.mark.parametrize("size", [(12, 16), (5, 7), (3, 4)])
def test_maps_of_an_unmixed_batch_stay_as_they_are(size):
    maps = torch.rand(2, 3, *size, generator=generator())
    assert torch.equal(mix_maps(maps, torch.arange(2 * 12 * 16).view(2, 12, 16)), maps)


def test_maps_of_another_batch_are_refused():
    source = torch.arange(2 * 12 * 16).view(2, 12, 16)
    with pytest.raises(ValueError, match=r"^maps: expected BxCxhxw, B = 2 as in the source, got \(3, 1, 6, 8\)$"):
        mix_maps(torch.zeros(3, 1, 6, 8), source)


# the one interface of all methods


MIXERS = [cut_mix, saliency_grafting, context_decoupling, class_mix, edge_predict_and_mix]
every_mixer = pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.__name__)


@every_mixer
def test_the_result_has_the_shapes_and_types_of_what_came(mixer, probability_case):
    images, tags, maps = probability_case()
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        mixed = mixer(images.to(dtype), tags.to(dtype), maps.float(), generator=generator())
        assert [part.shape for part in mixed] == [images.shape, tags.shape, (4, 11, 14), (4, 11, 14)]
        assert [part.dtype for part in mixed] == [dtype, dtype, torch.int64, torch.int64]
        assert float(mixed.tags.min()) >= 0 and float(mixed.tags.max()) <= 1
        wanted = mixer(images, tags, maps.float(), generator=generator())
        assert torch.equal(mixed.images, wanted.images.to(dtype))
        torch.testing.assert_close(mixed.tags, wanted.tags.to(dtype), rtol=0.01, atol=0.01)


@every_mixer
def test_every_pixel_is_that_of_its_source(mixer, probability_case):
    foreign = 0
    for seed in range(4):
        images, tags, maps = probability_case(batch=3, seed=seed)
        settings = {} if mixer is class_mix else {"certain": 0.4}
        mixed = mixer(images, tags, maps, generator=generator(seed), **settings)
        if mixer is class_mix:
            masks = maps.argmax(dim=1)
        elif mixer is edge_predict_and_mix:
            masks = edge_predict(maps, tags, certain=0.4)
        else:
            masks = conditional_filter(maps[:, 1:], certain=0.4)
        below = partners(3, generator=generator(seed)).tolist()
        for b in range(3):
            seen = set()
            for y in range(11):
                for x in range(14):
                    picture, v, u = naive_origin(int(mixed.source[b, y, x]), (11, 14))
                    seen.add(picture)
                    assert torch.equal(mixed.images[b, :, y, x], images[picture, :, v, u])
                    assert int(mixed.pseudo_masks[b, y, x]) == int(masks[picture, v, u])
                    assert (v, u) == (y, x) or (mixer is context_decoupling and picture == b)
            assert seen <= {b, below[b]}
            foreign += len(seen) == 2
        # the picture itself as a map is mixed like the picture
        assert torch.equal(mix_maps(images, mixed.source), mixed.images)
    assert foreign >= 2, "some pictures hold parts of two"


@every_mixer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_may_be_of_low_precision(mixer, probability_case, dtype):
    images, tags, maps = probability_case()
    low = maps.to(dtype)
    mixed = mixer(images, tags, low, generator=generator())
    wanted = mixer(images, tags, low.double(), generator=generator())
    assert torch.equal(mixed.pseudo_masks, wanted.pseudo_masks)
    torch.testing.assert_close(mixed.tags, wanted.tags)


@every_mixer
def test_the_generator_alone_decides_what_is_mixed_and_inputs_are_left_alone(mixer, probability_case):
    case = probability_case(batch=8)
    copies = [tensor.clone() for tensor in case]
    first = mixer(*case, generator=generator(3))
    torch.manual_seed(123)
    assert all(torch.equal(a, b) for a, b in zip(first, mixer(*case, generator=generator(3)), strict=True))
    assert not torch.equal(first.images, mixer(*case, generator=generator(4)).images)
    assert all(torch.equal(a, b) for a, b in zip(case, copies, strict=True))


@every_mixer
def test_a_picture_alone_is_its_own_partner(mixer, probability_case):
    images, tags, maps = probability_case(batch=1, seed=1)
    for seed in range(3):
        mixed = mixer(images, tags, maps, generator=generator(seed))
        assert torch.equal(mixed.images, images) and torch.equal(mixed.tags, tags)


@every_mixer
def test_pictures_without_objects_are_mixed_without_objects(mixer):
    images, tags = torch.rand(3, 3, 8, 8, generator=generator()), torch.zeros(3, 2)
    maps = torch.zeros(3, 3, 8, 8)
    maps[:, 0] = 1
    mixed = mixer(images, tags, maps, generator=generator())
    assert not mixed.tags.any() and not mixed.pseudo_masks.any()


@every_mixer
def test_no_tag_and_no_label_comes_from_nowhere(mixer, probability_case):
    for seed in range(4):
        images, tags, maps = probability_case(seed=seed)
        mixed = mixer(images, tags, maps, generator=generator(seed))
        either = tags + tags[partners(4, generator=generator(seed))]
        assert not mixed.tags[either == 0].any()
        assert (mixed.tags[either == 2] > 0).all() or mixer not in (cut_mix, saliency_grafting)
        shown = label_counts(mixed.pseudo_masks)[:, 1:4]
        assert not shown[either == 0].any()


@every_mixer
def test_methods_refuse_what_does_not_go_together(mixer, probability_case):
    images, tags, maps = probability_case()
    with pytest.raises(ValueError, match=r"^images: expected BxCxhxw, got shape \(3, 11, 14\)$"):
        mixer(images[0], tags, maps, generator=generator())
    with pytest.raises(TypeError, match=r"^maps: expected a floating dtype, got torch.int64$"):
        mixer(images, tags, maps.long(), generator=generator())
    with pytest.raises(ValueError, match=r"^tags: expected BxK = \(4, 2\), got shape \(4, 3\)$"):
        mixer(images, tags, maps[:, 1:], generator=generator())  # without a background
    with pytest.raises(ValueError, match=r"^maps: expected B and HxW of the images .*, got \(4, 4, 11, 13\)$"):
        mixer(images, tags, maps[..., 1:], generator=generator())
    if mixer is not class_mix:
        with pytest.raises(
            ValueError, match="^expected 0 <= uncertain < certain <= 1, got uncertain=0.6, certain=0.5$"
        ):
            mixer(images, tags, maps, generator=generator(), certain=0.5, uncertain=0.6)


@pytest.mark.parametrize("mixer", [cut_mix, saliency_grafting])
def test_tags_that_cannot_hold_fractions_are_refused(mixer, probability_case):
    images, tags, maps = probability_case()
    with pytest.raises(TypeError, match="^tags: expected a floating dtype, for fractions, got torch.int64$"):
        mixer(images, tags.long(), maps, generator=generator())


@pytest.mark.gpu
@every_mixer
def test_the_gpu_mixes_the_same(mixer, probability_case):
    case = [tensor.float() for tensor in probability_case()]
    mixed = mixer(*(tensor.cuda() for tensor in case), generator=generator())
    wanted = mixer(*case, generator=generator())
    assert all(part.is_cuda for part in mixed)
    assert torch.equal(mixed.images.cpu(), wanted.images)
    assert torch.equal(mixed.pseudo_masks.cpu(), wanted.pseudo_masks)
    assert torch.equal(mixed.source.cpu(), wanted.source)
    torch.testing.assert_close(mixed.tags.cpu(), wanted.tags)


@pytest.mark.parametrize("channels", [1, 3])
def test_mixed_maps_lie_in_memory_like_new_ones(channels: int) -> None:
    # torch's pooling on a GPU steps from map to map by the stride of a dimension of one, whatever that is.
    source = torch.arange(4 * 36).view(4, 6, 6).flip(0)
    mixed = mix_maps(torch.rand(4, channels, 6, 6), source)
    assert mixed.stride() == torch.empty(4, channels, 6, 6).stride()
