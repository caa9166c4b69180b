"""The one exception for mistakes a user can make, and what others say of theirs in one line."""


class UserError(ValueError):
    """Something the user gave is wrong: a path, a file, an argument.

    The message is one clear line that names the file or argument, what was expected and what came.
    The command line prints it and exits with code 2; nothing else is shown.
    """


def one_line(error: Exception) -> str:
    """The beginning of what an error says, without its line breaks."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[:3])[:300]
