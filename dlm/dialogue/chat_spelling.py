"""What a chat template writes, as ids: its literals may hold control tokens, our text never does.

Text is encoded apart from the literals around it, but for a space: one that a literal ends with is
encoded with the text behind it, as it would be elsewhere. Words that the template marks roles with
but that are no control tokens, and our light tags, are spelled character by character where they
stand in a text; so they read the same and cannot be taken for the template's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from dlm.dialogue.chat_messages import CLOSE, CUT, HERE, NEXT, OPEN, TAGS, unmarked
from dlm.dialogue.tokenizer import Tokenizer

_MARKED = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}|({CUT})|({NEXT})")


class Piece(NamedTuple):
    """Some ids of what is written.

    Attributes:
      kind: "literal", "text" of a message, or "next" where a message ends.
      ids: of the piece.
    """

    kind: str
    ids: list[int]


class Spelling:
    """Writes marked text as ids for one tokenizer.

    Args:
      tokenizer: gives the ids.
      markers: words of the template that text must not be taken for; the tags are added.

    Attributes:
      control: matches the names of control tokens.
      guard: matches these and all markers.
    """

    def __init__(self, tokenizer: Tokenizer, markers: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        self._lead = tokenizer.space_before
        names = filter(None, map(tokenizer.control_name, range(tokenizer.vocab_size)))
        tags = [form.format(tag) for tag in TAGS for form in ("<{}>", "</{}>")]
        known = sorted([*tags, *markers], key=len, reverse=True)
        listed = sorted(names, key=len, reverse=True)
        self.control = _any_of(listed)
        self.guard = _any_of(sorted([*known, *listed], key=len, reverse=True))
        self._markers = _any_of(known)
        self._literal = lru_cache(maxsize=4096)(self._spelled)  # a template has few literals

    def pieces(self, marked: str, *, start: bool = False, behind: bool = False) -> list[Piece]:
        """Returns a stretch of what was rendered, as ids.

        Args:
          marked: the stretch; its marks are obeyed.
          start: it stands at the beginning of all.
          behind: it stands behind a control token.
        """
        found: list[Piece] = []
        at, lead = 0, (start and self._lead != "never") or (behind and self._lead == "always")
        marked = marked.replace(HERE, "")
        for place in (*_MARKED.finditer(marked), None):
            literal = marked[at : place.start() if place else len(marked)]
            text = place is not None and place[1] is not None
            spaced = place is not None and literal.endswith(" ")
            found += self._literal(literal[:-1] if spaced else literal, lead)
            if spaced and not text:
                found += self._literal(" ", False)
            if literal:
                behind = self._is_control(found[-1].ids[-1]) if found and found[-1].ids else False
                lead = behind and self._lead == "always" and not spaced
            if place is None:
                break
            at = place.end()
            if text:
                found.append(Piece("text", self.text(unmarked(place[1]), spaced or lead)))
            elif place[3]:
                found.append(Piece("next", []))
            lead = False
        return found

    def text(self, text: str, spaced: bool = False) -> list[int]:
        """Returns the ids of a message's text, of a space before it first."""
        parts: list[str] = []
        at = 0
        for place in self._markers.finditer(text):
            parts += [text[at : place.start()], *place[0]]
            at = place.end()
        parts = [part for part in (*parts, text[at:]) if part] or [""]
        parts[0] = f" {parts[0]}" if spaced else parts[0]
        return [i for ids in self._tokenizer.encode_many(parts) for i in ids]

    def literal(self, text: str) -> list[int]:
        """Returns the ids of a literal, the names of control tokens in it as these."""
        return [i for piece in self._literal(text, False) for i in piece.ids]

    def _is_control(self, token: int) -> bool:
        return self._tokenizer.control_name(token) is not None

    def _spelled(self, text: str, lead: bool) -> list[Piece]:
        pieces, at = [], 0
        for place in (*self.control.finditer(text), None):
            plain = text[at : place.start() if place else len(text)]
            if plain:
                spelled = unmarked(f" {plain}" if lead else plain)
                pieces.append(Piece("literal", self._tokenizer.encode(spelled)))
            if place is None:
                break
            pieces.append(Piece("literal", [self._tokenizer.control(place[0])]))
            at, lead = place.end(), self._lead == "always"
        return [piece for piece in pieces if piece.ids]


def find(ids: Sequence[int], wanted: Sequence[int], start: int = 0) -> int:
    """Returns where some ids first stand in others, -1 where they do not."""
    last = len(ids) - len(wanted)
    places = range(start, last + 1)
    return next((i for i in places if list(ids[i : i + len(wanted)]) == list(wanted)), -1)


def held_back(ids: Sequence[int], wanted: Sequence[int]) -> int:
    """Returns how many ids at the end may be the beginning of others."""
    sizes = range(min(len(ids), len(wanted) - 1), 0, -1)
    return next((n for n in sizes if list(ids[-n:]) == list(wanted[:n])), 0)


def _any_of(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, words)) or r"(?!)")
