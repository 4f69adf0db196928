"""The concierge's tools over the graph of one city: ask, find, book, change, cancel."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from dlm.corpora.concierge.city import CUISINES, DAYS, KINDS, PRICES, RELATIONS, City, build_city
from dlm.corpora.concierge.names import draw_reference
from dlm.dialogue.actions import Tool
from dlm.dialogue.schema import Dialogue
from dlm.reasoning.graph import Graph

DEFAULT_CITY = "train-0"
SLOTS = ("place", "people", "day", "meal")
MEALS = ("breakfast", "lunch", "dinner")
MAX_PEOPLE = 12


def world(dialogue: Dialogue) -> CityWorld:
    """Opens the city that `meta.city` names (a chat without one: `train-0`), with no bookings."""
    return CityWorld(build_city(dialogue.meta.get("city", DEFAULT_CITY)))


class CityWorld:
    """A city that can be asked and changed; bookings are triples of its graph.

    What a tool returns depends on the graph alone, so the same calls on a fresh world return the
    same results. A tool that cannot do what is asked says so in its result and changes nothing.
    """

    def __init__(self, city: City) -> None:
        self.city = city
        self.graph = Graph(city.triples)
        self.tools: Mapping[str, Tool] = {
            name: Tool(name, description, parameters, getattr(self, name))
            for name, (description, parameters) in _TOOLS.items()
        }

    def state(self) -> list[dict[str, Any]]:
        """The bookings as they stand, without their references, in a fixed order."""
        bookings = (self._booking(reference) for reference in self._references())
        return sorted(bookings, key=lambda booking: [str(booking.get(slot)) for slot in SLOTS])

    def clear(self) -> None:
        """Cancels all bookings, which makes the world as good as new."""
        for reference in self._references():
            self.cancel(reference)

    def introduction(self) -> str:
        """One line for a person who does not know the city: a few places of each kind."""
        kinds = (f"{kind}s {', '.join(names[:3])}" for kind, names in self.city.places.items())
        return f"The city {self.city.id} has the {'; the '.join(kinds)}, and more."

    def ask(self, about: str, relation: str) -> str:
        """The objects of one relation, or `unknown`."""
        return " and ".join(self.graph.objects(about, relation)) or "unknown"

    def find(self, **criteria: str) -> str:
        """The first place by name that agrees with all criteria, or `none`."""
        pattern = "?place :kind ?kind"  # a place is what has a kind
        for relation in criteria:
            pattern += f" ; :{relation} ?{relation}"
        chosen = "".join(f" ?{relation}" for relation in criteria)
        query = f"SELECT ?place{chosen} {{ {pattern} }} ORDER BY ?place LIMIT 1"
        found = self.graph.select(query, **criteria)
        return found[0]["place"] if found else "none"

    def book(self, place: str, people: int, day: str, meal: str | None = None) -> str:
        """`booked REFERENCE`, or why not."""
        slots = {"place": place, "people": people, "day": day, "meal": meal}
        refusal = self._refusal(slots)
        if refusal:
            return refusal
        reference = self._new_reference(slots)
        self._write(reference, slots)
        return f"booked {reference}"

    def change(self, reference: str, **slots: Any) -> str:
        """`changed`, or why not."""
        if reference not in self._references():
            return "unknown reference"
        slots = {**self._booking(reference), **slots}
        refusal = self._refusal(slots)
        if refusal:
            return refusal
        self.cancel(reference)
        self._write(reference, slots)
        return "changed"

    def cancel(self, reference: str) -> str:
        """`cancelled`, or why not."""
        if reference not in self._references():
            return "unknown reference"
        for triple in self.graph.triples(subject=reference):
            self.graph.remove(*triple)
        return "cancelled"

    def _refusal(self, slots: Mapping[str, Any]) -> str:
        if not self.graph.objects(slots["place"], "kind"):
            return "unknown place"
        closed = self.graph.objects(slots["place"], "closed")
        return f"closed on {slots['day']}" if slots["day"] in closed else ""

    def _new_reference(self, slots: Mapping[str, Any]) -> str:
        """Drawn from the city and what is booked; longer where many are taken."""
        taken = self._references()
        rng = random.Random(str([self.city.id, *(slots[slot] for slot in SLOTS)]))
        length = 2 if len(taken) < 20 else 5
        reference = draw_reference(rng, length)
        while reference in taken:
            reference = draw_reference(rng, length)
        return reference

    def _references(self) -> list[str]:
        return self.graph.subjects("is", "booking")

    def _write(self, reference: str, slots: Mapping[str, Any]) -> None:
        self.graph.add(reference, "is", "booking")
        for slot in SLOTS:
            if slots.get(slot) is not None:
                self.graph.add(reference, slot, str(slots[slot]))

    def _booking(self, reference: str) -> dict[str, Any]:
        found = {slot: self.graph.objects(reference, slot) for slot in SLOTS}
        booking: dict[str, Any] = {slot: values[0] for slot, values in found.items() if values}
        return {**booking, "people": int(booking["people"])}


def _schema(required: tuple[str, ...], **properties: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _enum(values: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


_TEXT = {"type": "string", "minLength": 1}
_BOOKING = {
    "place": _TEXT,
    "people": {"type": "integer", "minimum": 1, "maximum": MAX_PEOPLE},
    "day": _enum(DAYS),
    "meal": _enum(MEALS),
}
_TOOLS = {
    "ask": (
        "What one relation of a place or person leads to.",
        _schema(("about", "relation"), about=_TEXT, relation=_enum(RELATIONS)),
    ),
    "find": (
        "The first place by name that agrees with all that is given.",
        _schema(
            (),
            price=_enum(PRICES),
            cuisine=_enum(CUISINES),
            kind=_enum(KINDS),
            street=_TEXT,
            near=_TEXT,
            owner=_TEXT,
        ),
    ),
    "book": (
        "Books a table (with a meal), a room or tickets; returns the reference.",
        _schema(("place", "people", "day"), **_BOOKING),
    ),
    "change": (
        "Changes what is given of a booking; the rest stays.",
        _schema(("reference",), reference=_TEXT, **_BOOKING),
    ),
    "cancel": ("Cancels a booking.", _schema(("reference",), reference=_TEXT)),
}
