import math

import pytest
import torch

from rsepm_edu.methods.puzzle import alpha_at, merge, pieces, puzzle_loss, tile
from rsepm_edu.models.network import build_network

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SIZES = [(1, 8), (2, 2), (2, 7), (3, 5), (4, 4), (5, 9), (8, 6), (13, 11)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(), dtype=torch.float64).to(dtype)


def fitting(parts):
    return [size for size in SIZES if min(size) >= parts]


# pieces


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_pieces_cover_a_side_with_equal_lengths_and_share_as_little_as_can_be(parts):
    for length in range(parts, 60):
        spans = pieces(length, parts)
        assert len(spans) == parts
        assert {end - start for start, end in spans} == {math.ceil(length / parts)}
        covered = [sum(start <= place < end for start, end in spans) for place in range(length)]
        assert set(covered) <= {1, 2}
        # One piece less, or shorter ones, would leave something out: this overlap is the smallest.
        assert covered.count(2) == math.ceil(length / parts) * parts - length < parts
        assert all(0 <= a[1] - b[0] <= 1 for a, b in zip(spans, spans[1:], strict=False))


def test_halves_of_321_share_one_pixel_and_those_of_their_map_one_position():
    assert pieces(321, 2) == [(0, 161), (160, 321)]
    assert pieces(21, 2) == [(0, 11), (10, 21)]
    assert pieces(512, 2) == [(0, 256), (256, 512)]


@pytest.mark.parametrize(("length", "parts"), [(1, 2), (5, 6), (4, 0), (4, -1)])
def test_impossible_pieces_are_refused(length, parts):
    with pytest.raises(ValueError, match=rf"^expected 1 <= parts <= .*, got {parts} parts of {length}$"):
        pieces(length, parts)


# tile


def test_tiles_come_piece_by_piece_row_by_row():
    images = torch.arange(2 * 16.0).reshape(2, 1, 4, 4)
    tiles = tile(images)
    assert tiles.shape == (8, 1, 2, 2)
    assert tiles[:, 0, 0, 0].tolist() == [0, 16, 2, 18, 8, 24, 10, 26]
    assert tiles[5, 0].tolist() == [[24, 25], [28, 29]]


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_tiles_equal_the_naive_loops(parts):
    for size in fitting(parts):
        images = draw(2, 3, *size)
        height, width = (math.ceil(side / parts) for side in size)
        tiles = tile(images, parts)
        assert tiles.shape == (2 * parts**2, 3, height, width)
        for row in range(parts):
            for column in range(parts):
                top = math.floor(row * (size[0] - height) / max(1, parts - 1))
                left = math.floor(column * (size[1] - width) / max(1, parts - 1))
                for b in range(2):
                    for y in range(height):
                        for x in range(width):
                            place = (row * parts + column) * 2 + b
                            assert torch.equal(tiles[place, :, y, x], images[b, :, top + y, left + x])


