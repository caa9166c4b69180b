import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from rsepm_edu.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    change_colours,
    denormalise,
    draw_colours,
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
    result = training_transform(16)(image)
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


def test_colours_change_as_torchvision_changes_them() -> None:
    """One picture at a time, in floating point and cut to [0, 1] after every change."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 9, 7), dtype=torch.uint8)
    images[1] = images[1] // 8  # dark, light, and grey ones
    images[2] = 255 - images[2] // 8
    images[3] = images[3, :1]
    factors = torch.stack([draw_colours(0.8) for _ in images])
    for image, factor, changed in zip(images, factors.tolist(), change_colours(images, factors), strict=True):
        oracle = v2.functional.adjust_brightness(image.float() / 255, factor[0])
        oracle = v2.functional.adjust_contrast(oracle, factor[1])
        oracle = v2.functional.adjust_saturation(oracle, factor[2])
        torch.testing.assert_close(changed.float(), oracle * 255, atol=0.6, rtol=0)  # rounded, 0.2989 beside 0.299


def test_factors_of_one_leave_every_byte_as_it_is() -> None:
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(change_colours(images, torch.ones(4, 3)), images)


def test_colours_of_one_picture_do_not_depend_on_the_others() -> None:
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    factors = torch.stack([draw_colours(0.5) for _ in images])
    alone = torch.cat([change_colours(images[i : i + 1], factors[i : i + 1]) for i in range(3)])
    assert torch.equal(change_colours(images, factors), alone)


def test_factors_are_drawn_within_their_range_and_only_when_wanted() -> None:
    state = torch.get_rng_state()
    assert draw_colours(0.0).tolist() == [1, 1, 1] and torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    for jitter, low in ((0.3, 0.7), (2.0, 0.0)):
        drawn = torch.stack([draw_colours(jitter) for _ in range(500)])
        assert drawn.min() >= low and drawn.max() <= 1 + jitter
        assert (drawn.amax(0) - drawn.amin(0) > 0.9 * (1 + jitter - low)).all()
    torch.manual_seed(3)
    first = draw_colours(0.3)
    torch.manual_seed(3)
    assert torch.equal(draw_colours(0.3), first)


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
