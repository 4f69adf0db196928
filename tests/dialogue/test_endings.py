"""Endings: which there are, what a token loss learns of them, and groups that share a row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.dialogue.encoding import Rejected, encode, fit_many
from dlm.dialogue.endings import alternatives, completed, has_endings
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message

LEARN = PolicyConfig()
HISTORY = (
    Message("system", "brief"),
    Message("user", "a table"),
    Message("assistant", "for how many?"),
    Message("user", "four"),
)
PAIR = Dialogue(
    "p",
    HISTORY,
    chosen=(Message("assistant", "people=4", "state"), Message("assistant", "booked")),
    rejected=(Message("assistant", "I would not know that at all"),),
)
CHOICE = Dialogue("c", HISTORY, candidates=("no", "booked", "why?"), answer=1)


def groups(dialogue, template, length=200, policy=LEARN, **options):
    return fit_many([dialogue], template, policy, length, groups=True, **options)[0]


def learned(piece, template):
    """The text of what is learned, with its control tokens."""
    ids = piece.targets[piece.loss_weights > 0].tolist()
    names = map(template.tokenizer.control_name, ids)
    return "".join(
        name or template.tokenizer.decode([i]) for i, name in zip(ids, names, strict=True)
    )


def test_a_pair_and_a_choice_by_hand():
    assert [(a.ending, a.history) for a in alternatives(PAIR)] == [("chosen", 4), ("rejected", 4)]
    assert [a.dialogue.messages[4:] for a in alternatives(PAIR)] == [PAIR.chosen, PAIR.rejected]
    found = alternatives(CHOICE)
    assert [a.ending for a in found] == ["wrong", "right", "wrong"]
    assert [a.dialogue.messages[4:] for a in found] == [
        (Message("assistant", text),) for text in CHOICE.candidates
    ]
    assert not any(has_endings(a.dialogue) for a in alternatives(PAIR))


def test_candidates_take_the_place_of_the_reply():
    """No leak: where the dialogue ends with the reply, no candidate is read behind it."""
    said = Message("assistant", "booked", weight=0.5)
    found = alternatives(replace(CHOICE, messages=(*HISTORY, said)))
    assert [a.dialogue.messages for a in found] == [
        (*HISTORY, replace(said, content=text)) for text in CHOICE.candidates
    ]
    before = (*HISTORY, Message("assistant", "offer", "act"))
    acted = alternatives(replace(CHOICE, messages=before))
    assert [a.dialogue.messages[-2:] for a in acted] == [
        (before[-1], Message("assistant", text)) for text in CHOICE.candidates
    ]


@pytest.mark.parametrize(
    "dialogue",
    [
        replace(CHOICE, answer=None),
        replace(CHOICE, candidates=("booked",), answer=0),
        replace(PAIR, rejected=()),
        replace(PAIR, chosen=()),
    ],
)
def test_without_two_endings_there_is_nothing_to_compare(dialogue, template):
    assert not has_endings(dialogue)
    assert alternatives(dialogue) == []
    rejected = groups(dialogue, template)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "nothing to compare"


def test_a_token_loss_learns_the_preferred_ending(template):
    """Chosen or right, as any dialogue's last messages; the others are neither read nor learned."""
    plain = Dialogue("p", (*HISTORY, *PAIR.chosen))
    assert completed(PAIR) == plain
    assert completed(CHOICE).messages == (*HISTORY, Message("assistant", "booked"))
    assert completed(replace(PAIR, rejected=())) == plain
    assert completed(plain) == plain
    assert completed(completed(CHOICE)) == completed(CHOICE)
    assert completed(CHOICE).candidates == CHOICE.candidates  # a scorer of choices reads them
    for evaluation in (False, True):
        (piece,) = fit_many([PAIR], template, LEARN, 200, evaluation=evaluation)[0]
        whole = encode(plain, template, LEARN)
        np.testing.assert_array_equal(piece.targets, whole.targets)
        np.testing.assert_array_equal(piece.loss_weights, whole.loss_weights)


