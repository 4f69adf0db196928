"""A user of the concierge who pursues a goal: the bookings with which a dialogue ended.

The user asks for one booking after the other, gives some slots at once and the others as the
assistant requests them, says everything again where it is misunderstood, and thanks at the end. How
it is said is drawn from the phrases of the corpus, by the dialogue's id.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from dlm.corpora.concierge import phrases
from dlm.corpora.concierge.script import NEEDED
from dlm.corpora.concierge.world import world as open_world
from dlm.dialogue.actions import World
from dlm.dialogue.schema import Dialogue, Message

PATIENCE = 6  # answers to one booking


def user(dialogue: Dialogue) -> ConciergeUser | None:
    """A user who wants the bookings that the dialogue ended with; None where there are none."""
    wanted = dialogue.meta.get("end_state")
    if not wanted:
        return None
    graph = open_world(dialogue).graph
    items = {kind: item for item, kinds in phrases.OBJECTS.items() for kind in kinds}
    goals = []
    for booking in wanted:
        item = items[graph.objects(booking["place"], "kind")[0]]
        goals.append((item, {slot: booking[slot] for slot in NEEDED[item]}))
    return ConciergeUser(goals, wanted, random.Random(dialogue.id))


class ConciergeUser:
    """Books, one after the other.

    Args:
      goals: of each booking its item (table, room, tickets) and its slots.
      end_state: how the world is to end.
      rng: decides the wording, and what is said at once.
    """

    def __init__(
        self,
        goals: Sequence[tuple[str, Mapping[str, Any]]],
        end_state: object,
        rng: random.Random,
    ) -> None:
        self._open = list(goals)
        self._end_state = end_state
        self._rng = rng
        self._booked = 0
        self._answers = PATIENCE
        self._waiting = False  # for a booking to be made

    def say(self, heard: Sequence[Message]) -> str | None:
        """The next message: a request, an answer, thanks; None after thanks, or out of patience."""
        if self._waiting and _act(heard) == "confirm":
            self._open.pop(0)
            self._waiting, self._answers = False, PATIENCE
            self._booked += 1
            if not self._open:
                return phrases.thanks(self._rng)
        if not self._open or not self._answers:
            return None
        item, slots = self._open[0]
        if not self._waiting:
            self._waiting = True
            return self._request(item, slots)
        self._answers -= 1
        return self._answer(slots, _act(heard))

    def is_served(self, conversation: Dialogue, world: World) -> bool:
        """Whether the world ends with the bookings wanted and no others."""
        del conversation
        return world.state() == self._end_state

    def _request(self, item: str, slots: Mapping[str, Any]) -> str:
        given = [slot for slot in slots if self._rng.random() < 0.6]
        said = {slot: phrases.slot_phrase(self._rng, slot, slots[slot]) for slot in given}
        return phrases.request(self._rng, item, said, first=not self._booked)

    def _answer(self, slots: Mapping[str, Any], act: str) -> str:
        """What was requested, or everything where that is not understood."""
        asked = act.removeprefix("request ")
        values = {asked: slots[asked]} if asked in slots else dict(slots)
        return phrases.answer(self._rng, values)


def _act(heard: Sequence[Message]) -> str:
    """The last act that was written; "" without one."""
    acts = [str(message.content) for message in heard if message.channel == "act"]
    return acts[-1] if acts else ""
