import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from rsepm_edu.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    denormalise,
    fit_square,
    normalise,
    training_transform,
)
from rsepm_edu.data.voc import Sample
from rsepm_edu.labels import VOID


def test_normalise_is_what_torchvision_does_for_its_weights() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    oracle = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    torch.testing.assert_close(normalise(images), oracle(images))
    torch.testing.assert_close(normalise(images[0]), oracle(images[0]))
    assert normalise(images).dtype == torch.float32


def test_denormalise_takes_every_value_back() -> None:
    images = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    assert torch.equal(denormalise(normalise(images)), images)
    assert denormalise(normalise(images)).dtype == torch.uint8


def test_denormalise_cuts_what_no_picture_has() -> None:
    extremes = torch.tensor([-100.0, 100.0]).expand(3, 1, 2)
    assert denormalise(extremes)[0].tolist() == [[0, 255]]


@pytest.mark.parametrize("shape", [(3, 40, 30), (3, 20, 90), (3, 8, 8)])
def test_every_picture_comes_out_at_the_size_as_bytes(shape: tuple[int, int, int]) -> None:
    image = tv_tensors.Image(torch.randint(0, 256, shape, dtype=torch.uint8))
    result = training_transform(16, jitter=0.3)(image)
    assert result.shape == (3, 16, 16) and result.dtype == torch.uint8


def test_a_mask_follows_the_geometry_of_its_picture() -> None:
    """A picture that shows its own mask: wherever the crop and the mirror take it, the two must agree."""
    labels = torch.zeros(64, 48, dtype=torch.uint8)
    labels[10:40, 5:30], labels[30:60, 25:45] = 1, 2
    sample = {
        "image": tv_tensors.Image((labels * 100).expand(3, -1, -1)),
        "mask": tv_tensors.Mask(labels),
        "tags": torch.tensor([1.0, 1.0]),
    }
    transform = training_transform(32, scale=(0.2, 1.0))
    results = []
    for seed in range(8):
        torch.manual_seed(seed)
        result = transform(sample)
        shown = (result["image"][0].float() / 100).round()
        assert (shown == result["mask"]).float().mean() > 0.9  # edges are blurred in one, not in the other
        assert set(result["mask"].unique().tolist()) <= {0, 1, 2}
        assert torch.equal(result["tags"], sample["tags"])
        results.append(result["mask"])
    assert not all(torch.equal(results[0], other) for other in results[1:])


def test_half_of_the_pictures_are_mirrored_and_crops_have_the_wanted_area() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 100, 100)  # brightness tells the column
    transform = training_transform(50, scale=(0.25, 0.5))
    mirrored, widths = 0, []
    torch.manual_seed(0)
    for _ in range(200):
        row = transform(tv_tensors.Image(ramp))[0, 0].float()
        mirrored += int(row[0] > row[-1])
        widths.append(float((row.max() - row.min()) * 50 / 49))
    assert 70 <= mirrored <= 130
    # A share a of the area at a ratio r has the width 100 √(a r): 43 … 82 here.
    assert 40 <= min(widths) < 50 and 72 < max(widths) <= 84


def test_without_jitter_colours_stay_and_with_it_they_change() -> None:
    image = tv_tensors.Image(torch.full((3, 20, 20), 90, dtype=torch.uint8))
    assert (training_transform(10)(image) == 90).all()
    torch.manual_seed(0)
    shades = {int(training_transform(10, jitter=0.5)(image)[0, 0, 0]) for _ in range(10)}
    assert len(shades) > 5


@pytest.mark.parametrize(("height", "width"), [(6, 10), (10, 6), (20, 20), (7, 40), (1, 90)])
def test_a_picture_fits_into_a_square_and_nothing_is_cut(height: int, width: int) -> None:
    image = torch.full((3, height, width), 200, dtype=torch.uint8)
    mask = torch.full((height, width), 3, dtype=torch.uint8)
    sample: Sample = {
        "name": "a",
        "image": tv_tensors.Image(image),
        "tags": torch.ones(2),
        "mask": tv_tensors.Mask(mask),
    }
    fitted = fit_square(sample, 20)
    assert fitted["image"].shape == (3, 20, 20) and fitted["mask"].shape == (20, 20)
    inside = fitted["mask"] != VOID
    rows, columns = inside.any(1).sum().item(), inside.any(0).sum().item()
    scale = 20 / max(height, width)
    assert (rows, columns) == (max(1, round(height * scale)), max(1, round(width * scale)))
    assert inside.sum() == rows * columns and (fitted["mask"][inside] == 3).all()
    assert (fitted["image"][:, inside] == 200).all()
    assert torch.unique(fitted["image"][:, ~inside], dim=1).flatten().tolist() in ([], [124, 116, 104])
    before, after = (int(index) for index in (inside.any(1).nonzero()[0, 0], 19 - inside.any(1).nonzero()[-1, 0]))
    assert 0 <= after - before <= 1  # in the middle
    assert sample["image"].shape == (3, height, width)  # the sample itself is left as it was
    del sample["mask"]
    assert "mask" not in fit_square(sample, 20)