def test_a_group_learns_the_endings_alone(template):
    """Every ending behind the same history, itself learned to its terminator and nothing else."""
    chosen, rejected = groups(PAIR, template)
    assert (chosen.ending, rejected.ending) == ("chosen", "rejected")
    assert learned(chosen, template) == "<|state|>people=4<|end|><|reply|>booked<|end|>"
    assert learned(rejected, template) == "<|reply|>I would not know that at all<|end|>"
    found = groups(CHOICE, template)
    assert [piece.ending for piece in found] == ["wrong", "right", "wrong"]
    assert [learned(piece, template) for piece in found] == [
        f"<|reply|>{text}<|end|>" for text in CHOICE.candidates
    ]
    for piece, member in zip(found, alternatives(CHOICE), strict=True):
        whole = encode(member.dialogue, template, LEARN)
        np.testing.assert_array_equal(piece.tokens, whole.tokens)
        np.testing.assert_array_equal(piece.turn_ids, whole.turn_ids)


def test_a_message_keeps_its_weight_and_a_channel_its_policy(template):
    half = replace(PAIR, chosen=(replace(PAIR.chosen[0], weight=0.5), PAIR.chosen[1]))
    chosen, _ = groups(half, template)
    assert set(chosen.loss_weights.tolist()) == {0.0, 0.5, 1.0}
    replies = PolicyConfig(channels=("reply",), turns=1, expand=True)
    chosen, _ = groups(PAIR, template, policy=replies)
    assert learned(chosen, template) == "<|reply|>booked<|end|>"
    rejected = groups(PAIR, template, policy=PolicyConfig(channels=("state",)))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "nothing to learn"


def test_a_policy_limits_the_history(template):
    for piece in groups(PAIR, template, policy=PolicyConfig(history=0)):
        assert set(piece.turn_ids.tolist()) == {-1, 1}
    shown = groups(PAIR, template, policy=PolicyConfig(hide=("reply",)))
    assert all(
        len(a.tokens) < len(b.tokens) for a, b in zip(shown, groups(PAIR, template), strict=True)
    )
    assert learned(shown[0], template) == learned(groups(PAIR, template)[0], template)


@pytest.mark.parametrize("case", [PAIR, CHOICE])
@pytest.mark.parametrize("mode", [{}, {"overflow": "split"}, {"evaluation": True}])
def test_the_oldest_turns_are_dropped_of_all_alike(case, mode, template):
    """A row holds the group: one token less and every member loses turn 0, and then all is lost."""
    total = sum(len(piece.tokens) for piece in groups(case, template))
    assert len(groups(case, template, total, **mode)) == len(alternatives(case))
    cut = groups(case, template, total - 1, **mode)
    assert [piece.ending for piece in cut] == [a.ending for a in alternatives(case)]
    for piece, member in zip(cut, alternatives(case), strict=True):
        assert set(piece.turn_ids.tolist()) == {-1, 1}  # system messages stay
        kept = replace(member.dialogue, messages=(HISTORY[0], *member.dialogue.messages[3:]))
        np.testing.assert_array_equal(piece.targets, encode(kept, template, LEARN).targets)
    least = sum(len(piece.tokens) for piece in cut)
    assert len(groups(case, template, least, **mode)) == len(cut)
    refused = groups(case, template, least - 1, **mode)
    assert isinstance(refused, Rejected)
    assert refused.reason == "endings too long for one row"


def test_an_overflow_that_raises_names_the_dialogue(template):
    total = sum(len(piece.tokens) for piece in groups(PAIR, template))
    message = f"dialogue p: its 2 endings, {total} tokens .* exceed data.length={total - 1}"
    with pytest.raises(UserError, match=message):
        groups(PAIR, template, total - 1, overflow="raise")


def test_endings_of_several_turns(template):
    """The ending is kept whole: its own turns are never dropped."""
    longer = (*PAIR.chosen, Message("user", "thanks"), Message("assistant", "bye"))
    case = replace(PAIR, chosen=longer)
    chosen, _ = groups(case, template)
    assert learned(chosen, template).endswith("booked<|end|><|reply|>bye<|end|>")
    total = sum(len(piece.tokens) for piece in groups(case, template))
    chosen, _ = groups(case, template, total - 1)
    assert learned(chosen, template).endswith("booked<|end|><|reply|>bye<|end|>")
    assert set(chosen.turn_ids.tolist()) == {-1, 1, 2}
