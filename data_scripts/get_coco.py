"""Download COCO 2014 (20 GB) and turn it into VOC's layout: pictures, tags and, if wanted, masks."""

import argparse
import sys
from pathlib import Path

from rsepm_edu.cli.options import shows_bars
from rsepm_edu.data.coco import ANNOTATIONS, PICTURES, get_coco
from rsepm_edu.errors import UserError


def main() -> int:
    """Run the command line; returns the exit code."""
    names = ", ".join(archive.name for archive in (ANNOTATIONS, *PICTURES.values()))
    parser = argparse.ArgumentParser(description=f"{__doc__} Licence: {ANNOTATIONS.licence}.")
    parser.add_argument("root", type=Path, help="folder for data; coco2014 is made in it")
    parser.add_argument("--splits", nargs="+", choices=tuple(PICTURES), default=tuple(PICTURES), help="default: both")
    parser.add_argument("--no-masks", action="store_true", help="tags alone, as training needs them")
    parser.add_argument(
        "--from",
        dest="given",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help=f"of {names}, what is there",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    try:
        folder = get_coco(
            options.root,
            splits=options.splits,
            masks=not options.no_masks,
            given=options.given,
            progress=shows_bars(options),
        )
    except UserError as error:
        print(f"get_coco: {error}", file=sys.stderr)
        return 2
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
