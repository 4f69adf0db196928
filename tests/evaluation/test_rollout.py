"""Live replay: recorded users, a model with its own history, and a world that it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from dlm.core.mean import Mean
from dlm.dialogue.schema import Dialogue, Message, response_units, turn_of_messages, validate
from dlm.dialogue.template import Template
from dlm.evaluation.rollout import RecordedUser, Rollout, end_state, opening, roll_out, success
from dlm.generation.engine import Completion, GenerateConfig
from dlm.manager.events import to_dialogue
from tests.manager.scripted import Bookings, ScriptedEngine, called, wrote

Script = Sequence[Sequence[Sequence[Message]]]  # responses by turn


def book(place: str, people: int) -> tuple[Message, ...]:
    call = called("book", place=place, people=people)
    return wrote("state", place), call, Message("tool", f"booked {place}", name="book")


FIRST = Dialogue(
    "first",
    (
        Message("system", "Be brief."),
        Message("context", "Rome is open."),
        *(Message("user", "Rome for 4"), *book("Rome", 4), wrote("reply", "Booked.")),
        *(Message("user", "and Oslo for 2"), *book("Oslo", 2), wrote("reply", "Booked too.")),
        *(Message("user", "thanks"), wrote("reply", "Bye.")),
    ),
)
SECOND = Dialogue(
    "second", (Message("user", "Rome for 4"), *book("Rome", 4), wrote("reply", "There you are."))
)
TALK = Dialogue("talk", (Message("user", "hello"), wrote("reply", "Hello.")))


def gold(dialogue: Dialogue) -> list[list[list[Message]]]:
    """The recorded responses of each turn."""
    turns = turn_of_messages(dialogue)
    script: list[list[list[Message]]] = [[] for _ in range(max(turns) + 1)]
    for unit in response_units(dialogue):
        script[turns[unit[0]]].append([dialogue.messages[i] for i in unit])
    return script


def interleaved(scripts: Sequence[Script]) -> list[Sequence[Message]]:
    """Responses in the order of batches: all dialogues of a turn side by side."""
    order: list[Sequence[Message]] = []
    for turn in range(max(map(len, scripts))):
        live = [list(script[turn]) for script in scripts if turn < len(script)]
        while any(live):
            order += [responses.pop(0) for responses in live if responses]
    return order


def replay(dialogues, open_world, engine, template, config) -> list[Rollout]:
    """Live conversations with the recorded users."""
    users = [RecordedUser(dialogue, open_world) for dialogue in dialogues]
    return roll_out(dialogues, users, open_world, engine, template, config)


def play(
    template: Template, dialogues: Sequence[Dialogue], scripts: Sequence[Script], **settings
) -> tuple[list[Rollout], ScriptedEngine]:
    engine = ScriptedEngine(template, interleaved(scripts))
    replays = replay(dialogues, Bookings, engine, template, GenerateConfig(**settings))
    assert engine.responses == []
    return replays, engine


def test_gold_responses_reach_the_gold_end_state_in_the_gold_words(template):
    """Dialogues of different lengths side by side, two of which book the same table."""
    dialogues = [FIRST, SECOND, TALK]
    replays, _ = play(template, dialogues, [gold(d) for d in dialogues])
    assert [to_dialogue(r.conversation) for r in replays] == dialogues
    assert [r.success for r in replays] == [True, True, True]
    assert success(replays) == Mean(3.0, 3.0)


@pytest.mark.parametrize(
    "calls",
    [
        [("Rome", 5), ("Oslo", 2)],
        [("Rome", 4)],
        [("Rome", 4), ("Oslo", 2), ("Lima", 2)],
        [("Oslo", 2), ("Rome", 4)],  # this world keeps the order
        [],
    ],
    ids=["another argument", "one missing", "one more", "another order", "none"],
)
def test_a_world_that_ends_otherwise_is_a_failure(template, calls):
    """Whatever is said; the neighbour in the batch is not touched."""
    written = [[called("book", place=place, people=people)] for place, people in calls]
    script = [[*written, [wrote("reply", "Booked.")]], *[[[wrote("reply", "Booked.")]]] * 2]
    replays, _ = play(template, [SECOND, FIRST], [gold(SECOND), script])
    assert [r.success for r in replays] == [True, False]
    assert success(replays) == Mean(1.0, 2.0)


def test_other_words_and_a_call_that_changes_nothing_are_no_failure(template):
    """Success is the world's state alone; the same call may come at another time."""
    look = [called("find", place="Rome")]
    script = [
        [look, [wrote("reply", "Are you sure?")]],
        [[FIRST.messages[4]], [FIRST.messages[9]], [wrote("reply", "Both are booked.")]],
        [[wrote("reply", "Ciao.")]],
    ]
    ((played,), _) = play(template, [FIRST], [script])
    assert played.success


