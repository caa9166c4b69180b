from pathlib import Path

import pytest
import torch
from torch import Tensor

from rsepm_edu.data.palette import write_mask
from rsepm_edu.data.seeds import write_seed
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.errors import UserError
from rsepm_edu.labels import VOID
from rsepm_edu.multistage.stored import choose_stored_threshold, score_stored_masks, sweep_stored_seeds


def test_seeds_and_masks_are_scored_from_their_files(creatures: Path, tmp_path: Path) -> None:
    """The truth itself scores 1; without its second half of rows, known shares are missed."""
    dataset = VocDataset(creatures, "val", masks=True)
    classes = len(dataset.classes)
    kept = total = 0
    for index, name in enumerate(dataset.names):
        mask = dataset.sample(index, masks=True)["mask"].as_subclass(Tensor)
        truth = mask.masked_fill(mask == VOID, 0)
        seed = torch.stack([(truth == k + 1).float() * 0.4 for k in range(classes)])
        write_seed(tmp_path / "seeds" / f"{name}.npz", seed)
        half = truth.clone()
        half[32:] = 0
        write_mask(tmp_path / "masks" / f"{name}.png", half)
        kept, total = kept + int((half > 0).sum()), total + int((truth > 0).sum())
    sweep = sweep_stored_seeds(dataset, tmp_path / "seeds", thresholds=(0.2, 0.5), progress=False)
    assert sweep.at(0.2, dataset.classes).miou == 1
    assert sweep.at(0.5, dataset.classes).fn == 1
    result = score_stored_masks(dataset, tmp_path / "masks", progress=False)
    assert result.fp == 0 and 0 < kept < total
    only = [name for name, value in result.class_fn.items() if value == 1 and name != "background"]
    assert result.fn > 0 and all(result.iou[name] == 0 for name in only)


def test_a_threshold_is_chosen_where_the_colours_part(tmp_path: Path, creatures: Path) -> None:
    """A seed of 0.62 on the reddest third of a picture, 0.31 on another: 0.35 … 0.60 keep what colour tells."""
    dataset = VocDataset(creatures, "train")
    for index, name in enumerate(dataset.names):
        red = dataset.sample(index, masks=False)["image"].as_subclass(Tensor)[0]
        rank = red.flatten().argsort().argsort().reshape(red.shape) / red.numel()
        seed = torch.zeros(len(dataset.classes), *red.shape)
        torch.manual_seed(index)
        seed[0] = torch.where(rank > 0.67, 0.62, torch.where(torch.rand(red.shape) < 0.5, 0.31, 0.0))
        write_seed(tmp_path / f"{name}.npz", seed)
    assert 0.35 <= choose_stored_threshold(dataset, tmp_path, progress=False) <= 0.60
    # One picture alone is the first; the seeds of the others are not read.
    for name in dataset.names[1:]:
        (tmp_path / f"{name}.npz").unlink()
    assert 0.35 <= choose_stored_threshold(dataset, tmp_path, pictures=1, progress=False) <= 0.60


def test_stored_files_of_another_picture_or_with_other_labels_are_named(creatures: Path, tmp_path: Path) -> None:
    dataset = VocDataset(creatures, "val", masks=True)
    for name in dataset.names:
        write_mask(tmp_path / f"{name}.png", torch.zeros(64, 64, dtype=torch.uint8))
        write_seed(tmp_path / f"{name}.npz", torch.zeros(5, 64, 64))
    first = dataset.names[0]
    score_stored_masks(dataset, tmp_path, progress=False)
    for size, label, got in (((64, 63), 0, r"\(64, 63\)"), ((64, 64), 6, "6"), ((64, 64), 255, "255")):
        write_mask(tmp_path / f"{first}.png", torch.full(size, label, dtype=torch.uint8))
        with pytest.raises(UserError, match=rf"{first}\.png: expected .*, got {got}$"):
            score_stored_masks(dataset, tmp_path, progress=False)
    write_seed(tmp_path / f"{first}.npz", torch.zeros(4, 64, 64))
    for call in (sweep_stored_seeds, choose_stored_threshold):
        with pytest.raises(
            UserError, match=rf"{first}\.npz: expected a seed KxHxW = \(5, 64, 64\) of this picture, got"
        ):
            call(dataset, tmp_path, progress=False)
