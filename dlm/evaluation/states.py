"""Gold and written dialogue states, side by side; read by the scorers of states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dlm.dialogue.schema import Message
from dlm.dialogue.slots import parse_state
from dlm.evaluation.scoring import Example, said

NORMALISED = "values in lower case, single spaces; one of several recorded spellings is enough"


class States(NamedTuple):
    """The states of one response.

    Attributes:
      gold: slot -> all the spellings that count as its value.
      written: slot -> value; empty where no state, or none that can be read, was written.
    """

    gold: Mapping[str, tuple[str, ...]]
    written: Mapping[str, str]

    def is_right(self, slot: str) -> bool:
        """Whether the slot is written with a gold value."""
        return self.written.get(slot) in self.gold.get(slot, ())


def states(examples: Sequence[Example]) -> Iterator[States]:
    """The states of each response whose gold has one that can be read."""
    for example in examples:
        for prediction in example.predictions:
            gold = [message for message in prediction.gold if message.channel == "state"]
            if gold and (accepted := _accepted(gold[0])) is not None:
                text = said(prediction.predicted, "state") or ""
                yield States(accepted, {s: _plain(v) for s, v in (_read(text) or {}).items()})


def _accepted(message: Message) -> dict[str, tuple[str, ...]] | None:
    state = _read(str(message.content))
    if state is None:
        return None
    several = message.meta.get("values", {})
    return {slot: tuple(map(_plain, several.get(slot, [value]))) for slot, value in state.items()}


def _read(text: str) -> dict[str, str] | None:
    try:
        return parse_state(text)
    except ValueError:
        return None


def _plain(value: str) -> str:
    return " ".join(value.lower().split())
