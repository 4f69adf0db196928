"""Which messages learn and what they see: each policy, whole and where dialogues are too long."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from dialogue_cases import dialogues
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.encoding import CHANNEL_NAMES, Rejected, fit, fit_many
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message, response_units, turn_of_messages
from tests.dialogue.chat_forms import checkpoint


def turn(number: int, *, reply: bool = True) -> list[Message]:
    said = [
        Message("user", f"question {number}"),
        Message("assistant", f"asked {number}", "state"),
        Message("assistant", f"so {number}", "reason"),
        Message("assistant", "", "call", "find", {"n": number}),
        Message("tool", f"found {number}", name="find"),
    ]
    return [*said, Message("assistant", f"answer {number}")] if reply else said[:1]


TALK = Dialogue(
    "talk",
    (
        Message("system", "brief"),
        *turn(0),
        *turn(1),
        Message("context", "late"),
        *turn(2),
        *turn(3),
        *turn(4, reply=False),
    ),
    tools=({"name": "find"},),
)
WIDE = 10_000


def ids_of(piece):
    return [int(piece.tokens[0]), *piece.targets.tolist()]


def shape(piece):
    """The turns that are learned in a piece, and those that are seen."""
    on = piece.loss_weights > 0
    return sorted(set(piece.turn_ids[on].tolist())), sorted(set(piece.turn_ids.tolist()) - {-1})


ALL = [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("policy", "pieces"),
    [
        ({}, [([0, 1, 2, 3], ALL)]),
        ({"turns": 1}, [([0], [0])]),
        ({"turns": 2}, [([0, 1], [0, 1])]),
        ({"turns": -1}, [([3], ALL)]),
        ({"turns": -2}, [([2, 3], ALL)]),
        ({"turns": 9}, [([0, 1, 2, 3], [0, 1, 2, 3])]),
        ({"expand": True}, [([n], list(range(n + 1))) for n in range(4)]),
        ({"expand": True, "turns": -1}, [([3], [0, 1, 2, 3])]),
        ({"history": 0}, [([0], [0]), ([1], [1]), ([2], [1, 2]), ([3], [1, 3])]),
        ({"history": 1}, [([0], [0]), ([1], [0, 1]), ([2], [1, 2]), ([3], [1, 2, 3])]),
        ({"hide": ("state",)}, [([n], list(range(n + 1))) for n in range(4)]),
    ],
    ids=str,
)
def test_turns_that_are_learned_and_seen(template, policy, pieces):
    """Each policy by hand; the context said in turn 1 is seen from then on, whatever is cut."""
    found = fit(TALK, template, PolicyConfig(**policy), WIDE)
    assert [shape(piece) for piece in found] == pieces


@pytest.mark.parametrize("hidden", ["state", "reason", "tool", "reply"])
def test_what_is_hidden_of_earlier_turns(template, hidden):
    """Hidden messages stand in their own turn, where they are learned, and in no later one."""
    pieces = fit(TALK, template, PolicyConfig(hide=(hidden,)), WIDE)
    for number, piece in enumerate(pieces):
        held = template.parse(ids_of(piece))
        names = [message.channel or message.role for message in held]
        assert names.count(hidden) == 1
        assert names.count("user") == number + 1
        on = (piece.loss_weights > 0) & (piece.turn_ids == number)
        learned = {CHANNEL_NAMES[i] for i in piece.channel_ids[on]}
        assert learned == {"state", "reason", "call", "reply"}


def learned(pieces):
    """What is learned: (turn, target, weight) over all pieces, sorted."""
    found = []
    for piece in pieces:
        on = piece.loss_weights > 0
        columns = (piece.turn_ids[on], piece.targets[on], piece.loss_weights[on])
        found += zip(*(column.tolist() for column in columns), strict=True)
    return sorted(found)


def pieces_of(dialogue, template, policy, length=WIDE, evaluation=False):
    [pieces] = fit_many([dialogue], template, policy, length, evaluation=evaluation)
    return [] if isinstance(pieces, Rejected) else pieces


POLICIES = [{"expand": True}, {"history": 1}, {"hide": ("state", "tool")}, {"history": 0}]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@settings(max_examples=30)
@given(dialogue=dialogues(max_turns=4))
def test_an_expanded_dialogue_learns_what_one_pass_learns(template, policy, dialogue):
    """Every learned target of the single pass is learned once, with its weight."""
    once = pieces_of(dialogue, template, PolicyConfig())
    expanded = pieces_of(dialogue, template, PolicyConfig(**policy))
    assert learned(expanded) == learned(once)
    assert len(expanded) == len({t for t, *_ in learned(once)})


@cache
def form(name):
    return checkpoint(name)


@pytest.mark.parametrize("policy", [{}, *POLICIES, {"hide": ("reason",), "history": 2}], ids=str)
@pytest.mark.parametrize("name", ["builtin", "chatml", "llama3", "mistral"])
def test_prompts_are_what_training_saw(tokenizer, name, policy):
    """One rendering: a prompt for any response is the beginning of a piece that learns it."""
    policy = PolicyConfig(**policy)
    kind = BuiltinTemplate if name == "builtin" else ChatTemplate
    template = kind(tokenizer if name == "builtin" else form(name), policy.prompted)
    pieces = fit(TALK, template, policy, WIDE)
    turns = turn_of_messages(TALK)
    for unit in response_units(TALK):
        prompt = template.prompt(replace(TALK, messages=TALK.messages[: unit[0]]))
        [piece] = [piece for piece in pieces if turns[unit[0]] in shape(piece)[0]]
        assert ids_of(piece)[: len(prompt)] == prompt
        assert piece.loss_weights[len(prompt) - 1] > 0


def size(template, policy, number):
    """Positions of the piece of one turn, its whole history seen."""
    return len(fit(TALK, template, policy, WIDE)[number].tokens)


@pytest.mark.parametrize("overflow", ["drop", "split"])
def test_an_expanded_turn_drops_its_oldest_history(template, overflow):
    policy = PolicyConfig(expand=True)
    length = size(template, policy, 1)
    found = fit(TALK, template, policy, length, overflow)
    assert [shape(piece)[0] for piece in found] == [[0], [1], [2], [3]]
    assert all(len(piece.tokens) <= length for piece in found)
    # of turn 1 the context stays in every later piece
    assert [shape(piece)[1] for piece in found] == [[0], [0, 1], [1, 2], [1, 2, 3]]


def test_raise_is_about_what_a_turn_is_to_see(template):
    for policy in (PolicyConfig(expand=True), PolicyConfig(history=1)):
        longest = max(size(template, policy, number) for number in range(4))
        assert len(fit(TALK, template, policy, longest, "raise")) == 4
        with pytest.raises(UserError, match=f"talk: {longest} tokens exceed data.length"):
            fit(TALK, template, policy, longest - 1, "raise")


def test_the_first_turns_survive_a_long_dialogue(template):
    """What follows the first k turns takes no room, so it pushes none of them out."""
    policy = PolicyConfig(turns=1)
    length = size(template, policy, 0)
    assert [shape(piece) for piece in fit(TALK, template, policy, length)] == [([0], [0])]
    long = replace(TALK, messages=(*TALK.messages, Message("assistant", "answer " * 200)))
    with pytest.raises(Rejected, match="nothing left to learn"):
        fit(long, template, PolicyConfig(turns=-1), length)


@pytest.mark.parametrize("policy", [{"turns": -1}, {"turns": 1}, {"expand": True}], ids=str)
@settings(max_examples=20)
@given(dialogue=dialogues(max_turns=4), length=st.integers(20, 120))
def test_evaluation_scores_the_same_whatever_is_learned(template, policy, dialogue, length):
    """Two runs that differ in turns or expansion are scored on equal pieces."""
    ours = pieces_of(dialogue, template, PolicyConfig(**policy), length, True)
    theirs = pieces_of(dialogue, template, PolicyConfig(), length, True)
    assert [(ids_of(p), p.loss_weights.tolist()) for p in ours] == [
        (ids_of(p), p.loss_weights.tolist()) for p in theirs
    ]


def test_evaluation_sees_no_more_history_than_training(template):
    policy = PolicyConfig(history=1, hide=("state",), turns=-1, channels=("reply",))
    scored = fit(TALK, template, policy, WIDE, evaluation=True)
    trained = fit(TALK, template, replace(policy, turns=0), WIDE)
    assert [ids_of(piece) for piece in scored] == [ids_of(piece) for piece in trained]
    assert [shape(piece)[0] for piece in scored] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"hide": ("sate",)}, r"policy\.hide: unknown value 'sate'; did you mean 'state'"),
        ({"hide": ("user",)}, r"policy\.hide: unknown value 'user'"),
        ({"hide": ("call",)}, r"policy\.hide has 'call' without 'tool'"),
        ({"history": -1}, r"policy\.history=-1 must be at least 0"),
        ({"turns": 1.5}, r"turns must be int, got 1\.5"),
    ],
)
def test_mistakes_are_told(section, message):
    with pytest.raises(UserError, match=message):
        parse(PolicyConfig, section, "here")
