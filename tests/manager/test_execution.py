"""Calls are read strictly, checked before anything happens, and stopped in time."""

from __future__ import annotations

import threading
import time

import pytest

from dlm.manager.actions import clean, execute, read_call, rebuild
from dlm.manager.events import Called, Conversation, Returned
from tests.manager.scripted import Bookings


def call(name: str | None, **arguments: object) -> Called:
    return Called(name=name, arguments=arguments)


def test_a_valid_call_is_executed():
    world = Bookings()
    result = execute(world, call("book", place="Rome", people=4))
    assert result == Returned(name="book", content="booked Rome")
    assert world.state() == [["Rome", 4]]


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (call("drop", place="x"), "error: unknown tool 'drop'; known: book, find"),
        (call("book", place="x", day=1), "unknown argument 'day' of book; known: place, people"),
        (call("book", people=2), "error: book: 'place' is a required property"),
        (call("book", place=3), "error: book.place: 3 is not of type 'string'"),
        (call("book", place="x", people="4"), "book.people: '4' is not of type 'integer'"),
        (call("book", place="x", people=True), "True is not of type 'integer'"),
        (Called(content="{nam", weight=0.0), 'not of the form {"name": ..., "arguments": {...}}'),
    ],
)
def test_a_call_that_is_not_right_is_refused_before_anything_happens(refused: Called, reason: str):
    """Actions: validated against the schema first; a refusal is recorded as the result."""
    world = Bookings()
    result = execute(world, refused)
    assert reason in result.content
    assert result.content.startswith("error: ")
    assert (result.name, result.ok) == (refused.name, False)
    assert world.state() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "book",
        "[]",
        "{}",
        '{"name": "book"}',
        '{"name": "book", "arguments": []}',
        '{"name": 3, "arguments": {}}',
        '{"name": "book", "arguments": {}, "more": 1}',
        '{"name": "book", "arguments": {"a": 1, "a": 2}}',
        '{"name": "book", "arguments": {"a": NaN}}',
        '{"name": "book", "arguments": {"a": Infinity}}',
        '{"name": "book", "arguments": {}} and',
        '{"name": "book", "arguments": {"a": ' + "1" * 5000 + "}}",
        '{"name": "book", "arguments": {"a": ' + "[" * 100000 + "]" * 100000 + "}}",
    ],
)
def test_text_that_is_no_call_is_kept_as_text(text: str):
    assert read_call(text) == Called(content=text, weight=0.0)


def test_a_call_is_read():
    text = '{"name": "book", "arguments": {"place": "Caf\u00e9", "people": 4}}'
    assert read_call(text) == call("book", place="Caf\u00e9", people=4)


def with_tool(function: object, **properties: dict) -> Bookings:
    world = Bookings()
    world.tools = {"act": Bookings.tool("act", function, properties)}
    return world


def test_a_slow_tool_is_left_behind():
    release = threading.Event()
    world = with_tool(lambda: str(release.wait(30)))
    start = time.monotonic()
    result = execute(world, call("act"), seconds=0.05)
    assert time.monotonic() - start < 10
    release.set()
    assert result == Returned(
        name="act", content="error: act took longer than 0.05 seconds", ok=False
    )


def fails() -> str:
    raise SystemExit("no such luck")


@pytest.mark.parametrize(
    ("function", "reason"),
    [(fails, "act failed: no such luck"), (lambda: 7, "act returned int, not text")],
)
def test_a_failing_tool_is_a_result(function: object, reason: str):
    result = execute(with_tool(function), call("act"))
    assert result == Returned(name="act", content=f"error: {reason}", ok=False)


def test_a_tool_cannot_change_the_call():
    def act(items: list) -> str:
        items.append("more")
        return "done"

    asked = call("act", items=["one"])
    assert execute(with_tool(act, items={"type": "array"}), asked).ok
    assert asked.arguments == {"items": ["one"]}


def test_a_result_is_text_that_the_format_holds():
    result = execute(with_tool(lambda: "a\0b\ud800c"), call("act"))
    assert result.content == "a\ufffdb\ufffdc"
    assert clean("caf\u00e9 \U0001f600\n") == "caf\u00e9 \U0001f600\n"


def test_a_schema_without_properties_takes_what_comes():
    world = with_tool(lambda **given: str(given))
    world.tools["act"].parameters.pop("properties")
    assert execute(world, call("act", a=1)).content == "{'a': 1}"


def test_rebuild_repeats_the_calls_that_succeeded():
    world, events = Bookings(), []
    for asked in (
        call("book", place="a"),
        call("book", place=1),
        call("book", place="b", people=5),
    ):
        events += [asked, execute(world, asked)]
    events += [call("book", place="late"), Returned(name="book", content="error: late", ok=False)]
    events.append(call("book", place="never answered"))
    again = rebuild(Bookings(), Conversation(tuple(events)))
    assert again.state() == world.state() == [["a", 2], ["b", 5]]


def test_rebuild_pairs_calls_and_results_that_come_together():
    """call, call, result, result: each result belongs to the first waiting call of its name."""
    events = (
        call("book", place="Rome"),
        call("book", place="Oslo"),
        Returned(name="book", content="full", ok=False),
        Returned(name="book", content="booked Oslo"),
    )
    assert rebuild(Bookings(), Conversation(events)).state() == [["Oslo", 2]]
