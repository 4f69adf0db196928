"""A dialogue being written: the user's words come in, the assistant's rounds are decided here.

What the assistant writes is a function of the dialogue so far, results included: there is no
random choice in this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dlm.corpora.concierge.world import SLOTS, CityWorld
from dlm.dialogue.schema import Message

NEEDED = {
    "table": ("place", "people", "day", "meal"),
    "room": ("place", "people", "day"),
    "tickets": ("place", "people", "day"),
}
_ASK_FOR = {
    "place": "At which place?",
    "people": "For how many people?",
    "day": "For which day?",
    "meal": "For which meal?",
}
_TELL = {
    "owner": "The owner is {}.",
    "street": "It is on {}.",
    "price": "It is in the {} price range.",
    "cuisine": "It serves {} food.",
    "closed": "It is closed on {}.",
    "opened": "It opened in {}.",
    "near": "Near it are {}.",
    "home": "The address is {}.",
}


@dataclass
class Booking:
    """What is being booked: a table, a room or tickets, and the slots known so far."""

    item: str
    slots: dict[str, Any] = field(default_factory=dict)
    reference: str = ""

    @property
    def missing(self) -> list[str]:
        """The slots that are still to be asked for, in order."""
        return [slot for slot in NEEDED[self.item] if slot not in self.slots]

    @property
    def state(self) -> str:
        """What the state channel says."""
        known = [f"{slot}: {self.slots[slot]}" for slot in SLOTS if slot in self.slots]
        return "; ".join(known) or "none"

    @property
    def terms(self) -> str:
        """What was agreed, in words."""
        meal = f" for {self.slots['meal']}" if "meal" in self.slots else ""
        return "{place} for {people} on {day}".format(**self.slots) + meal


@dataclass(frozen=True)
class Hop:
    """One call on the way to an answer; its subject is what the call before found.

    Attributes:
      tool: `ask`, or `find`.
      relation: the relation asked for, or by which the place is found.
      criteria: of `find`, what else the place must agree with.
    """

    tool: str
    relation: str
    criteria: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """The hop in a chain of reasons, e.g. `owner` or `near cheap restaurant`."""
        words = [value for _, value in self.criteria]
        if self.tool == "ask" or self.relation != "owner":
            words.insert(0, self.relation)
        return " ".join(words)


class Script:
    """Writes one dialogue over one city; calls are executed as they are written.

    Attributes:
      messages: what was said so far.
      names: the drawn names and references that were said, each once.
    """

    def __init__(self, world: CityWorld) -> None:
        self.world = world
        self.messages: list[Message] = []
        self.names: dict[str, None] = {}

    def user(self, text: str, *names: str) -> None:
        """The user speaks, saying the given names."""
        self._note(*names)
        self.messages.append(Message("user", text))

    def greet(self) -> None:
        """Answers a greeting."""
        self._write("intent", "greet")
        self._reply("greet", "Hello. What can I do for you?")

    def close(self) -> None:
        """Answers thanks."""
        self._write("intent", "thanks")
        self._reply("close", "You are welcome.")

    def decline(self) -> None:
        """Answers what is out of scope."""
        self._write("intent", "out_of_scope")
        self._reply("decline", "Sorry, I cannot help with that.")

    def pursue(self, booking: Booking) -> None:
        """Asks for the first missing slot, or books and keeps the reference."""
        self._write("intent", f"book {booking.item}")
        self._write("state", booking.state)
        if booking.missing:
            self._write("reason", f"missing: {', '.join(booking.missing)}")
            self._reply(f"request {booking.missing[0]}", _ASK_FOR[booking.missing[0]])
        else:
            arguments = {slot: booking.slots[slot] for slot in NEEDED[booking.item]}
            result = self._call("book", **arguments)
            if not result.startswith("booked "):
                self._refuse(result)
            else:
                booking.reference = result.removeprefix("booked ")
                self._note(booking.reference)
                self._reply("confirm", f"Booked, reference {booking.reference}.")

    def change(self, booking: Booking, slots: dict[str, Any]) -> bool:
        """Changes a booking that was made; returns whether it could be done."""
        booking.slots.update(slots)
        self._write("intent", "change")
        self._write("state", booking.state)
        changed = {slot: slots[slot] for slot in SLOTS if slot in slots}
        result = self._call("change", reference=booking.reference, **changed)
        if result != "changed":
            self._refuse(result)
            return False
        self._reply("confirm", "The booking is changed.")
        return True

    def cancel(self, booking: Booking) -> None:
        """Cancels a booking that was made."""
        self._write("intent", "cancel")
        self._call("cancel", reference=booking.reference)
        self._reply("confirm", "The booking is cancelled.")

    def ask(self, about: str, relation: str) -> None:
        """Answers a question by one call."""
        self._write("intent", "ask")
        self._tell(relation, self._call("ask", about=about, relation=relation))

    def find(self, criteria: dict[str, str]) -> str:
        """Offers a place that agrees with the criteria; returns it, or an empty string."""
        self._write("intent", "find")
        return self._offer(self._call("find", **criteria))

    def follow(self, start: str, hops: Sequence[Hop]) -> str:
        """Answers over several hops, one call a hop, the rest of the chain as the reason.

        Returns:
          The place that is offered, or an empty string.
        """
        self._write("intent", "chain")
        found = start
        for index, hop in enumerate(hops):
            chain = [found, *(hop.label for hop in hops[index:])]
            self._write("reason", " > ".join(chain))
            if hop.tool == "ask":
                found = self._call("ask", about=found, relation=hop.relation)
            else:
                found = self._call("find", **dict(hop.criteria), **{hop.relation: found})
            if found == "none":
                return self._offer(found)
            if index + 1 < len(hops):
                self._note(found)
        if hops[-1].tool == "find":
            return self._offer(found)
        self._tell(hops[-1].relation, found)
        return ""

    def summarise(self, bookings: Sequence[Booking]) -> None:
        """Says what is booked, from what was said before."""
        self._write("intent", "summary")
        terms = "; ".join(f"{b.terms}, reference {b.reference}" for b in bookings)
        self._reply("summarise", f"Booked: {terms}." if bookings else "Nothing is booked.")

    def _refuse(self, result: str) -> None:
        """Tells why a booking or a change could not be made, and asks for another value."""
        if result == "unknown place":
            self._reply("refuse", "I do not know that place. At which other place?")
        else:
            self._reply("refuse", f"It is {result}. For which other day?")

    def _tell(self, relation: str, result: str) -> None:
        if result == "unknown":
            self._reply("refuse", "I cannot answer that.")
        else:
            if relation in ("owner", "street", "near", "home"):
                self._note(*result.removesuffix(" Street").split(" and "))
            self._reply(f"inform {relation}", _TELL[relation].format(result))

    def _offer(self, result: str) -> str:
        if result == "none":
            self._reply("refuse", "I found none.")
            return ""
        self._note(result)
        self._reply("offer", f"That would be {result}.")
        return result

    def _write(self, channel: str, text: str) -> None:
        self.messages.append(Message("assistant", text, channel))

    def _reply(self, act: str, text: str) -> None:
        self._write("act", act)
        self._write("reply", text)

    def _call(self, name: str, **arguments: Any) -> str:
        result = self.world.tools[name].function(**arguments)
        self.messages.append(Message("assistant", channel="call", name=name, arguments=arguments))
        self.messages.append(Message("tool", result, name=name))
        return result

    def _note(self, *names: str) -> None:
        self.names.update(dict.fromkeys(names))
