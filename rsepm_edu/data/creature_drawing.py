"""Drawing one Creatures picture: a random scene is planned, then rendered with distance functions.

Everything a class shows lies inside the head's disc, as a pattern of ink. Ground, body, legs, tail,
eyes and colours come from the same distributions for all classes, except that the last class lives
on pieces of railway track and nothing else does.
"""

import colorsys
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from rsepm_edu.data.creature_grounds import (
    GRAVEL,
    Array,
    blend,
    cover,
    lay_track,
    noise,
    pixel_centres,
    random_ground,
)
from rsepm_edu.data.palette import VOID

CREATURES = ("zebbo", "dotkin", "ringlo", "plusmo", "tramlo")
"""The classes: heads with stripes, dots, a ring, a plus, and two halves (tramlo, on its rails)."""

TRACK_CLASS = CREATURES.index("tramlo")
TRACK_SHARE = 0.25  # share of pictures with a track, so that all classes are about equally frequent
TRACK_LENGTH = 1.5  # of a piece of track / creature length
COUNT_SHARES = (0.55, 0.30, 0.15)  # pictures with one, two, three creatures
LENGTHS = ((0.42, 0.78), (0.38, 0.56), (0.34, 0.46))  # creature length / picture, by their number
SMALLEST_HEAD = 0.07  # head radius / picture: a pattern in fewer pixels could not be told
HEAD_COVERED, BODY_COVERED = 0.15, 0.40  # at most this share may be hidden by later creatures
MOST_ATTEMPTS = 40  # at placing a second or third creature


@dataclass(frozen=True)
class Creature:
    """One animal. Lengths are pixels in its own frame: x towards the head, y down, body centre 0.

    A mirrored creature looks left. `capsules` are rows x0, y0, x1, y1, radius: legs and tail.
    """

    label: int
    centre: tuple[float, float]
    angle: float
    mirrored: bool
    length: float
    body: tuple[float, float]
    capsules: Array
    head: tuple[float, float, float]
    eyes: Array
    twist: float
    colour: Array
    ink: Array


@dataclass(frozen=True)
class Scene:
    """A planned picture: ground SxSx3 in [0, 1], texture of fur SxS, creatures back to front."""

    ground: Array
    fur: Array
    creatures: tuple[Creature, ...]


def plan(generator: np.random.Generator, size: int) -> Scene:
    """Draw at random everything that a picture of `size` x `size` pixels shows."""
    number = int(generator.choice(len(COUNT_SHARES), p=COUNT_SHARES)) + 1
    on_track = generator.random() < TRACK_SHARE
    others = [label for label in range(len(CREATURES)) if label != TRACK_CLASS]
    labels = generator.choice(others, size=number)
    if on_track:
        labels[:] = TRACK_CLASS

    ground = random_ground(generator, size)
    avoided = [ground.mean(axis=(0, 1))]
    if on_track:
        avoided.append(GRAVEL)

    placed: list[Creature] = []
    visible: list[tuple[Array, Array]] = []  # sample points of head and body still to be seen
    for label in labels:
        for attempt in count():
            if placed and attempt == MOST_ATTEMPTS:
                break  # the picture is full: one creature fewer
            candidate = _random_creature(generator, size, int(label), number, avoided)
            head, body = _sample_points(candidate)
            if not _inside(head, size).all() or _inside(body, size).mean() < 0.85:
                continue
            left = [(h[_distance(candidate, *h.T) > 0], b[_distance(candidate, *b.T) > 0]) for h, b in visible]
            if all(
                len(h) >= (1 - HEAD_COVERED) * len(_HEAD_POINTS) and len(b) >= (1 - BODY_COVERED) * len(_BODY_POINTS)
                for h, b in left
            ):
                placed.append(candidate)
                visible = [*left, (head, body)]
                break
    if on_track:
        for creature in placed:
            below = creature.body[1]
            middle = (
                creature.centre[0] - np.sin(creature.angle) * below,
                creature.centre[1] + np.cos(creature.angle) * below,
            )
            lay_track(ground, generator, middle, creature.angle, TRACK_LENGTH * creature.length)
    fur = 0.6 * noise(generator, size, 12, 12) + 0.4 * generator.random((size, size)) - 0.5
    return Scene(ground, fur, tuple(placed))


