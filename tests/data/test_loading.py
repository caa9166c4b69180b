import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from rsepm_edu.data.loading import EpochSampler, SeededDataset, batches_of, derive_seed, epoch_loader
from rsepm_edu.data.transforms import change_colours, draw_colours, training_crop
from rsepm_edu.data.voc import Sample, VocDataset
from rsepm_edu.errors import UserError


class Crops:
    """A transform with random draws that can be sent to another process."""

    def __call__(self, sample: Sample) -> tuple[str, torch.Tensor]:
        image = training_crop("zoom", 24, scale=(0.3, 1.0))(sample["image"])[0]
        return sample["name"], change_colours(image[None], draw_colours(0.2)[None])[0]


class Draws(Dataset[torch.Tensor]):
    """Item i is i and a random number."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, float(torch.rand(()))], dtype=torch.float64)


def batches(root: Path, *, seed: int = 0, epoch: int = 0, workers: int = 0) -> list[tuple[list[str], torch.Tensor]]:
    dataset = VocDataset(root, "train", transform=Crops())
    loader = epoch_loader(dataset, batch_size=3, seed=seed, epoch=epoch, workers=workers)
    return [(list(names), images) for names, images in loader]


def same(first: list[tuple[list[str], torch.Tensor]], second: list[tuple[list[str], torch.Tensor]]) -> bool:
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(creatures: Path, workers: int) -> None:
    assert same(batches(creatures), batches(creatures, workers=workers))


def test_batches_do_not_depend_on_what_was_drawn_before(creatures: Path) -> None:
    straight = batches(creatures, epoch=2)
    torch.manual_seed(99)
    for epoch in (0, 1):
        batches(creatures, epoch=epoch)
    assert same(batches(creatures, epoch=2), straight)


def test_epochs_and_seeds_differ_in_order_and_in_crops(creatures: Path) -> None:
    runs = [batches(creatures), batches(creatures, epoch=1), batches(creatures, seed=1)]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert [names for names, _ in runs[a]] != [names for names, _ in runs[b]]
        first = {name: image for names, images in runs[a] for name, image in zip(names, images, strict=True)}
        second = {name: image for names, images in runs[b] for name, image in zip(names, images, strict=True)}
        assert all(not torch.equal(first[name], second[name]) for name in first.keys() & second.keys())


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generator_is_left_as_it_was(workers: int) -> None:
    before = torch.get_rng_state()
    list(epoch_loader(Draws(), batch_size=4, seed=0, epoch=0, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_item_depends_on_its_seed_alone() -> None:
    dataset = SeededDataset(Draws())
    assert torch.equal(dataset[3, 5], dataset[3, 5])
    assert dataset[3, 5][1] != dataset[3, 6][1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        assert float(dataset[3, 5][1]) == float(torch.rand(()))


def test_every_picture_comes_once_and_the_incomplete_batch_stays_out() -> None:
    loader = epoch_loader(Draws(), batch_size=4, seed=0, epoch=0)
    seen = [int(index) for batch in loader for index in batch[:, 0]]
    assert len(loader) == 2 and len(seen) == len(set(seen)) == 8
    [only] = epoch_loader(Draws(), batch_size=16, seed=0, epoch=0)  # there is no full one to keep
    assert sorted(only[:, 0].tolist()) == list(range(10))


def test_the_sampler_draws_a_permutation_and_seeds_of_its_own() -> None:
    pairs = [pair for epoch in range(3) for pair in EpochSampler(50, seed=0, epoch=epoch)]
    assert [sorted(index for index, _ in pairs[i : i + 50]) for i in (0, 50, 100)] == [list(range(50))] * 3
    assert len({seed for _, seed in pairs}) == 150
    assert len(EpochSampler(50, seed=0, epoch=0)) == 50


def test_derived_seeds_are_fixed_for_all_machines_and_spread() -> None:
    # SHA-256 of "0/order/1", its first eight bytes as a big-endian number, halved
    assert derive_seed(0, "order", 1) == 0x7C9B834547AC6879 >> 1
    seeds = [
        derive_seed(seed, "picture", epoch, index) for seed in range(3) for epoch in range(10) for index in range(50)
    ]
    assert len(set(seeds)) == 1500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert 0.45 < sum(seed > 2**62 for seed in seeds) / 1500 < 0.55


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_one_line_that_names_it_with_workers_too(
    creatures: Path, tmp_path: Path, workers: int
) -> None:
    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    path = root / "JPEGImages" / "c000003.jpg"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError) as info:
        batches(root, workers=workers)
    assert "\n" not in str(info.value)
    assert str(info.value).startswith(f"{path}: expected a ")


def test_the_data_set_can_be_sent_to_workers_that_are_not_forked(creatures: Path) -> None:
    dataset = SeededDataset(VocDataset(creatures, "train", transform=Crops()))
    name, image = pickle.loads(pickle.dumps(dataset))[2, 7]
    assert name == dataset[2, 7][0] and torch.equal(image, dataset[2, 7][1])


class Groups(Dataset[int]):
    """Every item is the process group of whoever reads it."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return os.getpgrp()


@pytest.mark.skipif(not hasattr(os, "setpgrp"), reason="no process groups on this system")
def test_a_signal_to_the_group_of_the_run_does_not_reach_its_readers() -> None:
    [groups] = epoch_loader(Groups(), batch_size=2, seed=0, epoch=0, workers=1)
    assert os.getpgrp() not in groups.tolist()


def test_an_interrupted_epoch_goes_on_with_the_batches_that_are_left() -> None:
    settings = {"batch_size": 3, "seed": 0, "epoch": 1}
    whole = list(epoch_loader(Draws(), **settings))
    assert len(whole) == batches_of(10, 3) == 3
    for start in range(4):
        rest = list(epoch_loader(Draws(), start=start, **settings))
        assert len(rest) == 3 - start
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(rest, whole[start:], strict=True))
    assert len(list(epoch_loader(Draws(), batch_size=16, seed=0, epoch=0))) == batches_of(10, 16) == 1
