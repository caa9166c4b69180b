"""Drawing one Creatures picture: a random scene is planned, then rendered with distance functions.

What a class is for certain lies inside the head's disc, as a pattern of ink. Ground, things, body, legs, tail,
ears, eyes and colours come from the same distributions for all classes; coats give a hint (``USUAL_COATS``), and
the last class lives on pieces of railway track and nothing else does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import numpy.typing as npt

from rsepm_edu.data.creature_coats import COATS, GREY, Coat, paint_coat, random_coat, random_colour
from rsepm_edu.data.creature_grounds import (
    GRAVEL,
    GROUNDS,
    THINGS,
    Array,
    blend,
    box_around,
    cover,
    lay_patch,
    lay_thing,
    lay_track,
    length_of,
    noise,
    pixel_centres,
    random_ground,
    soft_step,
)
from rsepm_edu.data.palette import VOID

CREATURES = ("zebbo", "dotkin", "ringlo", "plusmo", "tramlo")
"""The classes: heads with stripes, a dot or a ring (look-alikes), a plus, and two halves (tramlo, on its rails)."""

STRANGERS = (
    *("star", "checks", "chevron", "frame", "moon", "saltire", "wedge", "bars", "quarters", "eyes"),
    *("roof", "diamond", "three dots", "pinwheel", "wave", "tee", "arrow", "aitch", "grid", "target"),
    *("slice", "hourglass", "beam", "half dot", "comb", "corner"),
    "blank",
)
"""Heads of other animals, which live in the pretext's pictures alone; their labels go on after the classes'."""

USUAL_COATS = {
    "zebbo": ("stripes", "belt"),
    "dotkin": ("spots", "patches"),
    "ringlo": ("spots", "patches"),
    "plusmo": ("saddle", "plain"),
    "tramlo": ("belt", "plain"),
}
"""What most animals of a class wear; the look-alikes the same. A hint: the others wear any coat."""

USUAL_SHARE = 0.8

TRACK_CLASS = CREATURES.index("tramlo")
TRACK_SHARE = 0.25  # share of pictures with a track, so that all classes are about equally frequent
TRACK_LENGTH = 1.5  # of a piece of track / creature length
COUNT_SHARES = (0.55, 0.30, 0.15)  # pictures with one, two, three creatures
LENGTHS = ((0.45, 1.10), (0.42, 0.66), (0.36, 0.52))  # creature length / picture, by their number
SMALLEST_HEAD = 0.085  # head radius / picture: a pattern in fewer pixels could not be told
HEAD_COVERED, BODY_COVERED = 0.15, 0.40  # at most this share may be hidden by later creatures
BODY_INSIDE = 0.6  # at least this share of a body lies in the picture
MOST_ATTEMPTS = 40  # at placing a second or third creature


@dataclass(frozen=True)
class Creature:
    """One animal. Lengths are pixels in its own frame: x towards the head, y down, body centre 0.

    A mirrored creature looks left. `limbs` are rows x0, y0, x1, y1 and the radii at both ends: neck, legs, tail, ears.
    """

    label: int
    centre: tuple[float, float]
    angle: float
    mirrored: bool
    length: float
    body: tuple[float, float]
    limbs: Array
    foot: float
    head: tuple[float, float, float]
    eyes: Array
    twist: float
    coat: Coat
    ink: Array


@dataclass(frozen=True)
class Scene:
    """A planned picture: ground SxSx3 in [0, 1] with the things on it, texture of fur SxS, creatures back to front."""

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
    kind = GROUNDS[generator.integers(len(GROUNDS))]
    things = [THINGS[k] for k in generator.integers(len(THINGS), size=generator.integers(5))]
    return populate(generator, size, labels.tolist(), kind, things, COATS, on_track=on_track)


def populate(
    generator: np.random.Generator,
    size: int,
    labels: Sequence[int],
    ground_kind: str,
    things: Sequence[str],
    coats: tuple[str, ...],
    *,
    on_track: bool = False,
    heads_inside: bool = True,
) -> Scene:
    """Draw a scene with these animals (fewer where there is no room), on this ground, among these things.

    Args:
        generator: the source of all that is not given.
        size: of the picture.
        labels: indices of `CREATURES`, and after them of `STRANGERS`.
        ground_kind: of `GROUNDS`.
        things: of `THINGS`.
        coats: of `COATS`, to choose from.
        on_track: lay a track under each animal.
        heads_inside: no head lies outside the picture.
    """
    ground = random_ground(generator, size, ground_kind)
    avoided = [ground.mean(axis=(0, 1))]
    if on_track:
        avoided.append(GRAVEL)

    placed: list[Creature] = []
    visible: list[tuple[Array, Array]] = []  # sample points of head and body still to be seen
    for label in labels:
        for attempt in count():
            if placed and attempt == MOST_ATTEMPTS:
                break  # the picture is full: one creature fewer
            candidate = _random_shape(generator, size, int(label), len(labels))
            head, body = _sample_points(candidate)
            if (heads_inside and not _inside(head, size).all()) or _inside(body, size).mean() < BODY_INSIDE:
                continue
            left = [(h[_distance(candidate, *h.T) > 0], b[_distance(candidate, *b.T) > 0]) for h, b in visible]
            if all(
                len(h) >= (1 - HEAD_COVERED) * len(_HEAD_POINTS) and len(b) >= (1 - BODY_COVERED) * len(_BODY_POINTS)
                for h, b in left
            ):
                placed.append(_with_coat(candidate, generator, size, avoided, _coats_of(int(label), generator, coats)))
                visible = [*left, (head, body)]
                break
    # Ground and things often have the animals' colours: colour alone does not tell where an animal is.
    coat_colours = [colour for creature in placed for colour in creature.coat.colours[:2]]

    def thing_colour() -> Array:
        if coat_colours and generator.random() < 0.35:
            return coat_colours[generator.integers(len(coat_colours))]
        return random_colour(generator)

    for _ in range(generator.integers(3)):
        lay_patch(ground, generator, thing_colour())
    for thing in things:
        lay_thing(ground, generator, thing, thing_colour())
    if on_track:
        for creature in placed:
            below = creature.body[1]
            middle = (
                creature.centre[0] - np.sin(creature.angle) * below,
                creature.centre[1] + np.cos(creature.angle) * below,
            )
            lay_track(ground, generator, middle, creature.angle, TRACK_LENGTH * creature.length)
    fur = 0.5 * noise(generator, size, 14, 40) + 0.5 * generator.random((size, size)) - 0.5
    return Scene(ground, fur, tuple(placed))


def render(scene: Scene) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw a scene.

    Returns:
        The picture, uint8 HxWx3, and its mask, uint8 HxW: 0 ground, class index + 1, and `VOID` on
        a border of one to two pixels (at 96; it scales) around each creature.
    """
    size = len(scene.ground)
    picture = scene.ground.copy()
    whole = np.zeros((size, size), dtype=np.uint8)
    border = 0.75 * max(1.0, size / 96)
    for creature in scene.creatures:
        box = box_around(*creature.centre, creature.length, size)
        image, mask = picture[box], whole[box]
        u, v = _to_frame(creature, *(plane[box] for plane in pixel_centres(size)))
        distance = _frame_distance(creature, u, v)
        shadow = length_of(u / creature.length, 3.5 * (v - creature.foot) / creature.length)
        image *= 1 - 0.45 * soft_step(0.42 - shadow, 0.12)[..., None]
        coat = creature.coat
        paint = paint_coat(coat, u, v, coat.warp[box], creature.length, creature.body)
        from_head = length_of(u - creature.head[0], v - creature.head[1]) - creature.head[2]
        face = soft_step(-from_head - 0.05 * creature.head[2], 0.1 * creature.head[2])
        blend(paint, coat.colours[0], face)
        ink = cover(_pattern_distance(creature, u, v))
        blend(paint, creature.ink, ink)
        rim = np.exp(np.minimum(distance, 0) / (0.05 * creature.length))
        fur = scene.fur[box] * (0.3 - 0.18 * face)
        light = 1.12 - 0.3 * v / creature.length - 0.3 * rim * (1 - 0.5 * face) + fur
        blend(image, paint * light[..., None], cover(distance))
        for eye_x, eye_y, radius in creature.eyes:
            from_eye = length_of(u - eye_x, v - eye_y)
            blend(image, _EYE, cover(from_eye - radius))
            blend(image, _PUPIL, cover(from_eye - 0.55 * radius))
        mask[distance < 0] = creature.label + 1
        mask[np.abs(distance) < border] = VOID
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), whole


