from collections import Counter

import pytest
import torch

from rsepm_edu.labels import VOID
from rsepm_edu.methods.mixing import choose_half, label_counts, partners


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
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
