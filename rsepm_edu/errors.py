"""The one exception for mistakes a user can make."""


class UserError(ValueError):
    """Something the user gave is wrong: a path, a file, an argument.

    The message is one clear line that names the file or argument, what was expected and what came.
    The command line prints it and exits with code 2; nothing else is shown.
    """
