"""The ground of Creatures pictures, and how shapes are blended on it."""

import colorsys
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

GRAVEL = np.array([0.53, 0.52, 0.5])
WOOD = np.array([0.32, 0.2, 0.12])
STEEL = np.array([0.82, 0.84, 0.88])


def random_ground(generator: np.random.Generator, size: int) -> Array:
    """One of five kinds of ground that all classes but one share: SxSx3 in [0, 1]."""
    uniform = generator.uniform
    x, y = pixel_centres(size)
    x, y = x / size, y / size
    clouds = noise(generator, size, 4, 4)
    match generator.integers(5):
        case 0:  # meadow
            low, high = (0.20, 0.25, 0.35), (0.42, 0.6, 0.65)
            field = 0.6 * noise(generator, size, 9, 36) + 0.4 * clouds
        case 1:  # sand with ripples
            low, high = (0.07, 0.22, 0.65), (0.15, 0.45, 0.85)
            turn = uniform(0, np.pi)
            waves = uniform(5, 9) * (x * np.cos(turn) + y * np.sin(turn)) + 1.2 * clouds
            field = 0.5 + 0.5 * np.sin(2 * np.pi * waves)
        case 2:  # water
            low, high = (0.48, 0.3, 0.45), (0.66, 0.65, 0.8)
            field = 0.5 * y + 0.25 + 0.25 * np.sin(2 * np.pi * (9 * y**0.7 + 1.5 * clouds))
        case 3:  # pebbles
            low, high = (0.0, 0.04, 0.4), (1.0, 0.2, 0.75)
            field = _pebbles(generator, x, y)
        case _:  # earth or heather
            low, high = (0.02, 0.3, 0.3), (0.1, 0.6, 0.55)
            if uniform() < 0.5:
                low, high = (0.72, 0.2, 0.35), (0.95, 0.45, 0.6)
            field = 0.5 * clouds + 0.5 * noise(generator, size, 14, 14)
    hue, saturation, value = uniform(low, high)
    dark = np.array(colorsys.hsv_to_rgb(hue, saturation, 0.82 * value))
    pale = np.array(colorsys.hsv_to_rgb((hue + uniform(-0.03, 0.03)) % 1, saturation, 1.15 * value))
    grain = 0.05 * (generator.random((size, size, 1)) - 0.5)
    image: Array = dark + (pale - dark) * field[..., None] + grain
    return image


def _pebbles(generator: np.random.Generator, x: Array, y: Array) -> Array:
    """Voronoi cells, each with its own tone, darker where two of them meet."""
    side = int(generator.integers(6, 10))
    # One stone somewhere in each cell of a grid, so the nearest lie in the nine cells around.
    stones = generator.random((side + 2, side + 2, 3))
    column, row = np.floor(x * side).astype(int), np.floor(y * side).astype(int)
    around = []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            stone = stones[row + dy + 1, column + dx + 1]
            away = np.hypot(column + dx + stone[..., 0] - x * side, row + dy + stone[..., 1] - y * side)
            around.append((away, stone[..., 2]))
    away = np.stack([a for a, _ in around])
    tone = np.stack([t for _, t in around])
    tone = np.take_along_axis(tone, away.argmin(axis=0)[None], axis=0)[0]
    first, second = np.partition(away, 1, axis=0)[:2]
    field: Array = (0.25 + 0.75 * tone) * ((second - first) * 5).clip(0.1, 1)
    return field


def lay_track(
    image: Array,
    generator: np.random.Generator,
    middle: tuple[float, float],
    angle: float,
    length: float,
) -> None:
    """Lay a piece of railway track over a picture SxSx3, in place; x, y and length in pixels."""
    size = len(image)
    x, y = pixel_centres(size)
    x, y = x - middle[0], y - middle[1]
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = x * cos + y * sin, np.abs(y * cos - x * sin)
    ends = np.abs(along) - length / 2
    gauge = generator.uniform(0.05, 0.065) * size  # half of it
    grain = 0.3 * (generator.random((size, size, 1)) - 0.5)
    blend(image, GRAVEL + grain, cover(np.maximum(across - 2.1 * gauge, ends)))
    period = 0.105 * size
    sleeper = np.abs(along % period - period / 2) - 0.26 * period
    sleeper = np.maximum(sleeper, across - 1.75 * gauge)
    blend(image, WOOD + 0.2 * grain, cover(np.maximum(sleeper, ends)))
    rail = np.abs(across - gauge) - 0.011 * size
    blend(image, STEEL, cover(np.maximum(rail, ends)))


@lru_cache(maxsize=8)
def pixel_centres(size: int) -> tuple[Array, Array]:
    """The x and the y of every pixel, each SxS."""
    y, x = np.mgrid[:size, :size] + 0.5
    return x, y


@lru_cache(maxsize=32)
def _interpolation(size: int, cells: int) -> Array:
    """Matrix (size, cells + 1) that interpolates a grid smoothly (smoothstep) at pixel centres."""
    position = (np.arange(size) + 0.5) / size * cells
    left = np.floor(position).astype(int)
    t = position - left
    t = t * t * (3 - 2 * t)
    matrix = np.zeros((size, cells + 1))
    matrix[np.arange(size), left] = 1 - t
    matrix[np.arange(size), left + 1] = t
    return matrix


def noise(generator: np.random.Generator, size: int, rows: int, columns: int) -> Array:
    """Value noise SxS in [0, 1] on a grid of rows x columns cells."""
    grid = generator.random((rows + 1, columns + 1))
    return _interpolation(size, rows) @ grid @ _interpolation(size, columns).T


def cover(distance: Array) -> Array:
    """Share of a pixel that a shape covers, from the signed distance to its outline."""
    return (0.5 - distance).clip(0, 1)


def blend(image: Array, paint: Array, cover: Array) -> None:
    """Lay `paint` (a colour, or HxWx3) over `image` HxWx3 where `cover` HxW says so, in place."""
    image += cover[..., None] * (paint - image)
