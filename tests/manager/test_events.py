"""Conversations and dialogues are the same thing, said twice."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from dlm.dialogue.checks import RecordError
from dlm.dialogue.schema import Dialogue, Message, from_json, to_json, validate
from dlm.manager.events import (
    Called,
    ContextGiven,
    Conversation,
    Failed,
    Rated,
    Returned,
    SystemSaid,
    UserSaid,
    Wrote,
    fold,
    from_dialogue,
    to_dialogue,
    undo,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
NAME = st.text("abc", min_size=1, max_size=3)
META = st.dictionaries(st.sampled_from(["x", "ok", "by"]), st.booleans() | st.integers(0, 3))
COMMON = {"content": TEXT, "weight": st.floats(0, 2), "meta": META}


@st.composite
def rounds(draw: st.DrawFn) -> list[Message]:
    """A turn of any shape that the format allows."""

    def message(role: str, **fields: object) -> Message:
        common = {name: draw(strategy) for name, strategy in COMMON.items()}
        return Message(role, **{**common, **fields})

    messages = [message("context") for _ in range(draw(st.integers(0, 1)))]
    messages.append(message("user", name=draw(st.none() | NAME)))
    written = [message("assistant", channel=c) for c in ("intent", "state") if draw(st.booleans())]
    for _ in range(draw(st.integers(0, 2))):
        name, arguments = draw(NAME), draw(st.dictionaries(NAME, st.integers() | TEXT, max_size=2))
        call = message("assistant", channel="call", name=name, arguments=arguments, content="")
        unread = message("assistant", channel="call", content="{nam", weight=0.0)
        call = draw(st.sampled_from([call, unread]))
        written += [call, message("tool", name=call.name)][: draw(st.integers(1, 2))]
    return [*messages, *written, message("assistant", channel="reply")]


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogue:
    messages = [
        m for messages in draw(st.lists(rounds(), min_size=1, max_size=3)) for m in messages
    ]
    return Dialogue(
        id=draw(NAME),
        messages=(Message("system", draw(TEXT)), *messages),
        task=draw(TEXT),
        tools=({"name": "find"},),
        candidates=("a", "b"),
        answer=draw(st.none() | st.integers(0, 1)),
        rejected=(Message("user", ""), Message("assistant", "no")),
        label=draw(st.none() | st.booleans()),
        rating=draw(st.none() | st.integers(1, 5)),
        meta=draw(META),
    )


@settings(max_examples=80)
@given(dialogues(), st.data())
def test_both_ways_lose_nothing(dialogue: Dialogue, data: st.DataObject):
    """Dialogue -> conversation -> dialogue and back, through JSON, events beside it included."""
    validate(dialogue, "")
    conversation = from_dialogue(dialogue)
    assert to_dialogue(conversation) == dialogue
    events = list(conversation.events)
    for note in (Failed("length", "<|reply|>so"), Rated(4.0, "fine"), Rated(1.0)):
        events.insert(data.draw(st.integers(0, len(events))), note)
    noted = dataclasses.replace(conversation, events=tuple(events))
    assert from_dialogue(from_json(to_json(to_dialogue(noted)), "")) == noted


def test_each_message_becomes_its_event():
    messages = (
        Message("system", "s"),
        Message("context", "c"),
        Message("user", "u", name="Ann"),
        Message("assistant", "x", "intent"),
        Message("assistant", "", "call", "find", {"a": 1}),
        Message("tool", "no", name="find", meta={"ok": False}),
        Message("assistant", "r", weight=0.5),
    )
    assert from_dialogue(Dialogue("d", messages)).events == (
        SystemSaid("s"),
        ContextGiven("c"),
        UserSaid("u", name="Ann"),
        Wrote(channel="intent", content="x"),
        Called(name="find", arguments={"a": 1}),
        Returned(name="find", content="no", ok=False),
        Wrote(channel="reply", content="r", weight=0.5),
    )


def test_a_new_conversation_takes_nothing_of_the_old_course():
    old = Dialogue(
        "d",
        (Message("system", "s"), Message("user", "u"), Message("assistant", "r")),
        task="t",
        candidates=("r",),
        answer=0,
        label=True,
        rating=5,
        meta={"city": "c", "manager_events": [{"at": 3, "event": "rated", "value": 1}]},
    )
    opening = from_dialogue(old, messages=old.messages[:1])
    expected = Dialogue("d", (Message("system", "s"),), task="t", meta={"city": "c"})
    assert to_dialogue(opening) == expected


@pytest.mark.parametrize(
    "notes", [3, [3], [{"at": 1}], [{"at": 0, "event": "x"}], [{"at": 0, "event": "rated"}]]
)
def test_damaged_events_are_named(notes: object):
    dialogue = Dialogue("d7", (Message("user", "u"),), meta={"manager_events": notes})
    with pytest.raises(RecordError, match=r"d7: meta.manager_events: damaged"):
        from_dialogue(dialogue)


EVENTS = (
    SystemSaid("s"),
    UserSaid("one"),
    Wrote(channel="state", content="a=1"),
    Called(name="f", arguments={}),
    Returned(name="f", content="ok"),
    Wrote(channel="reply", content="first"),
    UserSaid("two"),
    Wrote(channel="state", content="a=2"),
    Failed("length"),
    Wrote(channel="reply", content="sorry"),
)


def test_fold():
    view = fold(EVENTS)
    assert (view.turns, view.calls, view.failures) == (2, 0, 1)
    assert view.latest == {"state": "a=2", "reply": "sorry"}
    assert (fold(EVENTS[:5]).calls, fold(EVENTS[:3]).latest) == (1, {"state": "a=1"})
    assert fold(()).turns == 0


def test_undo_goes_back_to_before_the_last_user_message():
    conversation = Conversation(EVENTS)
    once = undo(conversation)
    assert once.events == EVENTS[:6]
    assert undo(once).events == EVENTS[:1]
    assert undo(undo(once)) == undo(once)
    assert conversation.events == EVENTS
