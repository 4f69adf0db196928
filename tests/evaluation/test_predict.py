"""Responses from the gold history: what is right in teacher forcing is exactly what is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from dlm.data.pipeline import Batches
from dlm.dialogue.encoding import encode
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message, response_units
from dlm.evaluation.evaluate import make_score_step, score_split
from dlm.evaluation.predict import Prediction, parsed, predict, spelled
from dlm.evaluation.scoring import said
from dlm.generation.engine import Completion, Engine, GenerateConfig, Request
from dlm.losses.cross_entropy import cross_entropy
from tests.evaluation.tiny_talks import LENGTH, TALKS, make_pieces
from tests.manager.scripted import Bookings, ScriptedEngine, called, output_ids, wrote

SYSTEM = Message("system", "Be brief.")
ROOM = 128  # positions; the longest dialogue and a response more
FREE = GenerateConfig(max_new_tokens=40, constrained=False)


@pytest.fixture(scope="module")
def make_engine(model, params, template):
    def make_engine(max_length: int) -> Recording:
        pad = template.tokenizer.control("<|pad|>")
        return Recording(model, params, pad, max_length, max_rows=4)  # few shapes to compile

    return make_engine


class Recording(Engine):
    """Notes the last prompt and what was written after it."""

    def generate(self, requests, config):
        completions = super().generate(requests, config)
        self.last = requests[-1].prompt, completions[-1].ids
        return completions


@pytest.fixture(scope="module")
def predictions(make_engine, template):
    return predict(TALKS, make_engine(ROOM), template, FREE, Bookings)


@pytest.fixture(scope="module")
def longest(template):
    longest = max(len(encode(talk, template, PolicyConfig()).tokens) for talk in TALKS)
    assert longest + FREE.max_new_tokens <= ROOM
    return longest


def is_right(prediction: Prediction) -> bool:
    """The written messages are the gold ones; weights are no part of what is written."""
    return prediction.predicted == tuple(replace(m, weight=1.0) for m in prediction.gold)


def forced_right(talk: Dialogue, template, reference) -> list[bool]:
    """Of each response unit, whether every supervised token is the argmax."""
    piece = encode(talk, template, PolicyConfig())
    correct = reference(piece).correct
    learned = piece.loss_weights > 0
    units = range(len(response_units(talk)))
    return [bool(correct[learned & (piece.unit_ids == unit)].all()) for unit in units]


def test_teacher_forcing_right_in_every_token_is_greedy_generation_exactly(
    predictions, template, reference
):
    """For each response, calls among them: all argmaxes right == the gold messages are written."""
    assert [(p.dialogue, p.unit) for p in predictions] == [
        (talk.id, unit) for talk in TALKS for unit in range(4)
    ]
    forced = [right for talk in TALKS for right in forced_right(talk, template, reference)]
    assert [is_right(prediction) for prediction in predictions] == forced
    for unit in range(4):  # a call, a reply after its result, and replies to the user
        assert set(forced[unit::4]) == {True, False}


def test_a_response_that_ends_in_a_call_is_written_with_its_arguments(predictions):
    right = next(p for p in predictions if p.unit == 0 and is_right(p))
    assert [m.channel for m in right.predicted] == ["state", "call"]
    assert (right.predicted[1].name, set(right.predicted[1].arguments)) == (
        "book",
        {"place", "people"},
    )


def test_exact_match_is_response_accuracy(tmp_path, model, params, template, predictions):
    pieces = make_pieces(TALKS, template, tmp_path)
    batches = Batches(pieces, rows=3, length=LENGTH, shuffle=False)
    step = make_score_step(model, cross_entropy, chunk=64)
    means = score_split(step, params, batches, pieces).means()
    assert means["response_accuracy"].total == sum(map(is_right, predictions))
    assert means["response_accuracy"].count == len(predictions)


def test_room_for_the_longest_dialogue_is_room_enough(make_engine, template, predictions, longest):
    """No turn is dropped where the response fits, however many tokens it could have had."""
    config = replace(FREE, max_new_tokens=2 * longest)
    tight = predict(TALKS, make_engine(longest), template, config, Bookings)
    assert [is_right(p) for p in tight] == [is_right(p) for p in predictions]


def test_a_history_that_is_too_long_loses_its_oldest_turns(make_engine, template, longest):
    """Two dialogues in one, with room for the second: the system's message and the second stay."""
    first, second = TALKS[2], TALKS[4]
    assert first.messages[0] == second.messages[0] == SYSTEM
    both = replace(first, messages=first.messages + second.messages[1:])
    engine = make_engine(longest)
    predicted = predict([both], engine, template, FREE, Bookings)[-1]
    asked, written = engine.last
    alone = predict([second], engine, template, FREE, Bookings)[-1]
    assert (asked, written) == engine.last
    assert alone.finished
    assert (predicted.predicted, predicted.unit) == (alone.predicted, alone.unit + 4)


class Cutting(ScriptedEngine):
    """Cuts every response to a prompt of more than `room` tokens, as a model's limit does."""

    def __init__(self, template, responses, room: int):
        super().__init__(template, responses)
        self.room = room
        self.asked: list[list[int]] = []

    def generate(self, requests: Sequence[Request], config) -> list[Completion]:
        self.asked += [list(request.prompt) for request in requests]
        short = [request for request in requests if len(request.prompt) <= self.room]
        written = iter(super().generate(short, config))
        cut = Completion((5, 6), "length", 0.0)
        return [cut if len(r.prompt) > self.room else next(written) for r in requests]


