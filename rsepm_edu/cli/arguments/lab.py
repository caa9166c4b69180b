"""The options of rsepm-edu lab."""

import argparse


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Opens JupyterLab on the lessons. They lie in the folder notebooks of the repository, which a package that was "
        "installed without it does not have."
    )
    parser.add_argument("--no-browser", action="store_true", help="start the server and print its address alone")
    parser.add_argument("--port", type=int, help="port of the server (default: JupyterLab's)")
