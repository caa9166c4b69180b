from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from rsepm_edu.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    change_colours,
    denormalise,
    draw_colours,
    fit_square,
    inside_boxes,
    normalise,
    pad_crop,
    training_crop,
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


@pytest.mark.parametrize("kind", ["pad", "zoom"])
@pytest.mark.parametrize("shape", [(3, 40, 30), (3, 20, 90), (3, 8, 8), (3, 1, 60)])
def test_pictures_come_out_at_the_size_as_bytes(kind: Literal["pad", "zoom"], shape: tuple[int, int, int]) -> None:
    image = torch.randint(0, 256, shape, dtype=torch.uint8)
    crop, box = training_crop(kind, 16, scale=(0.5, 1.0))(image)
    assert crop.shape == (3, 16, 16) and crop.dtype == torch.uint8
    assert box.shape == (4,) and box.dtype == torch.int64
    assert kind == "pad" or box.tolist() == [0, 0, 16, 16]


def test_zoomed_pictures_are_mirrored_half_of_the_time_and_have_the_wanted_area() -> None:
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 100, 100)  # brightness tells the column
    transform = training_crop("zoom", 50, scale=(0.25, 0.5))
    mirrored, widths = 0, []
    torch.manual_seed(0)
    for _ in range(200):
        row = transform(ramp)[0][0, 0].float()
        mirrored += int(row[0] > row[-1])
        widths.append(float((row.max() - row.min()) * 50 / 49))
    assert 70 <= mirrored <= 130
    # A share a of the area at a ratio r has the width 100 √(a r): 43 … 82 here.
    assert 40 <= min(widths) < 50 and 72 < max(widths) <= 84


PADDING = [124, 116, 104]


@pytest.mark.parametrize("shape", [(3, 40, 30), (3, 20, 90), (3, 64, 64), (3, 1, 60)])
def test_a_padded_crop_is_the_resized_picture_at_its_place(shape: tuple[int, int, int]) -> None:
    """Pillow resizes; then pixel by pixel, with the four numbers that the same state of chance gives."""
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cut = padded = 0
    for seed in range(12):
        torch.manual_seed(seed)
        crop, box = pad_crop(image, size=32, scale=(0.5, 1.5))
        torch.manual_seed(seed)
        grown, turned, down, across = torch.rand(4).tolist()
        long_side = (0.5 + grown) * 32
        height, width = (max(1, round(side * long_side / max(shape))) for side in shape[1:])
        resized = np.asarray(
            Image.fromarray(image.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BILINEAR)
        )
        resized = resized[:, ::-1] if turned < 0.5 else resized
        # Where the first pixel of the picture lies in the crop; negative where it is cut.
        first = [
            int(share * (32 - side + 1)) if side < 32 else -int(share * (side - 32 + 1))
            for side, share in ((height, down), (width, across))
        ]
        top, left = (max(0, place) for place in first)
        bottom, right = min(32, first[0] + height), min(32, first[1] + width)
        assert box.tolist() == [top, left, bottom, right]
        for y in range(32):
            for x in range(32):
                if top <= y < bottom and left <= x < right:
                    wanted = resized[y - first[0], x - first[1]].tolist()
                    assert all(abs(a - b) <= 1 for a, b in zip(crop[:, y, x].tolist(), wanted, strict=True))
                else:
                    assert crop[:, y, x].tolist() == PADDING
        cut, padded = cut + (min(first) < 0), padded + ((bottom - top) * (right - left) < 32 * 32)
    assert padded and cut


def test_the_long_side_is_drawn_evenly_from_its_range_and_half_is_mirrored() -> None:
    ramp = torch.arange(0, 240, 3, dtype=torch.uint8).expand(3, 40, 80)  # brightness tells the column
    transform = training_crop("pad", 40, scale=(0.5, 1.0))
    torch.manual_seed(0)
    mirrored, sides = 0, []
    for _ in range(400):
        crop, box = transform(ramp)
        top, left, bottom, right = box.tolist()
        assert bottom - top == pytest.approx((right - left) / 2, abs=1)
        mirrored += int(crop[0, top, left] > crop[0, top, right - 1])
        sides.append(right - left)
    assert min(sides) == 20 and max(sides) == 40
    assert 150 <= mirrored <= 250  # 5 standard deviations
    assert sum(side < 30 for side in sides) == pytest.approx(190, abs=50)


def test_a_short_side_comes_to_every_place_and_a_long_one_is_cut_at_every_place() -> None:
    columns = torch.arange(16, dtype=torch.uint8).expand(3, 4, 16) * 10  # brightness tells the column
    places, cuts = set(), set()
    torch.manual_seed(0)
    for _ in range(400):
        crop, box = pad_crop(columns, size=10, scale=(1.6, 1.6))  # 4 x 16 as it is
        top, left, bottom, right = box.tolist()
        assert (bottom - top, left, right) == (4, 0, 10)
        places.add(top)
        row = crop[0, top].tolist()
        assert row in (sorted(row), sorted(row, reverse=True))
        cuts.add((min(row) // 10, row == sorted(row)))
    assert places == set(range(7))
    assert cuts == {(first, mirrored) for first in range(7) for mirrored in (False, True)}


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (3, 9)])
def test_inside_boxes_is_one_inside_each_box(size: tuple[int, int]) -> None:
    boxes = torch.tensor([[0, 0, 5, 7], [1, 2, 3, 3], [0, 0, 1, 1], [2, 2, 2, 5]])
    inside = inside_boxes(boxes, size)
    assert inside.dtype == torch.float32 and inside.shape == (4, 1, *size)
    for plane, (top, left, bottom, right) in zip(inside, boxes.tolist(), strict=True):
        for y in range(size[0]):
            for x in range(size[1]):
                assert float(plane[0, y, x]) == float(top <= y < bottom and left <= x < right)


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