def render(scene: Scene) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw a scene.

    Returns:
        The picture, uint8 HxWx3, and its mask, uint8 HxW: 0 ground, class index + 1, and `VOID` on
        a border of one to two pixels (at 96; it scales) around each creature.
    """
    size = len(scene.fur)
    x, y = pixel_centres(size)
    image = scene.ground.copy()
    mask = np.zeros((size, size), dtype=np.uint8)
    border = 0.75 * max(1.0, size / 96)
    for creature in scene.creatures:
        distance = _distance(creature, x, y)
        light = 1 - 0.3 * (y - creature.centre[1]) / creature.length + 0.16 * scene.fur
        ink = cover(_pattern_distance(creature, x, y))[..., None]
        paint = (creature.colour * (1 - ink) + creature.ink * ink) * light[..., None]
        blend(image, paint, cover(distance))
        u, v = _to_frame(creature, x, y)
        for eye_x, eye_y, radius in creature.eyes:
            from_eye = np.hypot(u - eye_x, v - eye_y)
            blend(image, np.array([0.95, 0.95, 0.92]), cover(from_eye - radius))
            blend(image, np.array([0.06, 0.06, 0.08]), cover(from_eye - 0.5 * radius))
        mask[distance < 0] = creature.label + 1
        mask[np.abs(distance) < border] = VOID
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8), mask


def head_disc(creature: Creature, size: int) -> npt.NDArray[np.bool_]:
    """The pixels, bool SxS, that the head's disc touches: nothing else depends on the class."""
    u, v = _to_frame(creature, *pixel_centres(size))
    x, y, radius = creature.head
    return np.hypot(u - x, v - y) < radius + 0.5


def _random_creature(
    generator: np.random.Generator,
    size: int,
    label: int,
    number: int,
    avoided: list[Array],
) -> Creature:
    uniform = generator.uniform
    length = uniform(*LENGTHS[number - 1]) * size
    radius = max(SMALLEST_HEAD * size, uniform(0.145, 0.165) * length)
    long = (length - 1.6 * radius) / 2
    # The head is to be a fifth or so of the creature, of which limbs are an eighth.
    share = uniform(0.19, 0.24)
    short = min(0.85 * radius**2 * (1 - share) / share / long, long)

    nape = uniform(0.15, 0.75)  # where the head sits: angle on the body's outline
    out = np.array([np.cos(nape) / long, -np.sin(nape) / short])
    out *= 0.6 * radius / np.hypot(*out)
    head = (long * np.cos(nape) + out[0], -short * np.sin(nape) + out[1], radius)
    thick = max(0.042 * length, 0.017 * size)
    walks = generator.random() < 0.7
    limbs = _legs(generator, long, short, thick) if walks else []
    limbs += _tail(generator, long, short, thick, 0.5 * radius if walks else 1.1 * radius)
    look = np.array([-1.95, -0.95]) + uniform(-0.2, 0.2)  # angles of the eyes on the head
    eyes = np.stack(
        [
            head[0] + 1.05 * radius * np.cos(look),
            head[1] + 1.05 * radius * np.sin(look),
            np.full(2, 0.3 * radius),
        ],
        axis=1,
    )
    x, y = uniform(0.15, 0.85, size=2) * size
    colour = _own_colour(generator, avoided)
    dark = colour @ np.array([0.299, 0.587, 0.114]) > 0.42
    return Creature(
        label=label,
        centre=(x, y),
        angle=uniform(-0.45, 0.45),
        mirrored=bool(generator.random() < 0.5),
        length=length,
        body=(long, short),
        capsules=np.array(limbs),
        head=head,
        eyes=eyes,
        twist=uniform(-0.3, 0.3),
        colour=colour,
        ink=uniform(0.02, 0.14, size=3) if dark else uniform(0.86, 0.98, size=3),
    )


def _legs(generator: np.random.Generator, long: float, short: float, thick: float) -> list[list[float]]:
    number = int(generator.integers(2, 5))
    reach = generator.uniform(0.35, 0.75) * short
    legs = []
    for hip in np.linspace(-0.68, 0.68, number) + generator.uniform(-0.08, 0.08, size=number):
        foot = short * np.sqrt(1 - hip**2) + reach
        legs.append([0.9 * hip * long, 0.3 * short, 1.08 * hip * long, foot, thick])
    return legs


