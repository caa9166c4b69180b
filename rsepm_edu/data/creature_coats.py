"""Coats of Creatures: two or three colours, laid out in patches, stripes, spots, a belt, a saddle or socks."""

import colorsys
from dataclasses import dataclass

import numpy as np

from rsepm_edu.data.creature_grounds import Array, noise, soft_step

COATS = ("patches", "stripes", "spots", "belt", "saddle", "plain")

# Hue, saturation, value around which coats vary.
PALETTE = (
    (0.03, 0.55, 0.42),  # chestnut
    (0.06, 0.65, 0.72),  # fox
    (0.09, 0.45, 0.85),  # sand
    (0.12, 0.22, 0.92),  # cream
    (0.14, 0.65, 0.85),  # mustard
    (0.27, 0.35, 0.52),  # olive
    (0.45, 0.40, 0.55),  # teal
    (0.58, 0.40, 0.50),  # slate
    (0.62, 0.20, 0.70),  # dove
    (0.75, 0.30, 0.52),  # plum
    (0.95, 0.45, 0.72),  # rose
    (0.05, 0.10, 0.25),  # coal
)
GREY = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Coat:
    """The second colour lies on the first where the pattern is, the third on belly, feet and tip of the tail."""

    kind: str
    hue: int  # row of PALETTE that the first colour comes from
    colours: Array  # 3x3
    number: int  # 2 or 3: whether there is a third
    warp: Array  # SxS, bends the pattern's lines
    period: float  # share of the length
    phase: float


def random_coat(
    generator: np.random.Generator, size: int, length: float, avoided: list[Array], kinds: tuple[str, ...]
) -> Coat:
    """Draw a coat whose first colour differs, at least a little, from the colours to be avoided."""
    kind = kinds[generator.integers(len(kinds))]
    for _ in range(40):
        hue = int(generator.integers(len(PALETTE)))
        first = vary(generator, PALETTE[hue])
        if all(np.linalg.norm(first - other) > 0.3 for other in avoided):
            break
    for _ in range(40):
        second = random_colour(generator)
        if 0.18 < abs((second - first) @ GREY) < 0.5:
            break
    third = first + generator.uniform(0.35, 0.7) * (np.array([0.95, 0.92, 0.85]) - first)
    if generator.random() < 0.4:
        third = 0.45 * first
    cells = max(2, round(size / (0.17 * length)))
    return Coat(
        kind=kind,
        hue=hue,
        colours=np.stack([first, second, third]),
        number=3 if generator.random() < 0.6 else 2,
        warp=noise(generator, size, cells, cells),
        period=generator.uniform(0.13, 0.2),
        phase=generator.uniform(0, 1),
    )


def random_colour(generator: np.random.Generator) -> Array:
    """A colour of the palette, changed a little."""
    return vary(generator, PALETTE[generator.integers(len(PALETTE))])


def vary(generator: np.random.Generator, colour: tuple[float, float, float]) -> Array:
    """A colour near to one given by hue, saturation and value, as red, green and blue."""
    hue, saturation, value = np.array(colour) + generator.uniform((-0.02, -0.08, -0.08), (0.02, 0.08, 0.06))
    return np.array(colorsys.hsv_to_rgb(hue % 1, np.clip(saturation, 0, 1), np.clip(value, 0, 1)))


def paint_coat(coat: Coat, u: Array, v: Array, warp: Array, length: float, body: tuple[float, float]) -> Array:
    """The coat's colours HxWx3 at the positions u, v of an animal's own frame, with its warp there, before light."""
    long, short = body
    warp = warp - 0.5
    match coat.kind:
        case "patches":
            where = soft_step(warp - 0.04, 0.03)
        case "stripes":
            waves = np.sin(2 * np.pi * ((u + 0.35 * v) / (coat.period * length) + coat.phase + 0.8 * warp))
            where = soft_step(waves - 0.1, 0.25)
        case "spots":
            turns = 2 * np.pi / (coat.period * length)
            waves = np.sin(turns * (u + 0.5 * v) + 3 * warp) * np.sin(turns * (v - 0.5 * u) + 6 * coat.phase)
            where = soft_step(waves - 0.3, 0.15)
        case "belt":
            where = soft_step(0.16 * length - np.abs(u + (0.1 * coat.phase + 0.25 * warp) * length), 0.02 * length)
        case "saddle":
            where = soft_step(-v - (0.25 + 0.5 * (coat.phase - 0.5)) * short + 0.2 * warp * length, 0.02 * length)
        case _:
            where = np.zeros_like(u)
    colours: Array = coat.colours[0] + where[..., None] * (coat.colours[1] - coat.colours[0])
    if coat.number == 3:
        low = soft_step(v - 0.55 * short + 0.25 * warp * length, 0.03 * length)
        tip = soft_step(-u - 1.25 * long, 0.02 * length)
        colours = colours + np.maximum(low, tip)[..., None] * (coat.colours[2] - colours)
    return colours
