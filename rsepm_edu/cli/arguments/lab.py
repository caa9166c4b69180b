"""The options of rsepm-edu lab."""

import argparse


def add_command(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.description = (
        "Opens the lessons in JupyterLab. They are in the folder notebooks of the repository, so this command needs a "
        "clone of it."
    )
    parser.add_argument("--no-browser", action="store_true", help="only start the server and print its address")
    parser.add_argument("--port", type=int, help="port of the server (default: JupyterLab's default)")
