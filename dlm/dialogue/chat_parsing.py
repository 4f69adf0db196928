"""Ids that a chat template wrote, read back as messages.

Every role is tried for each message in turn and kept as long as the template would write these
ids, so whatever a template does with roles can be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dlm.core.errors import UserError
from dlm.dialogue.chat_messages import Chat, Part, name_results
from dlm.dialogue.chat_reading import TagReader
from dlm.dialogue.chat_spelling import find
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.template import decoded, spoken_message

if TYPE_CHECKING:
    from dlm.dialogue.chat_template import ChatTemplate

KINDS = ("user", "assistant", "call", "tool", "system")  # a call: a block that is nothing else


class Slot(NamedTuple):
    """Where a text stands: the ids before it, and whether a space of the template's is with it."""

    kind: str
    before: list[int]
    spaced: bool


class Parser:
    """Reads ids for one template and list of tools."""

    def __init__(
        self, template: ChatTemplate, tags: TagReader, tools: Sequence[Mapping[str, Any]]
    ) -> None:
        self._template = template
        self._tags = tags
        self._tools = tuple(tools)
        self._kinds = [kind for kind in KINDS if kind != "call" or template.form.calls]

    def parse(self, ids: list[int]) -> list[Message]:
        """Returns the messages that ids spell; see `ChatTemplate.parse`."""
        found = self._search(ids, (), sure=True) if ids else []
        if found is None:
            raise ValueError("the chat template writes no dialogue so")
        return found

    def _search(self, ids: list[int], kinds: tuple[str, ...], sure: bool) -> list[Message] | None:
        """Returns the messages that ids spell and that begin with these kinds."""
        for kind in self._kinds:
            longer = (*kinds, kind)
            tried = self._slots(longer)
            if tried is not None:
                held, whole = _match(ids, *tried)
                texts = zip(tried[0], held[:-1], strict=False)
                if not held or not all(self._may_be_text(slot, text) for slot, text in texts):
                    continue
                read = self._read(tried[0], held) if whole else None
                if read is not None and self._spells(read, ids):
                    return read
            # What the template refuses may be the beginning of what it takes.
            if (tried or sure) and len(longer) < len(ids):
                found = self._search(ids, longer, sure=tried is not None)
                if found is not None:
                    return found
        return None

    def _slots(self, kinds: Sequence[str]) -> tuple[list[Slot], list[int]] | None:
        """Returns where texts stand in messages of these kinds, and the ids behind; or None."""
        found = [_chat(kind, index) for index, kind in enumerate(kinds)]
        name_results(found)
        try:
            messages, rest = self._template.assembled(Dialogue("", (), tools=self._tools), found)
        except UserError:
            return None
        slots, before = [], list[int]()
        for message in messages:
            before = before + message.header
            if message.message_index < 0:
                continue
            kind = kinds[message.message_index]
            output, behind = message.output, list[int]()
            if kind in ("assistant", "call"):
                output, behind = output[:-1], output[-1:]
            spaced = kind != "call" and self._template.tokenizer.decode(output) != "x"
            slots.append(Slot(kind, before, spaced))
            before = behind
        return slots, before + rest

    def _may_be_text(self, slot: Slot, ids: list[int]) -> bool:
        """Whether the template would write a text so, where no call is in it."""
        tokenizer = self._template.tokenizer
        if slot.kind in ("assistant", "call"):
            names = (i for i in ids if tokenizer.control_name(i) is not None)
            return all(i in self._template.written for i in names)
        try:
            parts = [content for tag, content in self._parts(slot, ids)]
        except ValueError:
            return False
        texts = (decoded(tokenizer, content, ended=True) for content in parts)
        return parts == [self._template.spelling.text(text) for text in texts]

    def _spells(self, messages: list[Message], ids: list[int]) -> bool:
        dialogue = Dialogue("", tuple(messages), tools=self._tools)
        try:
            rendered = self._template.render(dialogue)
        except UserError:
            return False
        return ids == [i for message in rendered for i in message.ids]

    def _read(self, slots: Sequence[Slot], held: Sequence[list[int]]) -> list[Message] | None:
        """Returns what the texts of messages of the template say; None where one is malformed."""
        messages: list[Message] = []
        try:
            for slot, ids in zip(slots, held, strict=True):
                blocks = slot.kind in ("assistant", "call")
                messages += self._block(ids) if blocks else self._said(slot, ids)
        except ValueError:
            return None
        return _named(messages)

    def _block(self, ids: list[int]) -> list[Message]:
        spans = self._template.split([*ids, min(self._template.ends)])
        if not all(span.ended and span.channel for span in spans):
            raise ValueError("a block of the assistant is malformed")
        return [spoken_message("assistant", span.channel, span.text) for span in spans]

    def _parts(self, slot: Slot, ids: list[int]) -> Iterator[tuple[str, list[int]]]:
        tags = self._tags
        return tags.parts(ids[tags.behind(ids, tags.space) if slot.spaced else 0 :])

    def _said(self, slot: Slot, ids: list[int]) -> list[Message]:
        messages: list[Message] = []
        for tag, content in self._parts(slot, ids):
            text = decoded(self._template.tokenizer, content, ended=True)
            if slot.spaced and not tag and not messages:
                text = text.removeprefix(" ")
            if tag == "tool":
                messages.append(spoken_message("tool", None, text))
            elif tag != "tools":
                messages.append(Message(tag or slot.kind, text))
        return messages


def _chat(kind: str, index: int) -> Chat:
    if kind == "call":
        call = Part("assistant", "call", index, "", "call", ("x", {}))
        return Chat("assistant", [], [call])
    return Chat(kind, [Part(kind, None, index, "x")], names={"name": ""})


def _match(ids: list[int], slots: Sequence[Slot], last: list[int]) -> tuple[list[list[int]], bool]:
    """Returns the ids in the slots, and whether the last ones end all; [] for no match."""
    first = slots[0].before
    if ids[: len(first)] != first:
        return [], False
    held, place = [], len(first)
    for slot in slots[1:]:
        stop = find(ids, slot.before, place)
        if stop < 0:
            return [], False
        held.append(ids[place:stop])
        place = stop + len(slot.before)
    stop = len(ids) - len(last)
    held.append(ids[place:stop])
    return held, find(ids, last, place) == stop


def _named(messages: Sequence[Message]) -> list[Message]:
    """Returns messages whose results have the names of the calls that they answer."""
    waiting: list[str | None] = []
    named = []
    for message in messages:
        if message.role == "user":
            waiting = []
        if message.channel == "call":
            waiting.append(message.name)
        if message.role == "tool" and waiting:
            known = message.name in waiting
            answered = waiting.pop(waiting.index(message.name) if known else 0)
            message = replace(message, name=message.name or answered)
        named.append(message)
    return named
