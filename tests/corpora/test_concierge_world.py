"""The tools: what they answer, what they change, and what they refuse."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from dlm.corpora.concierge.city import DAYS, KINDS, build_city
from dlm.corpora.concierge.world import CityWorld, world
from dlm.dialogue.schema import Dialogue, Message


@pytest.fixture
def opened() -> CityWorld:
    return CityWorld(build_city("train-3"))


def call(opened: CityWorld, name: str, **arguments: Any) -> str:
    """Calls as a manager does: checked against the schema, then executed."""
    tool = opened.tools[name]
    jsonschema.validate(arguments, tool.parameters)
    return tool.function(**arguments)


def open_day(opened: CityWorld, place: str, *, after: int = 0) -> str:
    """The day number `after` of those on which a place is open."""
    return [day for day in DAYS if day != call(opened, "ask", about=place, relation="closed")][
        after
    ]


def test_schemas_are_schemas_and_arguments_out_of_them_are_refused(opened: CityWorld):
    for tool in opened.tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.parameters)
    place = opened.city.places["hotel"][0]
    good = {"place": place, "people": 2, "day": "Monday"}
    for bad in ({"people": "2"}, {"people": 0}, {"day": "today"}, {"meal": "8 pm"}, {"room": 1}):
        with pytest.raises(jsonschema.ValidationError):
            call(opened, "book", **{**good, **bad})


def test_ask_gives_every_fact_of_the_city(opened: CityWorld):
    facts: dict[tuple[str, str], set[str]] = {}
    for subject, relation, value in opened.city.triples:
        facts.setdefault((subject, relation), set()).add(value)
    for (subject, relation), values in facts.items():
        assert call(opened, "ask", about=subject, relation=relation) == " and ".join(sorted(values))
    assert call(opened, "ask", about="Nowhere", relation="owner") == "unknown"


def test_find_gives_the_first_place_that_agrees_with_everything(opened: CityWorld):
    facts = set(opened.city.triples)
    place = opened.city.places["cafe"][4]
    price, cuisine = (opened.graph.objects(place, key)[0] for key in ("price", "cuisine"))
    found = call(opened, "find", price=price, cuisine=cuisine, kind="cafe")
    agreeing = [
        name
        for name in opened.city.places["cafe"]
        if {(name, "price", price), (name, "cuisine", cuisine)} <= facts
    ]
    assert found == min(agreeing)
    street = opened.graph.objects(place, "street")[0]
    assert (call(opened, "find", kind="cafe", street=street), "street", street) in facts
    assert call(opened, "find", owner="Nobody") == "none"
    assert call(opened, "find") == min(name for kind in KINDS for name in opened.city.places[kind])


def test_book_change_and_cancel_are_triples_of_the_graph(opened: CityWorld):
    before = opened.graph.digest()
    place = opened.city.places["restaurant"][0]
    day, other = open_day(opened, place), open_day(opened, place, after=1)
    booked = call(opened, "book", place=place, people=4, day=day, meal="dinner")
    reference = booked.removeprefix("booked ")
    assert opened.graph.objects(reference, "place") == [place]
    assert opened.state() == [{"place": place, "people": 4, "day": day, "meal": "dinner"}]
    assert call(opened, "change", reference=reference, day=other, people=5) == "changed"
    assert opened.state() == [{"place": place, "people": 5, "day": other, "meal": "dinner"}]
    assert call(opened, "cancel", reference=reference) == "cancelled"
    assert opened.state() == []
    assert opened.graph.digest() == before


def test_what_cannot_be_done_is_said_and_changes_nothing(opened: CityWorld):
    place = opened.city.places["museum"][0]
    closed = opened.graph.objects(place, "closed")[0]
    day = open_day(opened, place)
    booked = call(opened, "book", place=place, people=2, day=day)
    before = opened.state()
    person = opened.city.people[0]
    reference = booked.split()[1]
    assert call(opened, "book", place=place, people=2, day=closed) == f"closed on {closed}"
    assert call(opened, "book", place=person, people=2, day=day) == "unknown place"
    assert call(opened, "change", reference=reference, day=closed) == f"closed on {closed}"
    assert call(opened, "change", reference=reference, place="Nowhere") == "unknown place"
    assert call(opened, "change", reference="AAA", people=3) == "unknown reference"
    assert call(opened, "cancel", reference=place) == "unknown reference"
    assert opened.state() == before


def test_references_depend_on_the_graph_alone_and_never_repeat():
    results = []
    for _ in range(2):
        opened = CityWorld(build_city("train-3"))
        place = opened.city.places["hotel"][0]
        day = open_day(opened, place)
        results.append([call(opened, "book", place=place, people=2, day=day) for _ in range(120)])
    assert results[0] == results[1]
    assert len(set(results[0])) == 120


def test_a_world_is_fresh_and_knows_its_city():
    dialogue = Dialogue("d", (Message("user", "Hello."),), meta={"city": "unseen-4"})
    first = world(dialogue)
    place = first.city.places["hotel"][0]
    call(first, "book", place=place, people=2, day=open_day(first, place))
    assert world(dialogue).state() == []
    assert world(dialogue).city.id == "unseen-4"
    assert place in first.introduction()
    first.clear()
    assert first.graph.digest() == world(dialogue).graph.digest()
    assert world(Dialogue("d", dialogue.messages)).city.id == "train-0"
