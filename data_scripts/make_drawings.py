"""Draw the course's drawings anew: the method, a lesson's place in it, the multi-stage road, the networks, data flows.

They are SVG files in rsepm_edu/course/drawings, so that a lesson has them wherever the package is. Shapes are read off
the networks and numbers are computed by the package: nothing in them is written down by hand.
"""

import argparse
from pathlib import Path

from drawing_method import LESSONS, master
from drawing_multistage import multistage
from drawing_networks import NETWORKS
from drawing_toys import TOYS

from rsepm_edu.files import atomic_write_text

FOLDER = Path(__file__).resolve().parents[1] / "rsepm_edu" / "course" / "drawings"


def drawings() -> dict[str, str]:
    """All of them: name of the file to its text."""
    found = {"method.svg": master().svg(), "multistage.svg": multistage().svg()}
    found |= {f"here_{lesson}.svg": master(lesson).svg() for lesson in LESSONS}
    found |= {f"network_{name}.svg": draw().svg() for name, draw in NETWORKS.items()}
    found |= {f"flow_{lesson}.svg": draw().canvas.svg() for lesson, draw in TOYS.items()}
    return found


def main() -> None:
    """Files of drawings that are gone are removed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="where they go (default: into the package)")
    options = parser.parse_args()
    made = drawings()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.out.glob("*.svg"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        atomic_write_text(options.out / name, text)
    print(f"{len(made)} drawings in {options.out}")


if __name__ == "__main__":
    main()
