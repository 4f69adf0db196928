"""The text of a response while it is written, token by token."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from dlm.dialogue.tokenizer import Tokenizer


class Piece(NamedTuple):
    """Some more text of a message.

    Attributes:
      channel: of the message; "" where it has none.
      text: may be empty; a character appears once all its bytes are there.
      ended: the message ends with this piece.
    """

    channel: str
    text: str
    ended: bool = False


class ResponseText:
    """Turns the tokens of a response into pieces of text.

    The pieces of a message joined are what `Tokenizer.decode` gives for its content; control
    tokens are never part of a text.

    Args:
      tokenizer: of the model.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._channel = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> Piece | None:
        """Returns the piece that a token adds; None for a header."""
        name = self._tokenizer.control_name(token)
        if name is None:
            return Piece(self._channel, self._decoder.decode(self._tokenizer.token_bytes(token)))
        if name == "<|end|>":
            piece = Piece(self._channel, self._decoder.decode(b"", final=True), ended=True)
            self._channel = ""
            return piece
        if name == "<|assistant|>":
            return None
        self._channel = name[2:-2]
        return Piece(self._channel, "")
