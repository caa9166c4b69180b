"""The command line as a module: python -m rsepm_edu COMMAND, or torchrun … -m rsepm_edu COMMAND."""

import sys

from rsepm_edu.entry import main

if __name__ == "__main__":
    sys.exit(main())
