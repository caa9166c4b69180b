"""Pictures for the small network to learn from before it meets Creatures, as others learn from ImageNet.

They show other made-up animals (none of the course's classes, and no railway track) on ground with things. There are no
masks, only tags that tell what is in the picture: which heads, coats and colours of the animals, how many, on which
ground, among which things.
"""

import numpy as np
import numpy.typing as npt

from rsepm_edu.data.creature_coats import COATS, PALETTE
from rsepm_edu.data.creature_drawing import CREATURES, STRANGERS, populate, render
from rsepm_edu.data.creature_grounds import GROUNDS, THINGS

PRETEXT_TAGS = (
    *(f"head of a {name}" for name in STRANGERS),
    *(f"coat with {name}" for name in COATS),
    *(f"colour {k}" for k in range(len(PALETTE))),
    *("two or more animals", "three animals"),
    *GROUNDS,
    *THINGS,
)

_STREAM = 2  # the first two belong to the splits of Creatures


def draw_pretext_picture(
    seed: int, index: int, size: int = 96
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Draw picture `index` in memory: the picture, uint8 size x size x 3, and its `PRETEXT_TAGS`, float32 in {0, 1}."""
    generator = np.random.default_rng([seed, _STREAM, index])
    number = int(generator.choice(3, p=(0.5, 0.3, 0.2))) + 1
    labels = len(CREATURES) + generator.integers(len(STRANGERS), size=number)
    ground = int(generator.integers(len(GROUNDS)))
    things = generator.integers(len(THINGS), size=generator.integers(5))
    scene = populate(generator, size, labels.tolist(), GROUNDS[ground], [THINGS[k] for k in things], COATS)
    heads, coats, hues = np.zeros(len(STRANGERS)), np.zeros(len(COATS)), np.zeros(len(PALETTE))
    for creature in scene.creatures:
        heads[creature.label - len(CREATURES)] = 1
        coats[COATS.index(creature.coat.kind)] = 1
        hues[creature.coat.hue] = 1
    count = np.array([len(scene.creatures) >= 2, len(scene.creatures) >= 3])
    there = np.isin(np.arange(len(THINGS)), things)
    grounds = np.arange(len(GROUNDS)) == ground
    return render(scene)[0], np.concatenate([heads, coats, hues, count, grounds, there]).astype(np.float32)
