"""Seeded cities: dozens of places, people and streets, and what relates them, as triples.

A city is a pure function of its id: `train-231` is one of the training pool, `unseen-17` one whose
names begin with held-out stems. Cities share no name until the names are used up, and then begin
again: after more than 350 of the training pool, after more than 100 unseen ones.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from dlm.core.errors import UserError
from dlm.corpora.concierge.names import make_names
from dlm.reasoning.graph import Triple

PLACES = {"restaurant": 16, "cafe": 12, "hotel": 16, "museum": 10, "theatre": 10}
KINDS = tuple(PLACES)
NUM_PEOPLE = 24
NUM_STREETS = 16
NUM_NAMES = sum(PLACES.values()) + NUM_PEOPLE + NUM_STREETS
PRICES = ("cheap", "moderate", "expensive")
CUISINES = ("French", "Greek", "Indian", "Italian", "Mexican", "Thai")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
RELATIONS = ("kind", "owner", "street", "price", "cuisine", "closed", "opened", "near", "home")

_ID = re.compile(r"(train|unseen)-(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True)
class City:
    """What is in a city before anything is booked.

    Attributes:
      id: what it was made from, e.g. `train-231`.
      places: kind -> names. Every place has a kind, an owner, a street, a price, a closed day, a
        year in which it opened and two places near it; restaurants and cafes have a cuisine.
      people: all have a home street; most own a place, and no one owns two of a kind.
      streets: without the word Street, which their names in the triples end with.
      triples: the facts; `near` holds in both directions.
    """

    id: str
    places: Mapping[str, tuple[str, ...]]
    people: tuple[str, ...]
    streets: tuple[str, ...]
    triples: tuple[Triple, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All drawn names, each once."""
        return (*(name for names in self.places.values() for name in names), *self.people,
                *self.streets)  # fmt: skip


@lru_cache(maxsize=1024)
def build_city(city_id: str) -> City:
    """Builds the city of an id.

    Raises:
      UserError: the id is none of `train-NUMBER` and `unseen-NUMBER`.
    """
    match = _ID.fullmatch(city_id)
    if not match:
        raise UserError(f"no city {city_id!r}; a city is called train-NUMBER or unseen-NUMBER")
    rng = random.Random(f"city {city_id}")
    names = _names(int(match[2]), unseen=match[1] == "unseen")
    places = {kind: tuple(islice(names, count)) for kind, count in PLACES.items()}
    people = tuple(islice(names, NUM_PEOPLE))
    streets = tuple(islice(names, NUM_STREETS))
    triples = (*_facts(rng, places, streets), *_owners(rng, places, people), *_near(rng, places))
    homes = ((person, "home", f"{rng.choice(streets)} Street") for person in people)
    return City(city_id, places, people, streets, (*triples, *homes))


def _names(number: int, *, unseen: bool) -> Iterator[str]:
    """The names of city number so-and-so, in the order in which they are given away."""
    names = make_names(unseen=unseen)
    first = number * NUM_NAMES
    return (names[i % len(names)] for i in range(first, first + NUM_NAMES))


def _facts(
    rng: random.Random, places: Mapping[str, tuple[str, ...]], streets: tuple[str, ...]
) -> list[Triple]:
    """What a place has by itself; the digits of a year differ, so copying them is unambiguous."""
    years = [str(year) for year in range(1900, 2020) if len(set(str(year))) == 4]
    triples = []
    for kind, names in places.items():
        for name in names:
            triples += [
                (name, "kind", kind),
                (name, "street", f"{rng.choice(streets)} Street"),
                (name, "price", rng.choice(PRICES)),
                (name, "closed", rng.choice(DAYS)),
                (name, "opened", rng.choice(years)),
            ]
            if kind in ("restaurant", "cafe"):
                triples.append((name, "cuisine", rng.choice(CUISINES)))
    return triples


def _owners(
    rng: random.Random, places: Mapping[str, tuple[str, ...]], people: tuple[str, ...]
) -> list[Triple]:
    """The places of a kind go to different people."""
    return [
        (name, "owner", owner)
        for names in places.values()
        for name, owner in zip(names, rng.sample(people, len(names)), strict=True)
    ]


def _near(rng: random.Random, places: Mapping[str, tuple[str, ...]]) -> list[Triple]:
    """All places on a ring: each is near the one before and the one after it."""
    ring = [name for names in places.values() for name in names]
    rng.shuffle(ring)
    pairs = list(zip(ring, [*ring[1:], ring[0]], strict=True))
    return [(a, "near", b) for a, b in pairs] + [(b, "near", a) for a, b in pairs]
