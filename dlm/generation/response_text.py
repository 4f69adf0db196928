"""The text of a response while it is written, token by token."""

from __future__ import annotations

from typing import NamedTuple

from dlm.dialogue.template import Template


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
      template: of the model.
    """

    def __init__(self, template: Template) -> None:
        self._template = template
        self._ids: list[int] = []
        self._messages = 0  # that have ended
        self._shown = 0  # characters of the current one

    def feed(self, token: int) -> Piece | None:
        """Returns the piece that a token adds; None between messages."""
        self._ids.append(token)
        spans = self._template.split(self._ids)
        if len(spans) == self._messages:
            return None
        channel, _, text, _, ended = spans[self._messages]
        piece = Piece(channel, text[self._shown :], ended)
        self._messages, self._shown = self._messages + ended, 0 if ended else len(text)
        return piece
