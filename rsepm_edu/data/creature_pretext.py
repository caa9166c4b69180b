"""Pictures for the small network to learn from before it meets Creatures, as others learn from ImageNet.

They show other made-up animals (none of the course's classes, and no railway track) on ground with things. There are no
masks, only tags that tell what is in the picture: which heads, coats and colours of the animals, how many, on which
ground, among which things.
"""

import numpy as np
import numpy.typing as npt

from rsepm_edu.data.creature_coats import COATS
from rsepm_edu.data.creature_drawing import CREATURES, STRANGERS, head_disc, populate, render
from rsepm_edu.data.creature_grounds import GROUNDS, THINGS

PRETEXT_TAGS = (
    "an animal",
    "two or more animals",
    "three animals",
    *(f"head of a {name}" for name in STRANGERS[:-1]),
    *(f"coat with {name}" for name in COATS),
    *GROUNDS,
    *THINGS,
)

_STREAM = 2  # the first two belong to the splits of Creatures
_BLANK = len(STRANGERS) - 1


def draw_pretext_picture(
    seed: int, index: int, size: int = 96
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Draw picture `index` in memory: the picture, uint8 size x size x 3, and its `PRETEXT_TAGS`, float32 in {0, 1}."""
    generator = np.random.default_rng([seed, _STREAM, index])
    number = int(generator.choice(4, p=(0.25, 0.4, 0.2, 0.15)))
    # Many have no face, or it lies outside: what an animal is must be learnt from its body too.
    labels = [
        len(CREATURES) + (_BLANK if generator.random() < 0.25 else int(generator.integers(_BLANK)))
        for _ in range(number)
    ]
    ground = int(generator.integers(len(GROUNDS)))
    things = generator.integers(len(THINGS), size=generator.integers(5))
    scene = populate(
        generator, size, labels, GROUNDS[ground], [THINGS[k] for k in things], COATS, heads_inside=False
    )
    heads, coats = np.zeros(len(STRANGERS)), np.zeros(len(COATS))
    for creature in scene.creatures:
        if head_disc(creature, size).sum() > 0.5 * np.pi * creature.head[2] ** 2:
            heads[creature.label - len(CREATURES)] = 1
        coats[COATS.index(creature.coat.kind)] = 1
    count = np.array([len(scene.creatures) >= k for k in (1, 2, 3)])
    there = np.isin(np.arange(len(THINGS)), things)
    grounds = np.arange(len(GROUNDS)) == ground
    return render(scene)[0], np.concatenate([count, heads[:-1], coats, grounds, there]).astype(np.float32)
