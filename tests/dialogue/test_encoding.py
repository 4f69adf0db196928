from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from dialogue_cases import as_read, dialogues
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.core.errors import UserError
from dlm.dialogue.checks import RecordError
from dlm.dialogue.encoding import (
    CHANNEL_NAMES,
    Rejected,
    encode,
    fit,
    fit_many,
)
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message, response_units, turn_of_messages
from dlm.dialogue.template import message_text
from dlm.dialogue.tokenizer import CONTROL

LEARN = PolicyConfig()
WORKED = Dialogue(
    "w",
    (
        Message("system", "brief"),
        Message("user", "Zoë 東京?"),
        Message("assistant", "people=4", "state"),
        Message("assistant", "", "call", "find", {"price": "cheap"}, weight=0.5),
        Message("tool", "Marlo", name="find"),
        Message("assistant", "e\u0301"),
        Message("user", "yes"),
        Message("assistant", "no", weight=0.0),
        Message("user", "<|end|>"),
        Message("assistant", ""),
    ),
    tools=({"name": "find"},),
)


def ids_of(encoded):
    return [int(encoded.tokens[0]), *encoded.targets.tolist()]


def spans(encoded, template):
    """The positions t of each rendered message's targets, found by the terminators alone."""
    end = template.tokenizer.control("<|end|>")
    stops = [t + 1 for t, token in enumerate(encoded.targets.tolist()) if token == end]
    return [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]


def assert_labels_spell(encoded, dialogue, template, policy=LEARN):
    """The learned targets of a message are its channel, exactly its text, and the terminator."""
    messages = [None] * bool(dialogue.tools) + list(dialogue.messages)
    cuts = spans(encoded, template)
    assert len(cuts) == len(messages)
    for message, cut in zip(messages, cuts, strict=True):
        weights = encoded.loss_weights[cut]
        weight = policy.weight(message) if message else 0.0
        assert set(weights[weights > 0].tolist()) == ({weight} if weight else set())
        if weight:
            channel, *body, end = encoded.targets[cut][weights > 0].tolist()
            assert channel == template.tokenizer.control(f"<|{message.channel}|>")
            assert (
                b"".join(map(template.tokenizer.token_bytes, body))
                == message_text(message).encode()
            )
            assert all(token < template.tokenizer.text_size for token in body)
            assert end == template.tokenizer.control("<|end|>")


def assert_terminators_learned(encoded, dialogue, template, policy=LEARN):
    """Every learned message's terminator is learned, no other one is."""
    messages = [None] * bool(dialogue.tools) + list(dialogue.messages)
    ends = encoded.loss_weights[encoded.targets == template.tokenizer.control("<|end|>")]
    wanted = [policy.weight(message) if message else 0.0 for message in messages]
    assert ends.tolist() == wanted


@settings(max_examples=200)
@given(dialogue=dialogues())
def test_labels_spell_the_span(template, dialogue):
    """Labels spell the span: learned targets are a message's text and terminator, to the byte."""
    assert_labels_spell(encode(dialogue, template, LEARN), dialogue, template)


@given(dialogue=dialogues())
def test_the_terminator_is_learned(template, dialogue):
    """The terminator is learned: of each learned message, and of no other."""
    assert_terminators_learned(encode(dialogue, template, LEARN), dialogue, template)


def shifted(by):
    return lambda encoded, template: replace(
        encoded, loss_weights=np.roll(encoded.loss_weights, by)
    )


def unshifted(encoded, template):
    return replace(encoded, targets=encoded.tokens)


def terminators_masked(encoded, template):
    ends = encoded.targets == template.tokenizer.control("<|end|>")
    return replace(encoded, loss_weights=np.where(ends, 0, encoded.loss_weights))


def content_only(encoded, template):
    control = encoded.targets >= template.tokenizer.text_size
    return replace(encoded, loss_weights=np.where(control, 0, encoded.loss_weights))


def full(encoded, template):
    return replace(encoded, loss_weights=np.ones_like(encoded.loss_weights))


@pytest.mark.parametrize(
    "mutant", [shifted(1), shifted(-1), unshifted, terminators_masked, content_only, full]
)
def test_labels_that_do_not_spell_the_span_are_seen(template, mutant):
    """Labels spell the span: a mask or targets one off, too short or too long are seen."""
    encoded = encode(WORKED, template, LEARN)
    assert_labels_spell(encoded, WORKED, template)
    with pytest.raises(AssertionError):
        assert_labels_spell(mutant(encoded, template), WORKED, template)


