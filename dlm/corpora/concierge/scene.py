"""What users do: book, change, cancel, ask, look for a place, digress. Chance decides here."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from dlm.corpora.concierge import phrases
from dlm.corpora.concierge.city import DAYS, KINDS, PRICES, City
from dlm.corpora.concierge.names import make_names
from dlm.corpora.concierge.script import NEEDED, Booking, Script
from dlm.corpora.concierge.world import MEALS, SLOTS

_RELATIONS = ("owner", "street", "price", "closed")
_CARRIED = (("people",), ("day",), ("people", "day"))


@dataclass(frozen=True)
class Scene:
    """One user in one city, the script that is written, and what chance decides."""

    script: Script
    rng: random.Random

    @property
    def city(self) -> City:
        """Where it plays."""
        return self.script.world.city

    def chance(self, probability: float) -> bool:
        """Whether something of that probability happens."""
        return self.rng.random() < probability

    def facts(self, about: str, relation: str) -> list[str]:
        """What the graph says."""
        return self.script.world.graph.objects(about, relation)

    def place(self) -> str:
        """Draws a place of the city."""
        return self.rng.choice(self.city.places[self.rng.choice(KINDS)])

    def unknown(self) -> str:
        """Draws a name that nothing in the city has."""
        names = make_names(unseen=self.city.id.startswith("unseen"))
        while (name := self.rng.choice(names)) in self.city.names:
            pass
        return name

    def book(
        self,
        item: str = "",
        *,
        there: str = "",
        earlier: Booking | None = None,
        whole: bool = False,
        interrupted: bool = False,
    ) -> Booking:
        """Books in one go, or slot by slot as the assistant asks.

        Args:
          item: what is booked; drawn if empty.
          there: the place, where it was spoken of before.
          earlier: a booking made before, whose day or people (or both) are carried over.
          whole: all slots are given at once.
          interrupted: something out of scope is asked before an answer.

        Returns:
          The booking, made.
        """
        booking = Booking(item or self.rng.choice(list(phrases.OBJECTS)))
        self._request(booking, there, earlier, 0.0 if whole else 1.0 if interrupted else 0.4)
        while not booking.reference:
            if interrupted:
                self.digress()
                interrupted = False
            self._answer(booking)
        return booking

    def change(self, booking: Booking, *, named: bool = False) -> None:
        """Changes one slot or two; `named` says which booking is meant."""
        count = 2 if self.chance(0.15) else 1
        slots = sorted(self.rng.sample(NEEDED[booking.item], count), key=SLOTS.index)
        values = {
            slot: self._value(slot, booking, is_open=slot == "place" or count == 2)
            for slot in slots
        }
        text = phrases.change(
            self.rng, values, opening=f"for the {booking.item}, " if named else ""
        )
        self.script.user(text, *self._names(values))
        while not self.script.change(booking, values):
            day = {"day": self._value("day", booking, is_open=True)}
            self.script.user(phrases.answer(self.rng, day))
            values.update(day)

    def cancel(self, booking: Booking, *, named: bool = False) -> None:
        """Takes a booking back; `named` says which one is meant."""
        self.script.user(phrases.cancellation(self.rng, booking.item if named else ""))
        self.script.cancel(booking)

    def ask(self, place: str, *, named: bool = False, again: bool = False) -> None:
        """Asks for a relation of a place that was not spoken of yet.

        Args:
          place: what is asked about.
          named: the place is called by its name, not `it`.
          again: another question came just before.
        """
        said = " ".join(str(message.content) for message in self.script.messages)
        relations = [
            relation
            for relation in (*_RELATIONS, "cuisine")
            if not any(value in said for value in self.facts(place, relation))
            and (relation != "cuisine" or self.facts(place, relation))
        ]
        relation = self.rng.choice(relations or _RELATIONS)
        text = phrases.question(self.rng, relation, place if named else "it", again=again)
        self.script.user(text, *([place] if named else []))
        self.script.ask(place, relation)

    def find(self) -> str:
        """Looks for a place by one to three criteria; returns the one offered, "" for none."""
        target = self.place()
        keys = ["kind"]
        if self.chance(0.75):
            keys.append(self.rng.choice(("near", "street", "owner")))
        if len(keys) == 1 or self.chance(0.4):
            keys.append("cuisine" if self.facts(target, "cuisine") else "price")
        criteria: dict[str, str] = {
            key: self.rng.choice(self.facts(target, key))
            for key in ("price", "cuisine", "kind", "street", "near", "owner")
            if key in keys
        }
        if "price" in criteria and self.chance(0.3):
            criteria["price"] = self.rng.choice(PRICES)
        said = [criteria[key] for key in ("street", "near", "owner") if key in criteria]
        text = phrases.search(self.rng, phrases.described(criteria))
        self.script.user(text, *(name.removesuffix(" Street") for name in said))
        return self.script.find(criteria)

    def digress(self) -> None:
        """Asks for something out of scope."""
        person, day = self.rng.choice(self.city.people), self.rng.choice(DAYS)
        text, said = phrases.out_of_scope(self.rng, self.place(), person, day)
        self.script.user(text, *said)
        self.script.decline()

    def _request(self, booking: Booking, there: str, earlier: Booking | None, share: float) -> None:
        """Asks for the booking; that share of the requests leaves slots open."""
        slots: dict[str, Any] = {}
        if there:
            slots["place"] = there
        elif self.chance(0.04):
            slots["place"] = self.unknown()
        carried = self.rng.choice(_CARRIED) if earlier else ()
        slots.update((slot, earlier.slots[slot]) for slot in carried if earlier)
        fixed = [*carried, *(["place"] if there else [])]
        for slot in NEEDED[booking.item]:
            if slot not in slots:
                slots[slot] = self._value(slot, booking, place=slots.get("place", ""))
        for slot in self._left_out(booking.item, fixed, share):
            del slots[slot]
        ways = {slot: phrases.slot_phrase(self.rng, slot, slots[slot]) for slot in slots}
        ways.update(phrases.same_as_before(self.rng, carried))
        if there:
            ways["place"] = "there"
        text = phrases.request(self.rng, booking.item, ways, first=earlier is None)
        self.script.user(text, *([] if there else self._names(slots)))
        booking.slots.update(slots)
        self.script.pursue(booking)

    def _left_out(self, item: str, fixed: list[str], share: float) -> list[str]:
        """Draws the slots that a request leaves open."""
        slots = [slot for slot in NEEDED[item] if slot not in fixed]
        if not self.chance(share):
            return []
        if self.chance(0.1):
            return slots
        return self.rng.sample(slots, min(len(slots), self.rng.choice((1, 1, 2))))

    def _answer(self, booking: Booking) -> None:
        """Gives what was asked for, or another place or day where the one given was refused."""
        values: dict[str, Any] = {}
        text = ""
        if booking.missing:
            count = 2 if self.chance(0.3) else 1
            values = {slot: self._value(slot, booking) for slot in booking.missing[:count]}
            text = phrases.answer(self.rng, values)
            if booking.slots and self.chance(0.15):
                slot = self.rng.choice(list(booking.slots))
                correction = {slot: self._value(slot, booking)}
                text += " " + phrases.change(self.rng, correction, opening="oh, and ")
                values.update(correction)
        else:
            known = self.facts(booking.slots["place"], "kind")
            slot = "day" if known else "place"
            values = {slot: self._value(slot, booking, is_open=True)}
            text = phrases.answer(self.rng, values)
        self.script.user(text, *self._names(values))
        booking.slots.update(values)
        self.script.pursue(booking)

    def _value(self, slot: str, booking: Booking, *, place: str = "", is_open: bool = False) -> Any:
        """Draws a value that the slot does not have yet.

        Args:
          slot: one of SLOTS.
          booking: what is being booked; its own value of the slot is not drawn again.
          place: the place that a day is for; the booking's, if empty.
          is_open: the place is certainly open on that day; otherwise mostly.
        """
        choices: list[Any]
        if slot == "people":
            choices = list(phrases.NUMBERS)
        elif slot == "meal":
            choices = list(MEALS)
        elif slot == "day":
            closed = self.facts(place or booking.slots.get("place", ""), "closed")
            choices = [d for d in DAYS if d not in closed or not (is_open or self.chance(0.7))]
        else:
            day = booking.slots.get("day") if is_open else None
            kinds = phrases.OBJECTS[booking.item]
            choices = [
                name
                for name in self.city.places[self.rng.choice(kinds)]
                if day is None or day not in self.facts(name, "closed")
            ]
        return self.rng.choice([c for c in choices if c != booking.slots.get(slot)])

    @staticmethod
    def _names(slots: dict[str, Any]) -> list[str]:
        return [slots["place"]] if "place" in slots else []
