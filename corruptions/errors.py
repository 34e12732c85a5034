"""The one exception for bad input, shared by the engine and the harness."""


class InputError(ValueError):
    """Something the caller gave cannot be used.

    The message is one line: what was expected, what came, and what to do about it. The command line prints it
    as it is and exits with code 2.
    """
