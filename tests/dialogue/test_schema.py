from __future__ import annotations

import json

import pytest
from dialogue_cases import dialogues
from hypothesis import given
from hypothesis import strategies as st

from dlm.dialogue.schema import (
    Dialogue,
    Message,
    RecordError,
    from_json,
    response_units,
    restore,
    to_json,
    turn_of_messages,
    turns,
    validate,
)

USER = {"role": "user", "content": "hi"}
REPLY = {"role": "assistant", "content": "hello"}
CALL = {"role": "assistant", "channel": "call", "name": "find", "arguments": {"price": "cheap"}}
RESULT = {"role": "tool", "name": "find", "content": "Marlo"}

FULL = {
    "id": "c-17",
    "task": "booking",
    "tools": [{"name": "find", "description": "finds", "parameters": {"type": "object"}}],
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "context", "content": "the city is small"},
        {"role": "user", "content": "a cheap table for four tonight", "name": "Ann"},
        {"role": "assistant", "channel": "intent", "content": "book_table"},
        {"role": "assistant", "channel": "state", "content": "people=4", "weight": 0.5},
        {"role": "assistant", "channel": "reason", "content": "cheap first"},
        CALL,
        RESULT,
        {"role": "assistant", "channel": "act", "content": "offer(name=Marlo)"},
        {"role": "assistant", "channel": "reply", "content": "Marlo?", "meta": {"seen": True}},
    ],
    "candidates": ["yes", "no"],
    "answer": 1,
    "chosen": [USER],
    "rejected": [{"role": "user", "content": [{"type": "image", "path": "a.png"}]}],
    "label": False,
    "rating": 4,
    "meta": {"city": "x"},
}


def dialogue(*messages):
    return from_json({"messages": list(messages)}, "f:1")


@given(case=dialogues())
def test_records_round_trip(case):
    """Every generated dialogue is valid and comes back from its line of JSON, checked or not."""
    line = json.dumps(to_json(case))
    assert from_json(json.loads(line), "f:1") == restore(json.loads(line)) == case


def test_a_whole_record_round_trips():
    case = from_json(FULL, "f:1")
    assert to_json(case) == FULL
    assert restore(to_json(case)) == case
    assert case.messages[6] == Message("assistant", "", "call", "find", {"price": "cheap"})
    assert case.messages[4].weight == 0.5
    assert case.rejected[0].content == ({"type": "image", "path": "a.png"},)


def test_unknown_fields_are_kept_in_meta():
    case = from_json(
        {"messages": [{**USER, "lang": "en"}], "source": 3, "meta": {"city": "x"}}, "f:1"
    )
    assert case.meta == {"city": "x", "source": 3}
    assert case.messages[0].meta == {"lang": "en"}
    assert from_json(to_json(case), "f:1") == case


def test_a_missing_id_is_a_digest_of_the_record():
    assert dialogue(USER).id == dialogue(USER).id
    assert dialogue(USER).id != dialogue(REPLY).id
    assert len(dialogue(USER).id) == 16
    assert from_json({"id": 7, "messages": [USER]}, "f:1").id == "7"


def test_the_default_channel_is_reply():
    assert dialogue(REPLY).messages[0].channel == "reply"
    assert Message("assistant", "x").channel == "reply"
    assert Message("user", "x").channel is None


def with_message(**fields):
    return {"messages": [USER, {**REPLY, **fields}]}


