"""Splits of what is published without: a record falls where the hash of its text says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import message_text


def share_of(text: str, seed: int = 0) -> float:
    """A number in [0, 1) drawn by text and seed: the same text always has the same one."""
    written = f"{seed}\n{text}".encode(errors="surrogatepass")  # of half a pair others complain
    hashed = hashlib.sha256(written).digest()
    return int.from_bytes(hashed[:6], "big") / 2**48


def split_of(text: str, seed: int = 0) -> str:
    """`train`, `validation` or `test`, eight to one to one."""
    share = share_of(text, seed)
    return "train" if share < 0.8 else "validation" if share < 0.9 else "test"


def side(
    read: Callable[[], Iterable[Dialogue]], share: float, held_out: bool
) -> Iterator[Dialogue]:
    """Of dialogues of one user's message the share (0..1) that is held out, or all others.

    The message decides: the same words, whatever their label or context, are on one side. That of
    the lowest number is held out in any case.
    """
    numbers = [share_of(asked(dialogue)) for dialogue in read()]
    bound = max(share, min(numbers, default=0))
    for dialogue, number in zip(read(), numbers, strict=True):
        if (number <= bound) == held_out:
            yield dialogue


def asked(dialogue: Dialogue) -> str:
    """The text of the one message of the user."""
    [text] = (message_text(message) for message in dialogue.messages if message.role == "user")
    return text
