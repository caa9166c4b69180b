"""Where the program begins: rsepm-edu COMMAND, python -m rsepm_edu COMMAND, or torchrun … -m rsepm_edu COMMAND.

Next to nothing is imported before a Ctrl-C has somebody to answer it. What comes before this module, about a tenth of a
second, is Python's.
"""

import os
import sys

from rsepm_edu.interrupts import STOPPED, one_line_at_an_interrupt


def main() -> int:
    """The command line, see ``rsepm_edu.cli.main``."""
    try:
        with one_line_at_an_interrupt():
            from rsepm_edu.cli import main as command_line
        return command_line()
    except KeyboardInterrupt:  # in the instants between one handler and the next
        os.write(2, STOPPED)
        return 130


if __name__ == "__main__":
    sys.exit(main())