def test_calls_that_are_refused_change_nothing(template):
    """On both sides: a refused call that was recorded is no booking that the model must make."""
    refused = [
        called("book", place="Rome", people="four"),
        called("book", people=4),
        called("cancel", place="Rome"),
        Message("assistant", "book it", "call", weight=0.0),
    ]
    answers = [Message("tool", "error: no", name=call.name) for call in refused]
    extra = [message for pair in zip(refused, answers, strict=True) for message in pair]
    user, state, *rest = SECOND.messages
    recorded = replace(SECOND, messages=(user, state, *extra, *rest))
    validate(recorded, "")
    assert end_state(recorded, Bookings) == end_state(SECOND, Bookings) == [["Rome", 4]]
    scripts = [gold(SECOND), gold(recorded)]
    for said in scripts:
        ((played,), _) = play(template, [recorded], [said], constrained=False)
        assert played.success


def test_each_dialogue_has_a_fresh_world_of_its_own(template):
    """One for the model's calls and one for the recorded ones, both opened for that dialogue."""
    opened: dict[str, list[Bookings]] = {}

    def open_world(dialogue: Dialogue) -> Bookings:
        world = Bookings(dialogue)
        opened.setdefault(dialogue.id, []).append(world)
        return world

    wrong = [[[called("book", place="Lima", people=1)], [wrote("reply", "Booked.")]]]
    again = replace(SECOND, id="again")
    scripts = [gold(SECOND), wrong, gold(TALK)]
    engine = ScriptedEngine(template, interleaved(scripts))
    replay([SECOND, again, TALK], open_world, engine, template, GenerateConfig())
    states = {name: sorted(world.state() for world in worlds) for name, worlds in opened.items()}
    assert states == {
        "second": [[["Rome", 4]], [["Rome", 4]]],
        "again": [[["Lima", 1]], [["Rome", 4]]],
        "talk": [[], []],
    }


def test_the_model_reads_its_own_history(template):
    """Of the record, the opening and what the user says; never a recorded answer or result."""
    script = [[[wrote("reply", "Which day?")]], [[wrote("reply", "Oh.")]], [[wrote("reply", "!")]]]
    ((played,), engine) = play(template, [FIRST], [script])
    texts = [m.content for m in to_dialogue(played.conversation).messages]
    said = ["Rome for 4", "Which day?", "and Oslo for 2", "Oh.", "thanks", "!"]
    assert texts == ["Be brief.", "Rome is open.", *said]
    read = [template.tokenizer.decode(request.prompt) for request in engine.requests]
    assert read == ["".join(texts[:n]) for n in (3, 5, 7)]
    assert not played.success


@pytest.mark.parametrize("constrained", [True, False])
def test_the_generate_section_applies(template, constrained):
    """Length and grammar of each response are those of the config; no response is no error."""
    engine = ScriptedEngine(template, [Completion((), "stuck", 0.0)])
    config = GenerateConfig(max_new_tokens=17, constrained=constrained)
    (played,) = replay([SECOND], Bookings, engine, template, config)
    (request,) = engine.requests
    assert request.max_new_tokens == 17
    assert request.grammar.allows(template.tokenizer.control("<|end|>")) != constrained
    assert not played.success


def test_an_opening_is_what_stands_before_the_first_turn():
    assert to_dialogue(opening(FIRST)).messages == FIRST.messages[:2]
    assert to_dialogue(opening(FIRST)).id == "first"
    assert opening(SECOND).events == ()


def test_nothing_to_replay(template):
    assert replay([], Bookings, ScriptedEngine(template, []), template, GenerateConfig()) == []
    assert success([]) == Mean(0.0, 0.0)


class Insistent:
    """Says the same until it hears "Booked.", and is served then."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.heard: list[tuple[str, ...]] = []

    def say(self, heard):
        self.heard.append(tuple(message.content for message in heard))
        return None if "Booked." in self.heard[-1] else self.text

    def is_served(self, conversation, world):
        return world.state() == [["Rome", 4]] and conversation.messages[-1].content == "Booked."


def test_a_simulated_user_reacts_to_what_it_hears(template):
    """It hears what was written since it spoke; its neighbour goes on when it is done."""
    users = [Insistent("Rome for 4"), Insistent("hello")]
    booked = [wrote("reply", "Booked.")]
    call = [called("book", place="Rome", people=4)]
    script = [call, [wrote("act", "ask"), wrote("reply", "What?")], booked, booked]
    engine = ScriptedEngine(template, script)
    held = roll_out([SECOND, TALK], users, Bookings, engine, template, GenerateConfig())
    assert [(one.turns, one.success) for one in held] == [(1, True), (2, False)]
    assert users[1].heard == [(), ("ask", "What?"), ("Booked.",)]


def test_an_endless_user_is_cut_off(template):
    engine = ScriptedEngine(template, [[wrote("reply", "What?")]] * 3)
    (held,) = roll_out(
        [TALK], [Insistent("hi")], Bookings, engine, template, GenerateConfig(), max_turns=3
    )
    assert (held.turns, held.success) == (3, False)