def with_messages(*messages):
    return {"messages": list(messages)}


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ([USER], "f:3: expected an object, got a list; give one a line"),
        ({}, "f:3: messages: missing; give the list of messages"),
        (
            {"conversations": []},
            "f:3: messages: missing; this looks like ShareGPT: set data.format",
        ),
        (
            {"prompt": ""},
            "f:3: messages: missing; this looks like prompts with responses: set data",
        ),
        ({"messages": {}}, "f:3: messages: expected a list, got an object"),
        ({"messages": []}, "f:3: messages: empty; a dialogue needs at least one message"),
        ({"messages": ["hi"]}, "f:3: messages[0]: expected an object, got a string"),
        ({"messages": [{}]}, "f:3: messages[0].role: missing; one of system, context, user, ass"),
        (with_message(role="usr"), "messages[1].role: unknown value 'usr'; did you mean 'user'?"),
        (with_message(role=3), "messages[1].role: unknown value a number; one of system, context"),
        (
            with_message(channel="rply"),
            "messages[1].channel: unknown value 'rply'; did you mean 're",
        ),
        (
            with_message(role="user", channel="act"),
            "messages[1].channel: only the assistant has chan",
        ),
        (
            with_message(content=None),
            "messages[1].content: expected a string or a list of parts, got",
        ),
        (with_message(content="a\0b"), "messages[1].content: holds a null byte; remove it"),
        (
            with_message(content="a\ud800"),
            "messages[1].content: holds half a surrogate pair at chara",
        ),
        (with_message(content=["a"]), "messages[1].content[0]: expected an object, got a string"),
        (
            with_message(content=[{"type": "txt"}]),
            "content[0].type: unknown value 'txt'; did you me",
        ),
        (with_message(content=[{"type": "text"}]), "content[0].text: expected a string, got null"),
        (
            with_message(content=[{"type": "image"}]),
            "content[0]: give either path (of a file) or da",
        ),
        (
            with_message(content=[{"type": "audio", "data": "x"}]),
            "content[0].data: no data URI; it be",
        ),
        (
            with_message(weight=-1),
            "messages[1].weight: got a number; give a number from 0 to 1e+06",
        ),
        (with_message(weight=-0.5), "messages[1].weight: got -0.5; give a number from 0 to 1e+06"),
        (with_message(weight=float("nan")), "messages[1].weight: got nan; give a number from 0 to"),
        (with_message(weight=True), "messages[1].weight: got true or false; give a number from 0"),
        (with_message(weight=10**400), "messages[1].weight: got a number; give a number from 0 to"),
        (with_message(name=""), "messages[1].name: a name is one line of text, not empty"),
        (with_message(name="a\nb"), "messages[1].name: a name is one line of text, not empty"),
        (with_message(arguments={}), "messages[1].arguments: only a call has arguments; remove it"),
        (with_message(meta=3), "messages[1].meta: expected an object, got a number"),
        (
            with_message(lang="a", meta={"lang": "b"}),
            "messages[1].meta: 'lang' stands in meta and b",
        ),
        (with_message(meta={"a": ["\0"]}), "messages[1].meta: holds a null byte; remove it"),
        (
            with_message(tool_calls=[{}]),
            "tool_calls: not of this format; for OpenAI's set data.form",
        ),
        (
            with_messages(USER, RESULT),
            "messages[1]: a tool result without its call; put the assist",
        ),
        (with_messages(CALL, USER, RESULT), "messages[2]: a tool result without its call"),
        (with_messages(CALL, REPLY, RESULT), "messages[2]: a tool result without its call"),
        (with_messages(CALL, RESULT, RESULT), "messages[2]: a tool result without its call"),
        (with_messages(CALL, {**RESULT, "name": "list"}), "messages[1]: a tool result without its"),
        (
            with_messages({**CALL, "name": None}),
            "messages[0]: a call has a name and arguments and n",
        ),
        (
            with_messages({**CALL, "content": "x"}),
            "messages[0]: a call has a name and arguments and",
        ),
        (
            with_messages({**CALL, "arguments": None}),
            "messages[0]: a call has a name and arguments",
        ),
        (
            with_messages({**CALL, "arguments": "{}"}),
            "messages[0].arguments: expected an object, got",
        ),
        (
            with_messages({**CALL, "arguments": {"a": float("nan")}}),
            "arguments: not JSON: Out of ran",
        ),
        (
            with_messages({**CALL, "arguments": {"a": "\udc00"}}),
            "arguments: holds half a surrogate",
        ),
        ({"messages": [USER], "id": ["a"]}, "f:3: id: expected a string, got a list"),
        ({"messages": [USER], "task": None}, "f:3: task: expected a string, got null"),
        ({"messages": [USER], "tools": {}}, "f:3: tools: expected a list, got an object"),
        ({"messages": [USER], "tools": [{}]}, "f:3: tools[0].name: expected a string, got null"),
        (
            {"messages": [USER], "tools": [{"name": "a", "parameters": 1}]},
            "tools[0].parameters: expe",
        ),
        (
            {"messages": [USER], "candidates": [1]},
            "f:3: candidates[0]: expected a string, got a nu",
        ),
        ({"messages": [USER], "answer": 0}, "f:3: answer: given without candidates"),
        (
            {"messages": [USER], "candidates": ["a"], "answer": 1},
            "f:3: answer: no index of a candida",
        ),
        ({"messages": [USER], "label": 1}, "f:3: label: expected true or false, got a number"),
        ({"messages": [USER], "rating": "4"}, "f:3: rating: expected a number, got a string"),
        (
            {"messages": [USER], "chosen": [RESULT]},
            "f:3: chosen[0]: a tool result without its call",
        ),
        ({"messages": [USER], "rejected": [{"role": "x"}]}, "f:3: rejected[0].role: unknown value"),
    ],
)
def test_bad_records_are_told_in_one_line(record, error):
    with pytest.raises(RecordError) as caught:
        from_json(record, "f:3")
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("f:3: ")


