"""The marked text that a chat template wrote, cut into messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from dlm.dialogue.chat_messages import CLOSE, HERE, NEXT, Chat, Part
from dlm.dialogue.chat_spelling import Piece
from dlm.dialogue.template import Rejected, RenderedMessage

if TYPE_CHECKING:
    from dlm.dialogue.chat_template import ChatTemplate


class Cut(NamedTuple):
    """Where a block stands in the marked text.

    Attributes:
      chat: index of the message.
      begin: end of the prompt for it.
      stop: end of what the template writes up to it.
    """

    chat: int
    begin: int
    stop: int


class Assembly:
    """Cuts a marked text into messages; what is read becomes header, text becomes output."""

    def __init__(self, template: ChatTemplate, dialogue: str) -> None:
        self._template = template
        self._dialogue = dialogue
        self._whole = ""
        self._waiting: list[int] = []  # ids that belong to the next message's header
        self.messages: list[RenderedMessage] = []
        self.pieces: list[Piece] = []

    def build(self, found: Sequence[Chat], whole: str, cuts: Sequence[Cut]) -> list[int]:
        """Fills `messages` from the marked text of chats; returns the ids behind the last one."""
        self._whole = whole
        if self._template.bos and not self._whole.startswith(self._template.bos):
            self._waiting.append(self._template.tokenizer.control(self._template.bos))
            self.pieces.append(Piece("literal", list(self._waiting)))
        at = chat = 0
        for cut in cuts:
            self._read(at, cut.begin, found[chat : cut.chat])
            end = self._end(cut)
            self._write(cut.begin, end, found[cut.chat])
            self._read(end, cut.stop, ())
            at, chat = cut.stop, cut.chat + 1
        self._read(at, len(self._whole), found[chat:])
        return self._waiting

    def _end(self, cut: Cut) -> int:
        """Where the token that ends a block ends."""
        said = max(self._whole.rfind(mark, cut.begin, cut.stop) for mark in (CLOSE, HERE))
        found = self._whole.find(self._template.end, max(said, cut.begin), cut.stop)
        if found < 0:
            detail = f"{self._template.end} does not end what the assistant says"
            raise Rejected(self._dialogue, "changed by the chat template", detail)
        return found + len(self._template.end)

    def _pieces(self, text: str) -> list[Piece]:
        name = self._template.tokenizer.control_name
        last = next((piece.ids[-1] for piece in reversed(self.pieces) if piece.ids), None)
        behind = last is not None and name(last) is not None
        new = self._template.spelling.pieces(text, start=last is None, behind=behind)
        self.pieces += new
        return new

    def _read(self, begin: int, stop: int, found: Sequence[Chat]) -> None:
        parts = [part for chat in found for part in chat.parts]
        for piece in self._pieces(self._whole[begin:stop]):
            if piece.kind == "text":
                self._take(parts.pop(0), piece.ids)
            else:
                self._waiting += piece.ids

    def _write(self, begin: int, stop: int, chat: Chat) -> None:
        parts, ids = [*chat.parts, *chat.calls], list[int]()
        for piece in self._pieces(self._divided(self._whole[begin:stop])):
            ids += piece.ids
            if piece.kind == "next":
                self._take(parts.pop(0), ids)
                ids = []
        (last,) = parts
        self._take(last, ids)

    def _divided(self, block: str) -> str:
        """Sets a mark where each call but the first of a block begins."""
        syntax = self._template.form.calls
        places = [i for i, character in enumerate(block) if character == HERE][1:]
        opening = syntax.before.strip() if syntax and not syntax.listed else ""
        for place in reversed(places):
            begin = block.rindex(opening or "{", 0, place)
            block = block[:begin] + NEXT + block[begin:]
        return block

    def _take(self, part: Part, output: list[int]) -> None:
        header, self._waiting = self._waiting, []
        if not self.messages and header:  # what stands before all is kept whatever is dropped
            self.messages.append(RenderedMessage(header, [], "system", None, -1))
            header = []
        self.messages.append(RenderedMessage(header, output, part.role, part.channel, part.index))