def owners(scene: Scene) -> npt.NDArray[np.int64]:
    """Which creature each pixel shows, int64 SxS: its place in the scene, -1 where there is none."""
    size = len(scene.ground)
    owner = np.full((size, size), -1)
    for place, creature in enumerate(scene.creatures):
        owner[_distance(creature, *pixel_centres(size)) < 0] = place
    return owner


def head_disc(creature: Creature, size: int) -> npt.NDArray[np.bool_]:
    """The pixels, bool SxS, that the head's disc touches: nothing else depends on the class."""
    u, v = _to_frame(creature, *pixel_centres(size))
    x, y, radius = creature.head
    return length_of(u - x, v - y) < radius + 0.5


def _random_shape(generator: np.random.Generator, size: int, label: int, number: int) -> Creature:
    """An animal without a coat."""
    uniform = generator.uniform
    length = uniform(*LENGTHS[number - 1]) * size
    radius = max(SMALLEST_HEAD * size, uniform(0.16, 0.185) * length)
    long = (length - 1.6 * radius) / 2
    # The head is to be a fifth or so of the creature, of which limbs are an eighth.
    share = uniform(0.21, 0.26)
    short = min(0.85 * radius**2 * (1 - share) / share / long, 0.85 * long)

    nape = uniform(0.2, 0.8)  # where the head sits: angle on the body's outline
    out = np.array([np.cos(nape) / long, -np.sin(nape) / short])
    out *= uniform(0.6, 1.0) * radius / np.hypot(*out)
    head = (long * np.cos(nape) + out[0], -short * np.sin(nape) + out[1], radius)
    thick = max(0.046 * length, 0.018 * size)
    legs, foot = _legs(generator, long, short, thick)
    limbs = [[0.5 * long, 0, head[0], head[1], 0.75 * short, 0.6 * radius], *legs]
    limbs += _tail(generator, long, short, thick, 0.8 * radius)
    limbs += _ears(generator, head)
    look = np.array([-1.95, -0.95]) + uniform(-0.2, 0.2)  # angles of the eyes on the head
    eyes = np.stack(
        [
            head[0] + 1.0 * radius * np.cos(look),
            head[1] + 1.0 * radius * np.sin(look),
            np.full(2, 0.27 * radius),
        ],
        axis=1,
    )
    if label == len(CREATURES) + len(STRANGERS) - 1:  # blank: no face at all
        eyes = eyes[:0]
    x, y = uniform(0.1, 0.9, size=2) * size
    return Creature(
        label=label,
        centre=(x, y),
        angle=uniform(-0.35, 0.35),
        mirrored=bool(generator.random() < 0.5),
        length=length,
        body=(long, short),
        limbs=np.array(limbs),
        foot=foot,
        head=head,
        eyes=eyes,
        twist=uniform(-0.3, 0.3),
        coat=_BARE,
        ink=np.zeros(3),
    )


