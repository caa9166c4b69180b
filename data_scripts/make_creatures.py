"""Write a Creatures set, the course's generated pictures, in VOC's folder layout."""

import argparse
import sys

from rsepm_edu.data.creatures import make_creatures
from rsepm_edu.errors import UserError


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder to write to: new or empty")
    parser.add_argument("--train", type=int, default=1000, help="training pictures (%(default)s)")
    parser.add_argument("--val", type=int, default=200, help="validation pictures (%(default)s)")
    parser.add_argument("--size", type=int, default=96, help="width, height, 64-256 (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes (default: by machine and set size)")
    options = vars(parser.parse_args())
    try:
        root = make_creatures(options.pop("root"), **options)
    except UserError as error:
        print(f"make_creatures: {error}", file=sys.stderr)
        return 2
    print(f"{root}: {options['train']} pictures for training, {options['val']} for validation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