@pytest.mark.parametrize("mutant", [shifted(-1), terminators_masked, content_only, full])
def test_terminators_left_out_are_seen(template, mutant):
    """The terminator is learned: masking it, learning content only or everything is seen."""
    encoded = encode(WORKED, template, LEARN)
    assert_terminators_learned(encoded, WORKED, template)
    with pytest.raises(AssertionError):
        assert_terminators_learned(mutant(encoded, template), WORKED, template)


@given(dialogue=dialogues())
def test_arrays_keep_their_contract(template, dialogue):
    encoded = encode(dialogue, template, LEARN)
    *arrays, ending = fields(encoded)
    assert (ending.name, encoded.ending) == ("ending", "")
    for field in arrays:
        array = getattr(encoded, field.name)
        assert array.shape == encoded.tokens.shape
        assert array.dtype == (np.float32 if field.name == "loss_weights" else np.int32)
    assert (encoded.tokens[1:] == encoded.targets[:-1]).all()
    assert (encoded.unit_ids[encoded.loss_weights > 0] >= 0).all()


@given(dialogue=dialogues())
def test_positions_know_channel_turn_and_unit(template, dialogue):
    """Each target carries its message's channel and turn; outputs of the assistant their unit."""
    encoded = encode(dialogue, template, LEARN)
    offset = int(bool(dialogue.tools))
    units = {i: unit for unit, group in enumerate(response_units(dialogue)) for i in group}
    for number, cut in enumerate(spans(encoded, template)):
        index = number - offset
        message = dialogue.messages[index] if index >= 0 else None
        name = (message.channel or message.role) if message else "tools"
        assert set(encoded.channel_ids[cut].tolist()) == {CHANNEL_NAMES.index(name)}
        turn = turn_of_messages(dialogue)[index] if message else -1
        assert set(encoded.turn_ids[cut].tolist()) == {turn}
        header = 1 if number else 0
        assert set(encoded.unit_ids[cut][:header].tolist()) <= {-1}
        unit = units.get(index, -1) if message else -1
        assert set(encoded.unit_ids[cut][header:].tolist()) == {unit}


def test_channels_are_numbered_once():
    assert [CHANNEL_NAMES.index(name) for name in CHANNEL_NAMES] == list(range(11))
    assert CHANNEL_NAMES[5:] == ("intent", "state", "reason", "call", "act", "reply")


def test_a_policy_chooses_channels(template):
    policy = PolicyConfig(channels=("state", "reply"))
    encoded = encode(WORKED, template, policy)
    assert_labels_spell(encoded, WORKED, template, policy)
    learned = {CHANNEL_NAMES[i] for i in encoded.channel_ids[encoded.loss_weights > 0]}
    assert learned == {"state", "reply"}
    with pytest.raises(RecordError, match=r"policy\.channels: unknown value 'stat'; did you mean"):
        PolicyConfig(channels=("stat",))


def test_no_role_but_the_assistant_is_ever_learned():
    for role in ("system", "context", "user", "tool"):
        assert LEARN.weight(Message(role, "x", weight=3.0)) == 0.0


# Long dialogues


def kept_messages(dialogue, first, last):
    turn_ids = turn_of_messages(dialogue)
    return [
        message
        for message, turn in zip(dialogue.messages, turn_ids, strict=True)
        if turn <= last and (turn >= first or message.role in ("system", "context"))
    ]


def part(dialogue, first, last):
    return replace(dialogue, messages=tuple(kept_messages(dialogue, first, last)))


def size(dialogue, template):
    """Positions of a dialogue, from its prompt: without the header, and the last is no input."""
    return len(template.prompt(dialogue)) - 2


def fitting(dialogue, template, length, *args):
    pieces = fit_many([dialogue], template, LEARN, length, *args)[0]
    return [] if isinstance(pieces, Rejected) else pieces


def learned_by_turn(encoded):
    on = encoded.loss_weights > 0
    rows = zip(encoded.turn_ids[on], encoded.targets[on], encoded.loss_weights[on], strict=True)
    result = {}
    for turn, target, weight in rows:
        result.setdefault(int(turn), []).append((int(target), float(weight)))
    return result


lengths = st.integers(10, 120)


