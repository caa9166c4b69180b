"""Pictures for the small network to learn from before it meets Creatures, as others learn from ImageNet.

They are close-ups: quarters of scenes with other made-up animals (none of the course's classes, and no railway track)
on ground with things. Many show a flank and no head, or nothing but ground, so that what tells an animal from what it
stands on must be learnt from its body too. There are no masks, only tags that name what fills a close-up.
"""

import numpy as np
import numpy.typing as npt

from rsepm_edu.data.creature_coats import COATS, PALETTE
from rsepm_edu.data.creature_drawing import CREATURES, STRANGERS, Scene, head_disc, owners, populate, render
from rsepm_edu.data.creature_grounds import GROUNDS, THINGS

PRETEXT_TAGS = (
    "an animal",
    "two or more animals",
    *(f"head with {name}" for name in STRANGERS[:-1]),
    *(f"coat with {name}" for name in COATS),
    *(f"coat of colour {hue}" for hue in range(len(PALETTE))),
    *GROUNDS,
)

LEAST_ANIMAL = 0.08  # share of a close-up from which on an animal in it is named
LEAST_HEAD = 0.6  # share of a head's disc
_NUMBER_SHARES = (0.15, 0.45, 0.25, 0.15)  # scenes with none, one, two, three animals
_BLANK_SHARE = 0.1  # animals without a face
_STREAM = 2  # the first two belong to the splits of Creatures
_BLANK = len(STRANGERS) - 1


def pretext_scene(seed: int, index: int, size: int) -> tuple[Scene, str]:
    """The scene that four close-ups are cut from, and the name of its ground."""
    generator = np.random.default_rng([seed, _STREAM, index])
    number = int(generator.choice(len(_NUMBER_SHARES), p=_NUMBER_SHARES))
    labels = [
        len(CREATURES) + (_BLANK if generator.random() < _BLANK_SHARE else int(generator.integers(_BLANK)))
        for _ in range(number)
    ]
    ground = GROUNDS[generator.integers(len(GROUNDS))]
    things = [THINGS[k] for k in generator.integers(len(THINGS), size=generator.integers(5))]
    return populate(generator, size, labels, ground, things, COATS, heads_inside=False), ground


def draw_close_ups(seed: int, index: int, size: int = 96) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Draw scene `index` in memory and cut it in four.

    Returns:
        The close-ups, uint8 4 x size/2 x size/2 x 3, and their `PRETEXT_TAGS`, float32 4xT in {0, 1}.
    """
    scene, ground = pretext_scene(seed, index, size)
    picture, owner, half = render(scene)[0], owners(scene), size // 2
    heads = [head_disc(creature, size) for creature in scene.creatures]
    images, tags = [], []
    for rows in (slice(half), slice(half, None)):
        for columns in (slice(half), slice(half, None)):
            images.append(picture[rows, columns])
            tags.append(_tags(scene, ground, owner, (rows, columns), heads))
    return np.stack(images), np.stack(tags)


def _tags(
    scene: Scene,
    ground: str,
    owner: npt.NDArray[np.int64],
    part: tuple[slice, slice],
    heads: list[npt.NDArray[np.bool_]],
) -> npt.NDArray[np.float32]:
    """What fills a part of the picture."""
    head_tags, coats, hues = np.zeros(len(STRANGERS)), np.zeros(len(COATS)), np.zeros(len(PALETTE))
    number = 0
    for place, (creature, head) in enumerate(zip(scene.creatures, heads, strict=True)):
        mine = owner[part] == place
        if mine.mean() >= LEAST_ANIMAL:
            number += 1
            coats[COATS.index(creature.coat.kind)] = 1
            hues[creature.coat.hue] = 1
        if (mine & head[part]).sum() > LEAST_HEAD * np.pi * creature.head[2] ** 2:
            head_tags[creature.label - len(CREATURES)] = 1
    grounds = np.isin(GROUNDS, ground)
    return np.concatenate([[number >= 1, number >= 2], head_tags[:-1], coats, hues, grounds]).astype(np.float32)
