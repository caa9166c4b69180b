"""Download PASCAL VOC 2012 (2 GB), check it and unpack it. A broken transfer goes on where it stopped."""

import argparse
import sys
from pathlib import Path

from rsepm_edu.cli.options import shows_bars
from rsepm_edu.data.voc_download import VOC_2012, get_voc
from rsepm_edu.errors import UserError


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=f"{__doc__} Licence: {VOC_2012.licence}.")
    parser.add_argument("root", type=Path, help="folder for data; VOCdevkit/VOC2012 is made in it")
    parser.add_argument("--from", dest="given", type=Path, metavar="FILE", help=f"a {VOC_2012.name} that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    try:
        print(get_voc(options.root, given=options.given, progress=shows_bars(options)))
    except UserError as error:
        print(f"get_voc: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