def test_tiles_keep_the_memory_format():
    images = draw(2, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    assert tile(images).is_contiguous(memory_format=torch.channels_last)


# merge


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_merge_is_the_exact_inverse_of_tile(parts, dtype):
    for size in fitting(parts):
        maps = draw(2, 3, *size, dtype=dtype)
        merged = merge(tile(maps, parts), size=size, parts=parts)
        assert merged.dtype == dtype
        assert torch.equal(merged, maps)


def test_shared_positions_are_the_mean_of_the_pieces():
    tiles = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    merged = merge(tiles, size=(3, 3))
    assert merged[0, 0].tolist() == [[1, 1.5, 2], [2.5, 3.75, 5], [4, 6, 8]]


@pytest.mark.parametrize("stride", [1, 2, 8, 16])
@pytest.mark.parametrize("parts", [2, 3])
def test_maps_of_tiles_fit_the_map_of_the_picture_at_every_size(stride, parts):
    """Sizes alone: ⌈⌈n / parts⌉ / s⌉ = ⌈⌈n / s⌉ / parts⌉."""
    for side in range(parts * stride, 400):
        whole = math.ceil(side / stride)
        assert math.ceil(math.ceil(side / parts) / stride) == pieces(whole, parts)[0][1]
        if parts == 2:
            beside = [abs(a / stride - b) for (a, _), (b, _) in zip(pieces(side, 2), pieces(whole, 2), strict=True)]
            assert max(beside) <= 0.5
            if (side // 2) % stride == 0 and side % stride <= 1:
                assert max(beside) == 0


@pytest.mark.parametrize(("backbone", "side"), [("creatures", 33), ("creatures", 48), ("mobilenet_v2", 81)])
def test_merged_maps_of_a_network_have_the_size_of_the_whole_map(backbone, side):
    network = build_network(backbone, ["a", "b"], decoder_channels=4, separable=True).eval()
    images = torch.rand(1, 3, side, side + 7, generator=generator())
    with torch.no_grad():
        cam = network(images, decode=False).cam
        merged = merge(network(tile(images), decode=False).cam, size=cam.shape[2:])
    assert merged.shape == cam.shape
    assert not torch.equal(merged, cam)


def test_merge_refuses_what_does_not_fit():
    with pytest.raises(
        ValueError, match=r"^tiles: expected 4·B x K x 3 x 4 for a map of \(5, 8\), got shape \(4, 2, 3, 3"
    ):
        merge(torch.zeros(4, 2, 3, 3), size=(5, 8))
    with pytest.raises(
        ValueError, match=r"^tiles: expected 4·B x K x 3 x 3 for a map of \(5, 5\), got shape \(6, 2, 3, 3"
    ):
        merge(torch.zeros(6, 2, 3, 3), size=(5, 5))
    with pytest.raises(ValueError, match=r"^tiles: expected BxCxhxw, got shape \(4, 3, 3\)$"):
        merge(torch.zeros(4, 3, 3), size=(5, 5))
    with pytest.raises(ValueError, match=r"^images: expected BxCxhxw, got shape \(3, 4, 4\)$"):
        tile(torch.zeros(3, 4, 4))


# puzzle_loss


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loss_equals_the_naive_loops(dtype):
    cam, merged = draw(2, 3, 4, 5, dtype=dtype), draw(4, 3, 4, 5, dtype=dtype)[2:]
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    total = 0.0
    for b in range(2):
        for k in range(3):
            for y in range(4):
                for x in range(5):
                    total += float(tags[b, k]) * abs(float(cam[b, k, y, x]) - float(merged[b, k, y, x]))
    loss = puzzle_loss(cam, merged, tags)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    assert float(loss) == pytest.approx(total / (2 * 3 * 4 * 5), rel=1e-6)


def test_the_loss_pulls_on_both_maps_of_present_classes_alone():
    cam, merged = draw(1, 2, 3, 3).requires_grad_(), draw(2, 2, 3, 3)[1:].requires_grad_()
    pulls = torch.autograd.grad(puzzle_loss(cam, merged, torch.tensor([[1.0, 0.0]])), (cam, merged))
    torch.testing.assert_close(pulls[0][:, :1], (cam - merged).sign()[:, :1] / 18)
    assert torch.equal(pulls[0], -pulls[1]) and not pulls[0][:, 1].any()


def test_the_loss_refuses_other_shapes():
    cam = draw(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"^merged_cam: expected the cam's \(2, 3, 4, 4\), got shape \(2, 3, 4, 5\)$"):
        puzzle_loss(cam, draw(2, 3, 4, 5), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"^tags: expected BxK = \(2, 3\), got shape \(2, 4\)$"):
        puzzle_loss(cam, cam, torch.ones(2, 4))


# alpha_at


def test_alpha_grows_linearly_over_the_first_half():
    assert [alpha_at(step, 8) for step in range(8)] == [0, 1, 2, 3, 4, 4, 4, 4]
    assert alpha_at(1, 8, most=2.0) == 0.5
    assert alpha_at(0, 1) == 0
