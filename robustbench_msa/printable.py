"""Text from files on a terminal."""


def printable(text: str) -> str:
    r"""One line in which nothing is left that a terminal would obey.

    >>> printable("two\nlines, \x1b[31mred")
    'two lines, \\x1b[31mred'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