ONE = (Message("user", "one"), wrote("reply", "1"))
TWO = (Message("user", "two"), Message("context", "kept"), wrote("reply", "2"))
THREE = (Message("user", "three"), wrote("reply", "3"))
CHAT = Dialogue("chat", (SYSTEM, *ONE, *TWO, *THREE))


def test_turns_are_dropped_one_by_one_and_context_is_kept(template):
    """Each response comes back to its own place, however often it was asked for."""
    histories = [  # pass by pass: of all three responses, then of those that were cut
        *((SYSTEM, ONE[0]), (SYSTEM, *ONE, *TWO[:2]), (SYSTEM, *ONE, *TWO, THREE[0])),
        *((SYSTEM, *TWO[:2]), (SYSTEM, *TWO, THREE[0])),
        (SYSTEM, TWO[1], THREE[0]),
    ]
    prompts = [template.prompt(Dialogue("", history)) for history in histories]
    sizes = [len(ids) for ids in prompts]
    room = max(sizes[0], sizes[3], sizes[5])
    assert min(sizes[1], sizes[2], sizes[4]) > room
    engine = Cutting(template, [[wrote("reply", text)] for text in "abc"], room)
    written = predict([CHAT], engine, template, GenerateConfig(), Bookings)
    assert engine.asked == prompts
    assert [said(p.predicted, "reply") for p in written] == ["a", "b", "c"]
    assert [said(p.gold, "reply") for p in written] == ["1", "2", "3"]


def test_the_only_turn_is_not_dropped(template):
    """It stays cut, and nothing is predicted."""
    talk = replace(CHAT, messages=CHAT.messages[:3])
    engine = Cutting(template, [], room=0)
    (prediction,) = predict([talk], engine, template, GenerateConfig(), Bookings)
    assert len(engine.asked) == 1
    assert (prediction.predicted, prediction.finished) == ((), False)


def test_a_response_that_is_too_long_is_asked_for_once(template):
    """`max_new_tokens` is no reason to forget a turn."""
    endless = Completion(tuple([7] * 8), "length", 0.0)
    engine = ScriptedEngine(template, [endless] * 3)
    written = predict([CHAT], engine, template, GenerateConfig(max_new_tokens=8), Bookings)
    assert len(engine.requests) == 3
    assert [(p.predicted, p.finished) for p in written] == [((), False)] * 3


def test_what_may_be_written_follows_the_dialogue_and_its_world(template):
    """Constrained: the tools of that world, and after a result the round goes on from `reason`."""
    opened = []

    def open_world(dialogue):
        opened.append(dialogue.id)
        return Bookings(dialogue)

    book = called("book", place="Rome", people=2)
    talk = TALKS[0]
    replies = [[wrote("reply", text)] for text in "xyz"]
    units = [[wrote("state", "x"), book], *replies]
    engine = ScriptedEngine(template, units * 2)
    written = predict([talk, TALKS[1]], engine, template, GenerateConfig(), open_world)
    assert opened == [talk.id, TALKS[1].id]
    assert [list(p.predicted) for p in written] == units * 2
    assert all(p.finished for p in written)
    asked = [request.prompt for request in engine.requests[:4]]
    ends = [unit[0] for unit in response_units(talk)]
    histories = [replace(talk, messages=talk.messages[:end]) for end in ends]
    assert asked == [template.prompt(history) for history in histories]
    for constrained in (True, False):
        config = GenerateConfig(constrained=constrained)
        unwritten = ScriptedEngine(template, [Completion((), "stuck", 0.0)] * 4)
        predict([talk], unwritten, template, config, Bookings)
        state = template.tokenizer.control("<|state|>")
        assert [r.grammar.allows(state) for r in unwritten.requests] == [
            True,
            not constrained,
            True,
            True,
        ]


def test_a_record_of_a_prediction_is_json(template):
    engine = ScriptedEngine(
        template, [[called("find", place="Rome")], *[[wrote("reply", "é")]] * 3]
    )
    first, second, *_ = predict(TALKS[:1], engine, template, GenerateConfig(), Bookings)
    assert json.loads(json.dumps(first.to_json())) == {
        "dialogue": TALKS[0].id,
        "unit": 0,
        "gold": [
            {"role": "assistant", "channel": "state", "content": "Rome 2"},
            {
                "role": "assistant",
                "channel": "call",
                "name": "book",
                "arguments": {"place": "Rome", "people": 2},
            },
        ],
        "predicted": [
            {
                "role": "assistant",
                "channel": "call",
                "name": "find",
                "arguments": {"place": "Rome"},
            }
        ],
        "finished": True,
    }
    assert second.to_json()["predicted"][0]["content"] == "é"


def test_replies_and_spellings():
    messages = (wrote("act", "offer"), wrote("reply", "Here."))
    assert said(messages, "reply") == "Here."
    assert said((called("find", place="Rome"),), "reply") is None
    assert spelled([*messages, called("find", place="é")]) == [
        ("act", "offer"),
        ("reply", "Here."),
        ("call", '{"name": "find", "arguments": {"place": "é"}}'),
    ]


def test_ids_that_spell_no_messages_are_no_prediction(template):
    messages = [wrote("state", "x"), called("book", place="Rome")]
    ids = output_ids(template, messages)
    assert parsed(ids, template) == tuple(messages)
    assert parsed(ids[:-1], template) == ()
    assert parsed(template.tokenizer.encode("plain text"), template) == ()
    assert parsed([], template) == ()
