"""The ground of Creatures pictures, what lies on it, and how shapes are blended."""

import colorsys
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

GRAVEL = np.array([0.53, 0.52, 0.5])
WOOD = np.array([0.32, 0.2, 0.12])
STEEL = np.array([0.82, 0.84, 0.88])

GROUNDS = ("meadow", "sand", "water", "pebbles", "earth", "heather")
THINGS = ("stone", "bush", "log")


def random_ground(generator: np.random.Generator, size: int, kind: str) -> Array:
    """A ground of one of the ``GROUNDS``, with patches of another tone and shadows: SxSx3 in [0, 1]."""
    uniform = generator.uniform
    x, y = pixel_centres(size)
    x, y = x / size, y / size
    clouds = noise(generator, size, 4, 4)
    match kind:
        case "meadow":
            low, high = (0.20, 0.25, 0.38), (0.40, 0.55, 0.65)
            field = 0.6 * noise(generator, size, 9, 36) + 0.4 * clouds
        case "sand":  # with ripples
            low, high = (0.07, 0.22, 0.65), (0.13, 0.42, 0.85)
            turn = uniform(0, np.pi)
            waves = uniform(5, 9) * (x * np.cos(turn) + y * np.sin(turn)) + 1.2 * clouds
            field = 0.5 + 0.5 * np.sin(2 * np.pi * waves)
        case "water":
            low, high = (0.48, 0.25, 0.45), (0.62, 0.55, 0.75)
            field = 0.5 * y + 0.25 + 0.25 * np.sin(2 * np.pi * (9 * y**0.7 + 1.5 * clouds))
        case "pebbles":
            low, high = (0.02, 0.04, 0.42), (0.7, 0.18, 0.72)
            field = _pebbles(generator, x, y)
        case "earth":
            low, high = (0.03, 0.3, 0.35), (0.09, 0.55, 0.58)
            field = 0.5 * clouds + 0.5 * noise(generator, size, 14, 14)
        case _:
            low, high = (0.76, 0.18, 0.38), (0.93, 0.4, 0.62)
            field = 0.4 * clouds + 0.6 * noise(generator, size, 20, 20)
    hue, saturation, value = uniform(low, high)
    dark = np.array(colorsys.hsv_to_rgb(hue, saturation, 0.82 * value))
    pale = np.array(colorsys.hsv_to_rgb((hue + uniform(-0.03, 0.03)) % 1, saturation, 1.15 * value))
    image: Array = dark + (pale - dark) * field[..., None]
    if uniform() < 0.5:  # shadows, as of trees
        shadow = soft_step(noise(generator, size, 3, 3) - uniform(0.5, 0.65), 0.03)
        image *= 1 - uniform(0.2, 0.4) * shadow[..., None]
    image += 0.05 * (generator.random((size, size, 1)) - 0.5)
    return image


def lay_patch(image: Array, generator: np.random.Generator, colour: Array) -> None:
    """Bare or overgrown ground of another colour, here and there on a picture SxSx3, in place."""
    size = len(image)
    where = soft_step(noise(generator, size, 4, 4) - generator.uniform(0.56, 0.68), 0.04)
    tone = 0.8 + 0.4 * noise(generator, size, 16, 16)
    blend(image, colour * tone[..., None], generator.uniform(0.6, 0.95) * where)


