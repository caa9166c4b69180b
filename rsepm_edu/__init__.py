"""From image tags to masks: the tested code behind a course on weakly supervised segmentation.

Import what you need from the module that holds it, for example
``from rsepm_edu.methods.pamr import pamr``; this package itself imports nothing heavy.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rsepm-edu")
except PackageNotFoundError:  # used from a checkout that was never installed
    __version__ = "0+checkout"

__all__ = ["__version__"]
