"""The one exception for mistakes a user can make, and how what other programs say is put into one line."""


class UserError(ValueError):
    """Something the user gave is wrong: a path, a file, an argument.

    The message is one clear line that names the file or argument, what was expected and what came.
    The command line prints it and exits with code 2; nothing else is shown. What comes from a damaged
    file may hold any character: those that a terminal would obey are shown as escapes.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """The text with every character that is not printable (line breaks, control bytes, marks of byte order) escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def one_line(error: BaseException) -> str:
    """The beginning of what an error says, without its line breaks."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(" ".join(line.strip() for line in lines[:3]))[:300]