@settings(max_examples=150)
@given(
    dialogue=dialogues(max_turns=6),
    length=lengths,
    mode=st.sampled_from([("drop",), ("split",), ("drop", True)]),
)
def test_no_message_is_cut(template, dialogue, length, mode):
    """Truncation never cuts a message; a piece is whole turns in a row and all that is kept."""
    for piece in fitting(dialogue, template, length, *mode):
        assert len(piece.tokens) <= length
        assert piece.loss_weights.any()
        held = template.parse(ids_of(piece))
        last = int(piece.turn_ids.max())
        wanted = [
            [as_read(message) for message in kept_messages(dialogue, first, last)]
            for first in range(last + 1)
        ]
        assert held in wanted
        assert ids_of(piece) == template.prompt(part(dialogue, wanted.index(held), last))[:-1]


@settings(max_examples=150)
@given(dialogue=dialogues(max_turns=6), length=lengths)
def test_evaluation_scores_everything_once(template, dialogue, length):
    """In evaluation each learned message that fits with its turn is scored once, others never."""
    assert_scored_once(
        fitting(dialogue, template, length, "raise", True), dialogue, template, length
    )


def assert_scored_once(pieces, dialogue, template, length):
    whole = learned_by_turn(encode(dialogue, template, LEARN))
    scored = [
        (turn, targets) for piece in pieces for turn, targets in learned_by_turn(piece).items()
    ]
    fits = [turn for turn in whole if size(part(dialogue, turn, turn), template) <= length]
    assert sorted(scored) == sorted((turn, whole[turn]) for turn in fits)


def test_evaluation_that_scores_twice_or_never_is_seen(template):
    """In evaluation everything is scored once: a lost piece and a twice scored turn are seen."""
    case = chat(7)
    length = size(part(case, 0, 3), template)
    pieces = fitting(case, template, length, "drop", True)
    assert_scored_once(pieces, case, template, length)
    twice = replace(pieces[1], loss_weights=full(pieces[1], template).loss_weights)
    for mutant in (pieces[:-1], [*pieces, pieces[0]], [pieces[0], twice, *pieces[2:]]):
        with pytest.raises(AssertionError):
            assert_scored_once(mutant, case, template, length)


@settings(max_examples=150)
@given(dialogue=dialogues(max_turns=6), length=lengths)
def test_evaluation_sees_the_longest_history(template, dialogue, length):
    """A scored turn is read with as many earlier turns as fit."""
    for piece in fitting(dialogue, template, length, "drop", True):
        for turn in learned_by_turn(piece):
            fits = [
                first
                for first in range(turn + 1)
                if size(part(dialogue, first, turn), template) <= length
            ]
            seen = template.prompt(part(dialogue, fits[0], turn))[:-1]
            assert ids_of(piece)[: len(seen)] == seen


@settings(max_examples=150)
@given(dialogue=dialogues(max_turns=6), length=lengths)
def test_split_learns_every_fitting_turn_once(template, dialogue, length):
    whole = learned_by_turn(encode(dialogue, template, LEARN))
    split = [
        (turn, targets)
        for piece in fitting(dialogue, template, length, "split")
        for turn, targets in learned_by_turn(piece).items()
    ]
    fits = [turn for turn in whole if size(part(dialogue, turn, turn), template) <= length]
    assert sorted(split) == sorted((turn, whole[turn]) for turn in fits)


def chat(count, **last):
    """A dialogue of equal turns, a system message first, context in the second turn."""
    messages = [Message("system", "brief")]
    for turn in range(count):
        messages.append(Message("user", "book a table"))
        if turn == 1:
            messages.append(Message("context", "it is late"))
        messages.append(
            Message("assistant", "a cheap place", **(last if turn + 1 == count else {}))
        )
    return Dialogue("chat", tuple(messages), tools=({"name": "find"},))


def seen_turns(piece):
    return sorted({int(turn) for turn in piece.turn_ids} - {-1})


def test_drop_keeps_the_newest_turns_and_what_stands_above(template):
    case = chat(7)
    length = size(part(case, 4, 6), template)
    [piece] = fit(case, template, LEARN, length)
    assert len(piece.tokens) == length
    held = template.parse(ids_of(piece))
    assert [message.role for message in held[:3]] == ["system", "context", "user"]
    assert sorted(learned_by_turn(piece)) == [4, 5, 6]
    [shorter] = fit(case, template, LEARN, length - 1)
    assert sorted(learned_by_turn(shorter)) == [5, 6]
    [whole] = fit(case, template, LEARN, size(case, template))
    assert seen_turns(whole) == [0, 1, 2, 3, 4, 5, 6]


def test_split_shares_no_turn(template):
    case = chat(7)
    pieces = fit(case, template, LEARN, size(part(case, 4, 6), template), "split")
    # the context is not there before its turn, so more turns fit into the first piece
    assert [sorted(learned_by_turn(piece)) for piece in pieces] == [[0, 1, 2], [3, 4, 5], [6]]


