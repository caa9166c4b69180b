"""From image tags to masks: the tested code behind a course on weakly supervised segmentation.

Import what you need from the module that holds it, for example
``from rsepm_edu.methods.pamr import pamr``; this package itself imports nothing heavy.
"""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """``__version__``, looked up when it is asked for: to do so takes longer than all else here."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rsepm-edu")
    except PackageNotFoundError:  # used from a checkout that was never installed
        return "0+checkout"
