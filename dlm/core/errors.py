"""The one exception that means: the user can put this right."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user, told in one line: what is wrong, where, and the remedy.

    `run.py` prints it as `error: ...` and exits with status 2; every other exception is ours and
    keeps its traceback.
    """


def quoted(text: object, length: int = 200) -> str:
    """What a file says, as a message may hold it: printable, on one line, cut at `length`."""
    said = str(text)[:length]
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in said)