def _coats_of(label: int, generator: np.random.Generator, coats: tuple[str, ...]) -> tuple[str, ...]:
    usual = label < len(CREATURES) and generator.random() < USUAL_SHARE
    return USUAL_COATS[CREATURES[label]] if usual else coats


def _with_coat(
    creature: Creature, generator: np.random.Generator, size: int, avoided: list[Array], kinds: tuple[str, ...]
) -> Creature:
    coat = random_coat(generator, size, creature.length, avoided, kinds)
    dark = coat.colours[0] @ GREY > 0.42
    ink = generator.uniform(0.02, 0.12, size=3) if dark else generator.uniform(0.88, 0.98, size=3)
    return replace(creature, coat=coat, ink=ink)


def _legs(generator: np.random.Generator, long: float, short: float, thick: float) -> tuple[list[list[float]], float]:
    """Legs, and how far down they stand."""
    number = int(generator.integers(2, 5))
    foot = short * generator.uniform(1.35, 1.75)
    legs = []
    for hip in np.linspace(-0.68, 0.68, number) + generator.uniform(-0.08, 0.08, size=number):
        knee = 0.85 * hip * long + generator.uniform(-0.05, 0.08) * long
        down = 0.6 * (short + foot) / 1.35
        legs.append([0.85 * hip * long, 0.35 * short, knee, down, 1.6 * thick, thick])
        legs.append([knee, down, knee + generator.uniform(-0.06, 0.06) * long, foot, thick, 0.85 * thick])
    return legs, foot