def lay_thing(image: Array, generator: np.random.Generator, kind: str, colour: Array) -> None:
    """Lay a stone, a bush or a log of some colour on a picture SxSx3, in place."""
    size = len(image)
    uniform = generator.uniform
    middle_x, middle_y = uniform(0.05, 0.95) * size, uniform(0.1, 0.95) * size
    reach = uniform(0.07, 0.2) * size
    box = box_around(middle_x, middle_y, 2 * reach, size)
    image = image[box]
    x, y = (plane[box] for plane in pixel_centres(size))
    x, y = x - middle_x, y - middle_y
    angle = uniform(-0.5, 0.5)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    rough = noise(generator, size, 9, 9)[box]
    fine = noise(generator, size, 30, 30)[box]
    match kind:
        case "stone":
            squat = uniform(0.6, 0.9)
            distance = length_of(u, v / squat) - reach + 0.5 * reach * (rough - 0.5)
            texture = 0.8 + 0.4 * np.round(2.5 * fine) / 2.5
        case "bush":
            places = uniform([-0.8, -0.6, 0.35], [0.8, 0.5, 0.65], (6, 3)) * reach
            distance = np.min([length_of(x - a, y - b) - r for a, b, r in places], axis=0)
            distance = distance + 0.35 * reach * (fine - 0.5)
            texture = 0.6 + 0.35 * soft_step(fine - 0.5, 0.04) + 0.4 * soft_step(fine - 0.66, 0.04)
        case _:
            thick = 0.35 * reach
            distance = length_of(np.maximum(np.abs(u) - 1.3 * reach, 0), v) - thick
            texture = 0.9 + 0.25 * np.sin(7 * v / thick + 3 * rough)
            ring = length_of(2 * (u - 1.35 * reach), v) / thick
            texture = np.where(ring < 1, 1.25 + 0.2 * np.sin(9 * ring), texture)
    foot = length_of(x / 1.25, 2.2 * (y - 0.55 * reach)) - 0.9 * reach
    image *= 1 - 0.35 * soft_step(-foot, 0.25 * reach)[..., None]
    light = 1.05 - 0.35 * v / reach - 0.3 * np.exp(np.minimum(distance, 0) / (0.2 * reach))
    blend(image, colour * (texture * light)[..., None], cover(distance))


def box_around(x: float, y: float, reach: float, size: int) -> tuple[slice, slice]:
    """Rows and columns of a picture within reach of a point: where to draw what is no larger."""
    return (
        slice(max(0, int(y - reach)), max(0, min(size, int(y + reach) + 1))),
        slice(max(0, int(x - reach)), max(0, min(size, int(x + reach) + 1))),
    )


def _pebbles(generator: np.random.Generator, x: Array, y: Array) -> Array:
    """Voronoi cells, each with its own tone, darker where two of them meet."""
    side = int(generator.integers(6, 10))
    # One stone somewhere in each cell of a grid, so the nearest lie in the nine cells around.
    stones = generator.random((side + 2, side + 2, 3))
    column, row = np.floor(x * side).astype(int), np.floor(y * side).astype(int)
    first, second, tone = np.full_like(x, 9.0), np.full_like(x, 9.0), np.zeros_like(x)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            stone = stones[row + dy + 1, column + dx + 1]
            away = length_of(column + dx + stone[..., 0] - x * side, row + dy + stone[..., 1] - y * side)
            second = np.minimum(second, np.maximum(first, away))
            tone = np.where(away < first, stone[..., 2], tone)
            first = np.minimum(first, away)
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


@lru_cache(maxsize=64)
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


def length_of(x: Array, y: Array) -> Array:
    """As numpy's hypot, several times as fast; these lengths neither overflow nor vanish."""
    return np.sqrt(x * x + y * y)


def noise(generator: np.random.Generator, size: int, rows: int, columns: int) -> Array:
    """Value noise SxS in [0, 1] on a grid of rows x columns cells."""
    grid = generator.random((rows + 1, columns + 1))
    return _interpolation(size, rows) @ grid @ _interpolation(size, columns).T


def cover(distance: Array) -> Array:
    """Share of a pixel that a shape covers, from the signed distance to its outline."""
    return np.minimum(np.maximum(0.5 - distance, 0), 1)


def soft_step(values: Array, width: float) -> Array:
    """0 where values are below -width, 1 above width, a straight slope between."""
    return np.minimum(np.maximum(0.5 + values / (2 * width), 0), 1)


def blend(image: Array, paint: Array, cover: Array) -> None:
    """Lay `paint` (a colour, or HxWx3) over `image` HxWx3 where `cover` HxW says so, in place."""
    image += cover[..., None] * (paint - image)
