"""Puzzle-CAM: the map of a picture and the map of its pieces, put together again, should be the same.

Jo & Yu, "Puzzle-CAM: Improved Localization via Matching Partial and Full Features", ICIP 2021. A classifier that sees a
piece alone cannot lean on the most telling part elsewhere, so that the pieces' maps cover more of the object; matching
the two teaches this to the map of the whole picture.

Our reading, where the sources are silent:
    * M and M^re are compared as raw scores, and gradients flow into both;
    * where the number of pieces does not divide a side, as many neighbours as needed share one row (or column): a
      side of n is covered by pieces of ⌈n / parts⌉ that begin at ⌊i · (n − ⌈n / parts⌉) / (parts − 1)⌋,
      i = 0 … parts − 1; what two pieces' maps share is averaged.

The same rule cuts pictures and merges maps, and the sizes always fit: a network of stride s gives ⌈n / s⌉ positions,
and ⌈⌈n / parts⌉ / s⌉ = ⌈⌈n / s⌉ / parts⌉. At 321 pixels and stride 16 the pieces of 161 pixels have maps of 11
positions, and two of them, one position shared, make the 21 of the whole picture. Pieces lie exactly where the whole
picture has its positions when their corners in pixels are multiples of the stride (321: 160 = 10 · 16; 512: 256);
otherwise halves lie at most half a position beside them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rsepm_edu.methods.shapes import expect_maps, expect_tags


def pieces(length: int, parts: int) -> list[tuple[int, int]]:
    """Where the pieces of one side begin and end: equal lengths, evenly spread, overlapping by one at most.

    Args:
        length: of the side, at least ``parts``.
        parts: how many pieces, ≥ 1.

    Returns:
        (start, end) of each piece, from 0 to ``length``, the end not included.

    Raises:
        ValueError: fewer positions than pieces, or no piece.
    """
    if not 1 <= parts <= length:
        raise ValueError(f"expected 1 <= parts <= height and width, got {parts} parts of {length}")
    piece = -(-length // parts)
    starts = [index * (length - piece) // max(1, parts - 1) for index in range(parts)]
    return [(start, start + piece) for start in starts]


def tile(images: Tensor, parts: int = 2) -> Tensor:
    """Cut each picture into parts × parts pieces (Jo & Yu 2021).

    Args:
        images: B×C×H×W, H and W at least ``parts``.
        parts: pieces a side.

    Returns:
        (parts²·B)×C×⌈H/parts⌉×⌈W/parts⌉: the first piece of every picture, then the second of every picture, …; pieces
        are counted row by row from the top left.

    Raises:
        ValueError: shape, or fewer pixels than pieces.
    """
    expect_maps(images=images)
    rows, columns = (pieces(side, parts) for side in images.shape[2:])
    return torch.cat([images[:, :, top:bottom, left:right] for top, bottom in rows for left, right in columns])


def merge(tiles: Tensor, *, size: tuple[int, int], parts: int = 2) -> Tensor:
    """Put the maps of the pieces together again, M^re (Jo & Yu 2021); the exact inverse of ``tile``.

    Args:
        tiles: (parts²·B)×K×⌈h/parts⌉×⌈w/parts⌉ in the order of ``tile``.
        size: (h, w) of the whole map, for a network of stride s that of the whole picture's map, ⌈H/s⌉×⌈W/s⌉.
        parts: pieces a side.

    Returns:
        B×K×h×w; where pieces overlap, their mean.

    Raises:
        ValueError: the sizes do not go together.
    """
    expect_maps(tiles=tiles)
    rows, columns = (pieces(side, parts) for side in size)
    expected = (rows[0][1], columns[0][1])
    if tiles.shape[2:] != expected or len(tiles) % parts**2:
        raise ValueError(
            f"tiles: expected {parts**2}·B x K x {expected[0]} x {expected[1]} for a map of {tuple(size)}, "
            f"got shape {tuple(tiles.shape)}"
        )
    by_place = tiles.unflatten(0, (parts, parts, -1))
    strips = [_join(row.unbind(), columns, dim=3) for row in by_place]
    return _join(strips, rows, dim=2)


def _join(maps: Sequence[Tensor], spans: Sequence[tuple[int, int]], *, dim: int) -> Tensor:
    """Maps side by side along ``dim``; the one position that neighbours may share is their mean."""
    joined = maps[0]
    for piece, (start, _) in zip(maps[1:], spans[1:], strict=True):
        shared = joined.shape[dim] - start
        if shared:
            seam = (joined.narrow(dim, start, shared) + piece.narrow(dim, 0, shared)) / 2
            joined = torch.cat([joined.narrow(dim, 0, start), seam], dim)
        joined = torch.cat([joined, piece.narrow(dim, shared, piece.shape[dim] - shared)], dim)
    return joined


def puzzle_loss(cam: Tensor, merged_cam: Tensor, tags: Tensor) -> Tensor:
    """L_re = mean(|M − M^re| ⊙ y) (Jo & Yu 2021): over all pictures, classes and positions, absent classes as zeros.

    Args:
        cam: M, B×K×h×w raw scores.
        merged_cam: M^re, the same shape.
        tags: y, B×K in {0, 1}.

    Returns:
        A scalar ≥ 0, float32 or better.

    Raises:
        ValueError: the shapes do not go together.
    """
    expect_maps(cam=cam, merged_cam=merged_cam)
    expect_tags(tags, cam)
    if merged_cam.shape != cam.shape:
        raise ValueError(f"merged_cam: expected the cam's {tuple(cam.shape)}, got shape {tuple(merged_cam.shape)}")
    exact = torch.promote_types(cam.dtype, torch.float32)
    return ((cam.to(exact) - merged_cam.to(exact)).abs() * tags[:, :, None, None].to(exact)).mean()


def alpha_at(step: int, steps: int, *, most: float = 4.0) -> float:
    """α, the weight of ``puzzle_loss``: grows linearly from 0 to ``most`` over the first half of training.

    Args:
        step: counted from 0.
        steps: of the whole training, ≥ 1.
        most: from the middle on.

    Returns:
        most · min(1, 2·step / steps).
    """
    return most * min(1.0, 2 * step / steps)
