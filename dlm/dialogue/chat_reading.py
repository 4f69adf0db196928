"""Reads what a model wrote after a chat template's prompt: light tags, calls, and a reply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlm.dialogue.chat_messages import TAGS, CallSyntax, Form
from dlm.dialogue.chat_spelling import Spelling, find, held_back
from dlm.dialogue.schema import CHANNELS
from dlm.dialogue.template import Span, decoded
from dlm.dialogue.tokenizer import Tokenizer


class TagReader:
    """Finds light tags among ids; only as the template writes them, never spelled by a text."""

    def __init__(self, spelling: Spelling) -> None:
        self.opening = {tag: spelling.literal(f"<{tag}>") for tag in TAGS}
        self.closing = {tag: spelling.literal(f"</{tag}>") for tag in TAGS}
        self.gap = spelling.literal("\n")
        self.space = spelling.literal(" ")

    def at(self, ids: Sequence[int], place: int) -> str:
        """The tag that begins at a place; "" where none does."""
        tags = (t for t, opening in self.opening.items() if find(ids, opening, place) == place)
        return max(tags, key=lambda tag: len(self.opening[tag]), default="")

    def behind(self, ids: Sequence[int], before: Sequence[int]) -> int:
        """Where a tag begins that stands behind some ids at the start; 0 where there is none."""
        place = len(before)
        return place if list(ids[:place]) == list(before) and self.at(ids, place) else 0

    def parts(self, ids: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
        """Yields the tag and ids of each part of a message that is whole; "" for what has none.

        Raises:
          ValueError: a tag is not closed.
        """
        place = 0
        while True:
            tag = self.at(ids, place)
            begin = place + len(self.opening[tag]) if tag else place
            stop = find(ids, self.closing[tag], begin) if tag else self._next(ids, begin)
            if stop < 0:
                raise ValueError(f"<{tag}> at {place} is not closed")
            yield tag, list(ids[begin:stop])
            place = stop + (len(self.closing[tag]) if tag else 0)
            if place == len(ids):
                return
            if find(ids, self.gap, place) != place:
                raise ValueError(f"at {place}: a line begins behind a tag")
            place += len(self.gap)

    def _next(self, ids: Sequence[int], begin: int) -> int:
        """Where text without a tag ends: at the line of the next one."""
        places = (find(ids, [*self.gap, *opening], begin) for opening in self.opening.values())
        return min((place for place in places if place >= 0), default=len(ids))


class BlockReader:
    """Reads one block of the assistant.

    Args:
      tokenizer: of the model.
      spelling: of its template.
      form: what the template can do.
      ends: control tokens that end a block.
      spaced: a space before the first word is the template's.

    Attributes:
      written: control tokens that a block may hold.
      tags: finds light tags.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        spelling: Spelling,
        form: Form,
        ends: frozenset[int],
        spaced: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self.tags = TagReader(spelling)
        self._calls = form.calls
        self._ends = ends
        self._spaced = spaced
        before, after = (form.calls.before, form.calls.after) if form.calls else ("", "")
        self._marker = spelling.literal(before.strip())
        used = [*self._marker, *spelling.literal(after)]
        self.written = frozenset(i for i in used if tokenizer.control_name(i))

    def split(self, ids: Sequence[int]) -> list[Span]:
        """Returns the messages of a block, the last one as far as it is written.

        Text before a call, where no tag says what it is, is read as `reason`.
        """
        stop = next((i for i, token in enumerate(ids) if token in self._ends), None)
        body, ended = list(ids[:stop]), stop is not None
        spans: list[Span] = []
        place = self.tags.behind(body, self.tags.space) if self._spaced else 0
        place = place or self.tags.behind(body, self.tags.gap)
        while tag := self.tags.at(body, place):
            begin = place + len(self.tags.opening[tag])
            close = find(body, self.tags.closing[tag], begin)
            channel = tag if tag in CHANNELS else ""
            if close < 0:
                kept = len(body) - (0 if ended else held_back(body, self.tags.closing[tag]))
                return [*spans, self._span(channel, body[begin:kept], place, False)]
            spans.append(self._span(channel, body[begin:close], place, True))
            place = close + len(self.tags.closing[tag])
            if place == len(body):
                return spans
            if find(body, self.tags.gap, place) != place:
                return [*spans, self._span("", body[place:], place, ended)]
            place += len(self.tags.gap)
        return [*spans, *self._untagged(body, place, ended)]

    def _untagged(self, body: list[int], place: int, ended: bool) -> list[Span]:
        rest = body[place:]
        if not ended and self._undecided(rest):
            return []
        called = find(body, self._marker, place) if self._marker else -1
        if called >= 0:
            text = self._decoded(rest[: called - place], ended=True).strip()
            reason = self._span("reason", body[place:called], place, True)._replace(text=text)
            return [*([reason] if text else []), *self._called(body, called, ended)]
        if self._calls and not self._marker and ended and self._read(rest):
            return self._called(body, place, ended)
        kept = len(rest) - (0 if ended or not self._marker else held_back(rest, self._marker))
        return [self._span("reply", rest[:kept], place, ended)]

    def _undecided(self, rest: Sequence[int]) -> bool:
        """Whether what is written so far may become a tag or a call, or is nothing yet."""
        begun = [*self.tags.opening.values(), self._marker]
        if self._spaced and list(rest[: len(self.tags.space)]) == self.tags.space:
            rest = rest[len(self.tags.space) :]
        if not rest or any(held_back(rest, opening) == len(rest) for opening in begun):
            return True
        bare = self._calls is not None and not self._marker
        return bare and self._decoded(rest, ended=False).lstrip()[:1] in ("{", "[")

    def _called(self, body: list[int], place: int, ended: bool) -> list[Span]:
        """The calls of the template's syntax; one that cannot be read is kept as its text."""
        ids = body[place:]
        if not ended:  # a call is shown once it is whole
            return [Span("call", [], "", place, False)]
        calls = self._read(ids)
        if calls is None:
            texts = [self._spelled(ids)]
        else:
            texts = [json.dumps(call, ensure_ascii=False) for call in calls]
        shown = [i for i in ids if self._tokenizer.control_name(i) is None]
        return [
            Span("call", [] if number else shown, text, place, True)
            for number, text in enumerate(texts)
        ]

    def _read(self, ids: Sequence[int]) -> list[dict[str, Any]] | None:
        """The calls that ids spell; None where they spell anything else.

        What name and arguments are is checked where the call becomes a message.
        """
        assert self._calls is not None
        syntax, calls = self._calls, []
        if any(self._tokenizer.control_name(i) and i not in self.written for i in ids):
            return None
        for text in self._objects(self._spelled(ids).strip(), syntax):
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                return None
            for item in value if syntax.listed and isinstance(value, list) else [value]:
                if not _is_call(item, syntax):
                    return None
                name, arguments = item[syntax.name_key], item[syntax.arguments_key]
                calls.append({"name": name, "arguments": arguments})
        return calls or None

    def _objects(self, text: str, syntax: CallSyntax) -> list[str]:
        """The JSON texts between the template's own."""
        before, after = syntax.before.strip(), syntax.after.strip()
        if not before and not after:
            return [text]
        pattern = re.escape(before) + r"\s*(.*?)\s*" + (re.escape(after) or "$") + r"\s*"
        found, at = [], 0
        while at < len(text):
            place = re.compile(pattern, re.DOTALL).match(text, at)
            if place is None:
                return [""]
            found.append(place[1])
            at = place.end()
        return found

    def _span(self, channel: str, ids: list[int], start: int, ended: bool) -> Span:
        text = self._decoded(ids, ended)
        if self._spaced and start == 0 and channel == "reply":
            text = text.removeprefix(" ")
        return Span(channel, ids, text, start, ended)

    def _decoded(self, ids: Sequence[int], ended: bool) -> str:
        return decoded(self._tokenizer, ids, ended)

    def _spelled(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens by their names."""
        name, piece = self._tokenizer.control_name, self._tokenizer.token_bytes
        bytes_of = ((name(i) or "").encode() or piece(i) for i in ids)
        return b"".join(bytes_of).decode("utf-8", errors="replace")


def _is_call(item: Any, syntax: CallSyntax) -> bool:
    wanted = {syntax.name_key, syntax.arguments_key}
    return isinstance(item, Mapping) and wanted <= item.keys() <= wanted | {"id", "type"}