@pytest.mark.parametrize(("first", "second"), [("act", "state"), ("intent", "intent")])
def test_channels_keep_their_order(first, second):
    written = [{**REPLY, "channel": channel} for channel in (first, second)]
    with pytest.raises(RecordError, match=rf"messages\[2\]\.channel: '{second}' after '{first}'"):
        dialogue(USER, *written)
    dialogue(USER, written[0], USER, written[1])


def test_a_round_goes_on_from_reason_after_a_call():
    reason = {**REPLY, "channel": "reason"}
    dialogue(USER, reason, CALL, RESULT, reason, CALL, CALL, RESULT, RESULT, REPLY)
    with pytest.raises(RecordError, match="'state' after"):
        dialogue(USER, CALL, RESULT, {**REPLY, "channel": "state"})


def test_a_call_may_stay_without_its_result():
    case = dialogue(USER, CALL, {"role": "user", "content": ""}, REPLY)
    assert turns(case) == [(0, 1), (2, 3)]


def test_an_unnamed_result_answers_any_call():
    dialogue(CALL, {"role": "tool", "content": "x"})
    dialogue({**CALL, "name": "a"}, CALL, {"role": "tool", "content": "x"}, RESULT)


def test_an_unreadable_call_is_kept_but_not_learned():
    unreadable = {"role": "assistant", "channel": "call", "content": "find(", "weight": 0}
    dialogue(USER, unreadable, {"role": "tool", "content": "not JSON"}, CALL, RESULT)
    with pytest.raises(RecordError, match="its text alone and weight 0"):
        dialogue(USER, {**unreadable, "weight": 1})


def test_an_ending_continues_the_messages():
    from_json({"messages": [USER, CALL], "chosen": [RESULT, REPLY], "rejected": [REPLY]}, "f:1")


def test_turns_and_units_of_a_worked_example():
    case = from_json(FULL, "f:1")
    assert turn_of_messages(case) == (-1, -1, 0, 0, 0, 0, 0, 0, 0, 0)
    assert turns(case) == [(2, 3, 4, 5, 6, 7, 8, 9)]
    assert response_units(case) == [(3, 4, 5, 6), (8, 9)]


def test_the_assistant_may_speak_first_and_twice():
    """An absent user message counts as empty: the assistant's word begins a turn."""
    case = dialogue({"role": "context", "content": "x"}, REPLY, REPLY, USER, CALL, CALL, REPLY)
    assert turns(case) == [(1,), (2,), (3, 4, 5, 6)]
    assert response_units(case) == [(1,), (2,), (4,), (5,), (6,)]


@given(case=dialogues())
def test_turns_and_units_cut_every_dialogue(case):
    """Turns are all messages from the first on; units all of the assistant's, in order."""
    grouped = [index for turn in turns(case) for index in turn]
    assert grouped == list(range(len(case.messages) - len(grouped), len(case.messages)))
    units = response_units(case)
    spoken = [i for i, message in enumerate(case.messages) if message.role == "assistant"]
    assert [index for unit in units for index in unit] == spoken
    for unit in units:
        assert [case.messages[i].channel in ("call", "reply") for i in unit[:-1]] == [False] * (
            len(unit) - 1
        )


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "channel", "weight", "tools", "meta"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(record=json_like, field=st.sampled_from(sorted({*FULL, "x"})), data=st.data())
def test_any_json_is_a_dialogue_or_one_line(record, field, data):
    """Whatever stands in a record or in one of its fields, nothing but a RecordError comes."""
    index = data.draw(st.integers(0, 9))
    key = data.draw(st.sampled_from(["role", "content", "channel", "name", "arguments", "weight"]))
    messages = list(FULL["messages"])
    messages[index] = {**messages[index], key: record}
    errors = []
    for mutated in (record, {**FULL, field: record}, {**FULL, "messages": messages}):
        try:
            validate(from_json(mutated, "f:1"), "f:1")
        except RecordError as error:
            errors.append(str(error))
    assert "\n" not in "".join(errors)


def test_a_dialogue_made_in_python_is_checked_alike():
    with pytest.raises(RecordError, match="messages: empty"):
        validate(Dialogue("a", ()), "made")
