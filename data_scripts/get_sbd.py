"""Download SBD (1.4 GB) and write its masks for VOC's split trainaug. Only for evaluation: training needs no masks."""

import argparse
import sys
from pathlib import Path

from rsepm_edu.cli.options import shows_bars
from rsepm_edu.data.voc_download import SBD, get_sbd
from rsepm_edu.errors import UserError


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=f"{__doc__} Licence: {SBD.licence}.")
    parser.add_argument("root", type=Path, help="folder where get_voc put VOC 2012")
    parser.add_argument("--from", dest="given", type=Path, metavar="FILE", help=f"a {SBD.name} that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    try:
        print(get_sbd(options.root, given=options.given, progress=shows_bars(options)))
    except UserError as error:
        print(f"get_sbd: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
