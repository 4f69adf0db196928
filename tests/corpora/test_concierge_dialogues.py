"""The dialogues: executable, well formed, and decided by what was read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from dlm.corpora.concierge.builder import Options, draw
from dlm.corpora.concierge.names import SYLLABLES
from dlm.corpora.concierge.skills import SKILLS
from dlm.corpora.concierge.world import world
from dlm.dialogue.schema import CHANNELS, Dialogue, Message, from_json, response_units, to_json
from dlm.dialogue.template import message_text

WORD = re.compile(r"\w+")


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    options = Options(skills=tuple(SKILLS), dialogues=1200, held_out=60, cities=20, unseen_cities=5)
    return [dialogue for split in draw(options).values() for dialogue in split]


def read(dialogue: Dialogue, end: int) -> str:
    """What stands before a message."""
    return "\n".join(f"{m.role} {m.channel} {message_text(m)}" for m in dialogue.messages[:end])


def histories(dialogue: Dialogue) -> Iterator[tuple[str, str]]:
    """Each response with what stands before it."""
    for unit in response_units(dialogue):
        yield (
            read(dialogue, unit[0]),
            "\n".join(
                f"{dialogue.messages[i].channel} {message_text(dialogue.messages[i])}" for i in unit
            ),
        )


def test_recorded_calls_give_recorded_results_and_the_recorded_end_state(
    dialogues: list[Dialogue],
):
    """Executable: on a fresh city, every call returns what the dialogue says."""
    for dialogue in dialogues:
        opened = world(dialogue)
        for call, result in zip(dialogue.messages, dialogue.messages[1:], strict=False):
            if call.channel == "call":
                assert opened.tools[call.name].function(**call.arguments) == result.content
                assert (result.role, result.name) == ("tool", call.name)
        assert opened.state() == dialogue.meta["end_state"]


def test_dialogues_are_valid_and_survive_json(dialogues: list[Dialogue]):
    for dialogue in dialogues:
        record = json.loads(json.dumps(to_json(dialogue)))
        assert from_json(record, "here") == dialogue
        assert dialogue.task == dialogue.meta["skill"]


def test_every_channel_is_used_and_rounds_keep_their_order(dialogues: list[Dialogue]):
    used = {m.channel for d in dialogues for m in d.messages}
    assert used == {*CHANNELS, None}
    for dialogue in dialogues:
        for unit in response_units(dialogue):
            channels = [CHANNELS.index(dialogue.messages[i].channel) for i in unit]
            assert channels == sorted(set(channels))
        roles = [(m.role, m.channel) for m in dialogue.messages]
        ends = [i for i, role in enumerate(roles) if role == ("assistant", "reply")]
        starts = [i for i, role in enumerate(roles) if role == ("user", None)]
        assert [i + 1 for i in ends] == [*starts[1:], len(roles)]


def test_every_name_that_is_written_was_read_before(dialogues: list[Dialogue]):
    """Copying suffices: names, references, days and meals stand in what came before."""
    for dialogue in dialogues:
        names = set(dialogue.meta["entities"])
        for history, response in histories(dialogue):
            words = set(WORD.findall(response))
            assert words & names <= set(WORD.findall(history))


def test_entities_are_the_names_that_are_said(dialogues: list[Dialogue]):
    """So that a tokenizer spells every name in pieces, and nothing else."""
    for dialogue in dialogues:
        city = world(dialogue).city
        words = set(WORD.findall(read(dialogue, len(dialogue.messages))))
        assert set(dialogue.meta["entities"]) <= words
        assert words & set(city.names) <= set(dialogue.meta["entities"])


def test_no_syllable_of_a_name_is_part_of_an_ordinary_word(dialogues: list[Dialogue]):
    ordinary: set[str] = set()
    for dialogue in dialogues:
        words = WORD.findall("\n".join(map(message_text, dialogue.messages)))
        ordinary.update(word.lower() for word in set(words) - set(dialogue.meta["entities"]))
    assert not [s for s in SYLLABLES for word in ordinary if s in word]


def test_what_is_written_is_a_function_of_what_was_read(dialogues: list[Dialogue]):
    """Derivable: with names numbered by appearance, equal histories have equal responses."""
    responses: dict[str, str] = {}
    repeated = 0
    for dialogue in dialogues:
        names = dialogue.meta["entities"]
        pattern = re.compile("|".join(rf"\b{name}\b" for name in names) or r"(?!)")
        for history, response in histories(dialogue):
            order = list(dict.fromkeys(pattern.findall(history)))
            key, value = (
                pattern.sub(lambda m, order=order: f"#{order.index(m[0])}", text)
                for text in (history, response)
            )
            repeated += key in responses
            assert responses.setdefault(key, value) == value, history
    assert repeated > 500


def test_the_state_is_what_the_call_books(dialogues: list[Dialogue]):
    for dialogue in dialogues:
        state = ""
        for message in dialogue.messages:
            if message.channel == "state":
                state = str(message.content)
            elif message.name == "book" and message.role == "assistant":
                slots = (f"{slot}: {value}" for slot, value in message.arguments.items())
                assert "; ".join(slots) == state


def test_the_skills_show_what_they_are_for(dialogues: list[Dialogue]):
    def share(task: str, shows: str) -> float:
        found = [shows in read(d, len(d.messages)) for d in dialogues if d.task == task]
        return sum(found) / len(found)

    assert 0.3 < share("booking", "intent change") < 0.5
    assert share("booking", "intent cancel") > 0.02
    assert share("booking", "reason missing") > 0.3
    assert share("booking", "act refuse") > 0.05
    assert share("question", "intent ask") > 0.9
    assert share("question", "intent find") > 0.15
    assert share("out_of_scope", "intent out_of_scope") == 1
    assert share("several", "the same") + share("several", "all of us") > 0.5
    assert share("multi_hop", "intent chain") == 1
    assert share("summary", "act summarise") == 1


def test_a_chain_writes_what_is_left_of_it():
    options = Options(skills=("multi_hop",), dialogues=60, held_out=1, cities=3)
    for dialogue in draw(options)["train"]:
        chains = [str(m.content).split(" > ") for m in dialogue.messages if m.channel == "reason"]
        results = [m.content for m in dialogue.messages if m.role == "tool"]
        calls = [m for m in dialogue.messages if m.channel == "call"]
        chains = [chain for chain in chains if chain[0].startswith("missing") is False]
        for before, after, result in zip(chains, chains[1:], results, strict=False):
            assert after == [result, *before[2:]]
        assert chains[0][0] in calls[0].arguments.values()


def test_messages_are_short():
    """No message is long enough to crowd a row of 256 tokens."""
    options = Options(dialogues=300, held_out=1, cities=5)
    assert max(len(message_text(m)) for d in draw(options)["train"] for m in d.messages) < 140


def test_the_user_does_not_repeat_the_assistant(dialogues: list[Dialogue]):
    """Variety is on the user's side: many ways to ask, one to answer."""

    def forms(messages: list[Message], names: set[str]) -> set[str]:
        return {
            WORD.sub(lambda w: "#" if w[0] in names else w[0], message_text(m)) for m in messages
        }

    names = {name for d in dialogues for name in d.meta["entities"]}
    said = [m for d in dialogues for m in d.messages]
    asked = forms([m for m in said if m.role == "user"], names)
    replied = forms([m for m in said if m.channel == "reply" and " is " in m.content], names)
    assert len(asked) > 20 * len(replied)