def _tail(generator: np.random.Generator, long: float, short: float, thick: float, reach: float) -> list[list[float]]:
    first, second = generator.uniform(-0.9, 0.5), generator.uniform(-1.3, 1.1)
    start = np.array([-0.85 * long, -0.1 * short])
    bend = start + (0.15 * long + reach) * np.array([-np.cos(first), np.sin(first)])
    end = bend + reach * np.array([-np.cos(second), np.sin(second)])
    return [[*start, *bend, thick], [*bend, *end, thick]]


def _own_colour(generator: np.random.Generator, avoided: list[Array]) -> Array:
    """A colour that stands out from the ground clearly but not absurdly."""
    while True:
        hue, saturation, value = generator.uniform([0, 0.3, 0.4], [1, 0.85, 0.95])
        colour = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
        contrast = [np.linalg.norm(colour - other) for other in avoided]
        if min(contrast) > 0.33 and contrast[0] < 0.75:
            return colour


def _to_frame(creature: Creature, x: Array, y: Array) -> tuple[Array, Array]:
    x, y = x - creature.centre[0], y - creature.centre[1]
    cos, sin = np.cos(creature.angle), np.sin(creature.angle)
    along = cos * x + sin * y
    return (-along if creature.mirrored else along), cos * y - sin * x


def _distance(creature: Creature, x: Array, y: Array) -> Array:
    """Signed distance in pixels to the creature's outline, negative inside."""
    u, v = _to_frame(creature, x, y)
    long, short = creature.body
    # To first order near the outline: f / |grad f| with f = |(u / long, v / short)| - 1.
    norm = np.hypot(u / long, v / short)
    slope = np.hypot(u / long**2, v / short**2)
    distance: Array = norm * (norm - 1) / np.maximum(slope, 1e-9)
    for x0, y0, x1, y1, radius in creature.capsules:
        dx, dy = x1 - x0, y1 - y0
        t = (((u - x0) * dx + (v - y0) * dy) / (dx * dx + dy * dy)).clip(0, 1)
        distance = np.minimum(distance, np.hypot(u - x0 - t * dx, v - y0 - t * dy) - radius)
    for x0, y0, radius in (creature.head, *creature.eyes):
        distance = np.minimum(distance, np.hypot(u - x0, v - y0) - radius)
    return distance


def _pattern_distance(creature: Creature, x: Array, y: Array) -> Array:
    """Signed distance in pixels to the head's ink: what makes a zebbo a zebbo."""
    u, v = _to_frame(creature, x, y)
    head_x, head_y, radius = creature.head
    u, v = (u - head_x) / radius, (v - head_y) / radius
    cos, sin = np.cos(creature.twist), np.sin(creature.twist)
    u, v = cos * u + sin * v, cos * v - sin * u
    ink: Array
    match CREATURES[creature.label]:
        case "zebbo":
            ink = np.abs((u + 0.2) % 0.8 - 0.4) - 0.2
        case "dotkin":
            ink = np.min(
                [np.hypot(u - 0.55 * np.cos(t), v - 0.55 * np.sin(t)) for t in (-0.5, 1.6, 3.7)],
                axis=0,
            )
            ink -= 0.35
        case "ringlo":
            ink = np.abs(np.hypot(u, v) - 0.62) - 0.19
        case "plusmo":
            ink = np.minimum(np.abs(u), np.abs(v)) - 0.22
        case _:
            ink = u
    ink = np.maximum(ink, np.hypot(u, v) - 1) * radius
    return ink


def _disc_points(*radii: float) -> Array:
    turns = np.arange(12) * np.pi / 6
    return np.array([(r * np.cos(t), r * np.sin(t)) for r in radii for t in turns])


_HEAD_POINTS = _disc_points(0.4, 0.95)
_BODY_POINTS = _disc_points(0.2, 0.55, 0.95)


def _sample_points(creature: Creature) -> tuple[Array, Array]:
    """Points of the head and of the body, each Nx2, in picture coordinates."""
    x, y, radius = creature.head
    cos, sin = np.cos(creature.angle), np.sin(creature.angle)
    frames = []
    for points in (_HEAD_POINTS * radius + (x, y), _BODY_POINTS * creature.body):
        u, v = points.T * ((-1,) if creature.mirrored else (1,), (1,))
        frames.append(np.stack([cos * u - sin * v, sin * u + cos * v], axis=1) + creature.centre)
    return frames[0], frames[1]


def _inside(points: Array, size: int) -> npt.NDArray[np.bool_]:
    return np.asarray(((points > 1) & (points < size - 1)).all(axis=1))