def _tail(generator: np.random.Generator, long: float, short: float, thick: float, reach: float) -> list[list[float]]:
    first, second = generator.uniform(-0.9, 0.5), generator.uniform(-1.3, 1.1)
    end_thick = thick * generator.choice([0.6, 1.0, 1.7])
    start = np.array([-0.85 * long, -0.1 * short])
    bend = start + (0.15 * long + reach) * np.array([-np.cos(first), np.sin(first)])
    end = bend + reach * np.array([-np.cos(second), np.sin(second)])
    return [[*start, *bend, 1.2 * thick, thick], [*bend, *end, thick, end_thick]]


def _ears(generator: np.random.Generator, head: tuple[float, float, float]) -> list[list[float]]:
    """None, round, pointed or long, for any class."""
    x, y, radius = head
    reach, base, tip = [(0, 0, 0), (1.15, 0.34, 0.34), (1.45, 0.4, 0.08), (1.7, 0.22, 0.26)][generator.integers(4)]
    if reach == 0:
        return []
    spread = generator.uniform(0.55, 0.95)
    ears = []
    for side in (-1, 1):
        turn = -1.45 + side * spread + (0.25 if side > 0 else -0.25)
        out = np.array([np.cos(turn), np.sin(turn)]) * radius
        ears.append(
            [x + 0.7 * out[0], y + 0.7 * out[1], x + reach * out[0], y + reach * out[1], base * radius, tip * radius]
        )
    return ears


def _to_frame(creature: Creature, x: Array, y: Array) -> tuple[Array, Array]:
    x, y = x - creature.centre[0], y - creature.centre[1]
    cos, sin = np.cos(creature.angle), np.sin(creature.angle)
    along = cos * x + sin * y
    return (-along if creature.mirrored else along), cos * y - sin * x


def _distance(creature: Creature, x: Array, y: Array) -> Array:
    """Signed distance in pixels to the creature's outline, negative inside."""
    return _frame_distance(creature, *_to_frame(creature, x, y))


def _frame_distance(creature: Creature, u: Array, v: Array) -> Array:
    long, short = creature.body
    # To first order near the outline: f / |grad f| with f = |(u / long, v / short)| - 1.
    norm = length_of(u / long, v / short)
    slope = length_of(u / long**2, v / short**2)
    distance: Array = norm * (norm - 1) / np.maximum(slope, 1e-9)
    soft = 0.05 * creature.length  # limbs run into the body without a corner
    for x0, y0, x1, y1, start, end in creature.limbs:
        dx, dy = x1 - x0, y1 - y0
        du, dv = u - x0, v - y0
        squared = dx * dx + dy * dy
        t = np.minimum(np.maximum((du * dx + dv * dy) / squared, 0), 1)
        limb = length_of(du - t * dx, dv - t * dy) - start - (end - start) * t
        limb /= np.sqrt(1 + (end - start) ** 2 / squared)  # what tapers off would grow faster than the distance
        near = np.maximum(soft - np.abs(distance - limb), 0)
        distance = np.minimum(distance, limb) - near * near / (4 * soft)
    for x0, y0, radius in (creature.head, *creature.eyes):
        distance = np.minimum(distance, length_of(u - x0, v - y0) - radius)
    return distance