def test_evaluation_shares_a_piece_where_the_history_is_the_same(template):
    case = chat(7)
    pieces = fit(case, template, LEARN, size(part(case, 0, 3), template), evaluation=True)
    assert [sorted(learned_by_turn(piece)) for piece in pieces] == [[0, 1, 2, 3], [4], [5], [6]]
    assert [seen_turns(piece) for piece in pieces[1:]] == [
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [1, 3, 4, 5, 6],
    ]


def test_raise_names_dialogue_and_remedy(template):
    case = chat(3)
    tokens = size(case, template)
    with pytest.raises(
        UserError, match=f"dialogue chat: {tokens} tokens exceed data.length=9; raise"
    ):
        fit(case, template, LEARN, 9, "raise")
    assert len(fit(case, template, LEARN, tokens, "raise")) == 1


def test_a_turn_that_never_fits_is_left_out(template):
    long = Message("user", "a table " * 40)
    case = replace(chat(3), messages=(*chat(3).messages, long, Message("assistant", "no")))
    length = size(part(case, 0, 2), template)
    for mode in (("drop",), ("split",), ("drop", True)):
        [piece] = fit(case, template, LEARN, length, *mode)
        assert sorted(learned_by_turn(piece)) == [0, 1, 2]
    alone = Dialogue("alone", (long, Message("assistant", "no")))
    with pytest.raises(
        Rejected, match="dialogue alone: too long: none of its turns fits 30"
    ) as error:
        fit(alone, template, LEARN, 30)
    assert error.value.reason == "too long"


@pytest.mark.parametrize("mode", [("drop",), ("split",), ("raise",), ("drop", True)])
def test_no_empty_mask_passes(template, mode):
    """No empty or full mask passes: a dialogue without a weight is refused by name."""
    for case in (
        chat(1, weight=0.0),
        Dialogue("chat", (Message("system", "brief"),)),
        Dialogue("chat", (Message("user", "hi"),)),
    ):
        [refused] = fit_many([case], template, LEARN, 500, *mode)
        assert isinstance(refused, Rejected)
        assert "dialogue chat: nothing to learn" in str(refused)
    encoded = encode(chat(2), template, LEARN)
    assert 0 < (encoded.loss_weights > 0).sum() < encoded.loss_weights.size


def test_no_mask_is_empty_after_truncation(template):
    """No empty mask passes: what has a weight may be what was dropped."""
    case = chat(3)
    unlearned = [
        replace(message, weight=0.0) if i > 3 and message.role == "assistant" else message
        for i, message in enumerate(case.messages)
    ]
    case = replace(case, messages=tuple(unlearned))
    length = size(part(case, 1, 2), template)
    with pytest.raises(Rejected, match="nothing left to learn: what has a weight is in turns drop"):
        fit(case, template, LEARN, length)
    [piece] = fit(case, template, LEARN, length, evaluation=True)
    assert sorted(learned_by_turn(piece)) == [0]
    assert [sorted(learned_by_turn(p)) for p in fit(case, template, LEARN, length, "split")] == [
        [0]
    ]


def test_an_unknown_overflow_is_refused(template):
    with pytest.raises(
        UserError, match=r"data\.overflow: unknown value 'dorp'; did you mean 'drop'"
    ):
        fit(chat(1), template, LEARN, 100, "dorp")


def test_many_at_once_give_what_each_gives(template):
    cases = [
        chat(1),
        chat(4, weight=0.0),
        chat(9, weight=0.5),
        Dialogue("none", (Message("user"),)),
    ]
    for case, pieces in zip(cases, fit_many(cases, template, LEARN, 60), strict=True):
        if isinstance(pieces, Rejected):
            with pytest.raises(Rejected, match=pieces.reason):
                fit(case, template, LEARN, 60)
        else:
            for ours, theirs in zip(pieces, fit(case, template, LEARN, 60), strict=True):
                for field in fields(ours):
                    assert np.array_equal(getattr(ours, field.name), getattr(theirs, field.name))


def test_control_tokens_of_the_worked_example(template):
    """The learned control tokens are channels and terminators; no header is."""
    encoded = encode(WORKED, template, LEARN)
    learned = encoded.targets[encoded.loss_weights > 0]
    names = {template.tokenizer.control_name(int(token)) for token in learned} - {None}
    assert names == {"<|state|>", "<|call|>", "<|reply|>", "<|end|>"}
    assert names < set(CONTROL)
