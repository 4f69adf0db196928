r"""States and acts as one line of text, and back: what corpora write and scorers read.

    state    area=east; food=chinese                 slots sorted; an empty state is an empty text
    acts     inform(food=chinese); request(area)     in their order; an act without slots is a word

A slot is `slot=value`, or in acts also a bare `slot`. Values are what the source says, "dontcare"
and its like included. Spaces round names and values are not kept. A character that has a meaning
where it stands is written with a backslash before it, and a line break as `\n`, so that reading
gives back what was written, whatever a value holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_ESCAPED = re.compile(r"\\(.)")


class Act(NamedTuple):
    """A dialogue act: its name, and (slot, value) pairs; a value of None is a slot alone."""

    name: str
    slots: tuple[tuple[str, str | None], ...] = ()


def spell_state(state: Mapping[str, str]) -> str:
    """The line of a state: slot -> value."""
    pairs = sorted((slot.strip(), value.strip()) for slot, value in state.items())
    return "; ".join(f"{_escape(slot, '=;')}={_escape(value, ';')}" for slot, value in pairs)


def parse_state(text: str) -> dict[str, str]:
    """The state that a line spells; `parse_state(spell_state(state)) == state`.

    Raises:
      ValueError: a part is no `slot=value`, or a slot stands twice.
    """
    state: dict[str, str] = {}
    for part in _split(text, ";") if text.strip() else []:
        slot, value = _pair(part)
        if value is None or slot in state:
            problem = "is no slot=value" if value is None else "names a slot that stood before"
            raise ValueError(f"state {text!r}: {part.strip()!r} {problem}")
        state[slot] = value
    return state


def spell_acts(acts: Iterable[Act]) -> str:
    """The line of acts, in their order."""
    return "; ".join(
        _escape(act.name.strip(), "(;") + (f"({_spell_slots(act)})" if act.slots else "")
        for act in acts
    )


def parse_acts(text: str) -> tuple[Act, ...]:
    """The acts that a line spells; `parse_acts(spell_acts(acts)) == acts`.

    Raises:
      ValueError: a part is no `act`, nor `act(slot, slot=value)`.
    """
    return tuple(_parse_act(part) for part in _split(text, ";")) if text.strip() else ()


def _spell_slots(act: Act) -> str:
    return ", ".join(
        _escape(slot.strip(), "=,;()")
        + ("" if value is None else f"={_escape(value.strip(), ',;()')}")
        for slot, value in act.slots
    )


def _parse_act(part: str) -> Act:
    name, *rest = _split(part, "(")
    if not name.strip() or len(rest) > 1 or (rest and not _is_closed(rest[0].rstrip())):
        raise ValueError(f"act {part.strip()!r} is no act(slot=value, ...)")
    if not rest:
        return Act(_unescape(name))
    return Act(_unescape(name), tuple(_pair(slot) for slot in _split(rest[0].rstrip()[:-1], ",")))


def _is_closed(text: str) -> bool:
    return len(_split(text, ")")) == 2 and text.endswith(")")


def _pair(part: str) -> tuple[str, str | None]:
    slot, *value = _split(part, "=", 1)
    return _unescape(slot), _unescape(value[0]) if value else None


def _split(text: str, mark: str, times: int = 0) -> list[str]:
    """The text cut at marks that no backslash precedes; `times` 0: at all."""
    parts, start = list[str](), 0
    for found in re.finditer(rf"\\.|{re.escape(mark)}", text, re.DOTALL):
        if found[0] == mark and (not times or len(parts) < times):
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def _escape(text: str, marks: str) -> str:
    text = re.sub(rf"[\\{re.escape(marks)}]", r"\\\g<0>", text)
    return text.replace("\n", r"\n")


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text.strip())