def _pattern_distance(creature: Creature, u: Array, v: Array) -> Array:
    """Signed distance in pixels to the head's ink: what makes a zebbo a zebbo."""
    head_x, head_y, radius = creature.head
    u, v = (u - head_x) / radius, (v - head_y) / radius
    cos, sin = np.cos(creature.twist), np.sin(creature.twist)
    u, v = cos * u + sin * v, cos * v - sin * u
    away = length_of(u, v)
    ink: Array
    match (*CREATURES, *STRANGERS)[creature.label]:
        case "zebbo":
            ink = np.abs((u + 0.2) % 0.8 - 0.4) - 0.2
        case "dotkin":
            ink = away - 0.6
        case "ringlo":
            ink = np.abs(away - 0.58) - 0.2
        case "plusmo":
            ink = np.minimum(np.abs(u), np.abs(v)) - 0.22
        case "tramlo":
            ink = u
        case "star":
            ink = away * (1 + 0.45 * np.cos(5 * np.arctan2(u, -v))) - 0.62
        case "checks":
            ink = 0.3 * np.sin(4.5 * u) * np.sin(4.5 * v)
        case "chevron":
            ink = np.abs((v + np.abs(u)) % 0.9 - 0.45) - 0.2
        case "frame":
            ink = np.abs(np.maximum(np.abs(u), np.abs(v)) - 0.48) - 0.16
        case "moon":
            ink = np.maximum(away - 0.75, 0.6 - length_of(u - 0.35, v))
        case "saltire":
            ink = np.minimum(np.abs(u - v), np.abs(u + v)) / 1.41 - 0.18
        case "wedge":
            ink = np.maximum(np.abs(u) - 0.55 * (v + 0.75), v - 0.55)
        case "bars":
            ink = np.abs((v + 0.2) % 0.8 - 0.4) - 0.2
        case "quarters":
            ink = np.sign(u) * v * np.minimum(1, 4 * np.abs(u))
        case "eyes":
            ink = length_of(np.abs(u) - 0.42, v) - 0.27
        case "roof":  # pale below, dark above
            ink = v + 0.35 * np.abs(u)
        case "diamond":
            ink = (np.abs(u) + np.abs(v) - 0.7) / 1.41
        case "three dots":
            ink = np.min([length_of(u - a, v - b) for a, b in ((0, -0.45), (-0.45, 0.35), (0.45, 0.35))], axis=0) - 0.27
        case "pinwheel":
            ink = 0.5 * away * np.sin(3 * np.arctan2(v, u) + 3 * away)
        case "wave":
            ink = np.abs(v - 0.4 * np.sin(4.5 * u)) - 0.2
        case "tee":
            ink = np.where(v > -0.2, np.abs(u) - 0.2, np.abs(v + 0.45) - 0.22)
        case "arrow":
            ink = np.minimum(np.abs(v) - 0.16, np.maximum(np.abs(v) - 0.6 * (0.8 - u), 0.1 - u))
        case "aitch":
            ink = np.minimum(np.abs(np.abs(u) - 0.5) - 0.18, np.maximum(np.abs(v) - 0.18, np.abs(u) - 0.5))
        case "grid":
            ink = np.minimum(np.abs(np.abs(u) - 0.4), np.abs(np.abs(v) - 0.4)) - 0.14
        case "target":
            ink = np.minimum(away - 0.25, np.abs(away - 0.72) - 0.15)
        case "slice":
            ink = 0.7 * away * (np.abs(np.arctan2(v, u)) - 1.0)
        case "hourglass":
            ink = (np.abs(u) - np.abs(v)) / 1.41
        case "beam":
            ink = np.abs(u - v) / 1.41 - 0.28
        case "half dot":
            ink = np.maximum(away - 0.65, -v)
        case "comb":
            ink = np.where(v > 0.1, np.abs((u + 0.25) % 0.5 - 0.25) - 0.12, np.abs(v + 0.1) - 0.22)
        case "corner":
            ink = np.maximum(u, v) + 0.1
        case _:
            return np.ones_like(u)
    ink = np.maximum(ink, away - 0.95) * radius
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


_BARE = Coat("plain", 0, np.zeros((3, 3)), 2, np.zeros((1, 1)), 0.0, 0.0)
_EYE = np.array([0.95, 0.95, 0.92])
_PUPIL = np.array([0.06, 0.06, 0.08])
