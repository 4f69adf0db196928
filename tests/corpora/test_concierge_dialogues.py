"""The dialogues: executable, well formed, and decided by what was read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from dlm.corpora.concierge.builder import Options, draw
from dlm.corpora.concierge.city import DAYS
from dlm.corpora.concierge.names import SYLLABLES
from dlm.corpora.concierge.skills import SKILLS
from dlm.corpora.concierge.world import world
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.schema import CHANNELS, Dialogue, Message, from_json, response_units, to_json
from dlm.dialogue.template import message_text
from dlm.dialogue.tokenizer import TokenizerConfig, train

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


def test_a_confirmed_state_is_what_the_world_holds(dialogues: list[Dialogue]):
    for dialogue in dialogues:
        opened, state = world(dialogue), ""
        for message in dialogue.messages:
            if message.channel == "intent":
                state = ""
            elif message.channel == "state":
                state = str(message.content)
            elif message.channel == "call":
                opened.tools[message.name].function(**message.arguments)
            elif message.content == "confirm" and state:
                held = (
                    "; ".join(f"{k}: {v}" for k, v in slots.items()) for slots in opened.state()
                )
                assert state in held


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
        names = (*dialogue.meta["entities"], *DAYS)
        pattern = re.compile("|".join(rf"\b{name}\b" for name in names))
        for history, response in histories(dialogue):
            order = list(dict.fromkeys(pattern.findall(history)))
            key, value = (
                pattern.sub(lambda m, order=order: f"#{order.index(m[0])}", text)
                for text in (history, response)
            )
            repeated += key in responses
            assert responses.setdefault(key, value) == value, history
    assert repeated > 500


def test_acts_and_replies_follow_from_the_round_before_them(dialogues: list[Dialogue]):
    """One way to say it: after the same intent, state, reasons, calls and results."""
    written: dict[str, str] = {}
    repeated = 0
    for dialogue in dialogues:
        start = 0
        for index, message in enumerate(dialogue.messages):
            if message.role == "user":
                start = index + 1
            elif message.channel == "act" and message.content != "summarise":
                seen = "\n".join(map(message_text, dialogue.messages[start:index]))
                said = "\n".join(map(message_text, dialogue.messages[index : index + 2]))
                repeated += seen in written
                assert written.setdefault(seen, said) == said
    assert repeated > 300


def test_a_row_of_512_tokens_holds_every_dialogue(dialogues: list[Dialogue]):
    texts = [message_text(message) for dialogue in dialogues for message in dialogue.messages]
    names = {name for dialogue in dialogues for name in dialogue.meta["entities"]}
    tokenizer = train(texts, names, TokenizerConfig(vocab_size=768))
    lengths = [
        sum(len(m.header) + len(m.output) for m in BuiltinTemplate(tokenizer).render(dialogue))
        for dialogue in dialogues
    ]
    assert 400 < max(lengths) <= 512
    pieces = {tokenizer.decode([token]) for name in names for token in tokenizer.encode(name)}
    assert {len(piece) for piece in pieces} == {1, 2}, "names are spelled in letters and pairs"


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
