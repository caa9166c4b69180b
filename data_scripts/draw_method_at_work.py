"""Draw README's first picture: images, and what the lessons' network makes of them after RecurSeed.

The first validation images with one, two and three kinds of creatures are shown, whatever comes out; nothing is chosen
by its result.
"""

import argparse
from pathlib import Path

from rsepm_edu.course.networks import CREATURES_RS, load_lesson_network
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.training.config import preset
from rsepm_edu.training.method_picture import method_picture

OUT = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "method_at_work.png"


def main() -> None:
    """Images and tags go in; the true mask is drawn beside the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the file (default: the one that README shows)")
    options = parser.parse_args()
    pictures = VocDataset(ensure_creatures(), "val", masks=True)
    kinds = pictures.tags.sum(dim=1)
    indices = [int((kinds == count).nonzero()[0]) for count in (1, 2, 3)]
    figure = method_picture(load_lesson_network(CREATURES_RS), preset("creatures-cpu"), pictures, indices)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)
    print(options.out)


if __name__ == "__main__":
    main()
