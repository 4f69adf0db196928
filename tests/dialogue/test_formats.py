from __future__ import annotations

import json

import pytest

from dlm.dialogue.checks import RecordError
from dlm.dialogue.readers import FORMATS
from dlm.dialogue.schema import Message, from_json


def read_record(record, format):
    return from_json(FORMATS[format](record, "f:1"), "f:1")


def call(identity, name="find", arguments='{"price": "cheap"}'):
    function = {"name": name, "arguments": arguments}
    return {"id": identity, "type": "function", "function": function}


OPENAI = {
    "messages": [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a table"}]},
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [call("c1"), call("c2", "book", "{}")],
            "weight": 0,
        },
        {"role": "tool", "tool_call_id": "c2", "content": "booked"},
        {"role": "tool", "tool_call_id": "c1", "content": "Marlo"},
        {"role": "assistant", "content": "done", "weight": 1, "refusal": None},
    ],
    "tools": [{"type": "function", "function": {"name": "find", "parameters": {}}}],
    "parallel_tool_calls": True,
}


def test_openai_calls_become_messages():
    dialogue = read_record(OPENAI, "openai")
    assert dialogue.messages == (
        Message("system", "be brief"),
        Message("user", ({"type": "text", "text": "a table"},)),
        Message("assistant", "let me see", "reason", weight=0),
        Message("assistant", "", "call", "find", {"price": "cheap"}, 0, {"id": "c1"}),
        Message("assistant", "", "call", "book", {}, 0, {"id": "c2"}),
        Message("tool", "booked", name="book", meta={"tool_call_id": "c2"}),
        Message("tool", "Marlo", name="find", meta={"tool_call_id": "c1"}),
        Message("assistant", "done", "reply", weight=1, meta={"refusal": None}),
    )
    assert dialogue.tools == ({"name": "find", "parameters": {}},)
    assert dialogue.meta == {"parallel_tool_calls": True}


def test_openai_functions_of_old_are_read():
    asked = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}
    record = {"messages": [asked, {"role": "function", "name": "f", "content": "x"}]}
    assert read_record(record, "openai").messages == (
        Message("assistant", "", "call", "f", {}),
        Message("tool", "x", name="f"),
    )


def test_openai_media_become_parts():
    content = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "AA=="}},
    ]
    [message] = read_record({"messages": [{"role": "user", "content": content}]}, "openai").messages
    assert message.content == (
        {"type": "image", "data": "data:image/png;base64,AA=="},
        {"type": "audio", "data": "data:audio/wav;base64,AA=="},
    )


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (
            {"role": "tool", "tool_call_id": "c9", "content": ""},
            "[0].tool_call_id: a tool result wi",
        ),
        (
            {"role": "assistant", "content": None},
            "[0].content: expected a string or a list of parts",
        ),
        (
            {"role": "assistant", "tool_calls": {}},
            "[0].content: expected a string or a list of parts",
        ),
        (
            {"role": "assistant", "tool_calls": [{}]},
            "[0].tool_calls[0].function: expected an object",
        ),
        (
            {"role": "assistant", "tool_calls": [call("c", 3)]},
            "function.name: missing; name the tool",
        ),
        (
            {"role": "assistant", "tool_calls": [call("c", "f", "{")]},
            "arguments: expected JSON in th",
        ),
        (
            {"role": "assistant", "tool_calls": [call("c", "f", "[]")]},
            "[0].arguments: expected an ob",
        ),
        (
            {"role": "assistant", "content": "a", "weight": -1},
            "[0].weight: got a number; give a numb",
        ),
        ({"role": "robot", "content": "a"}, "[0].role: unknown value 'robot'"),
        ({"role": ["user"], "content": "a"}, "[0].role: unknown value a list"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a"}}]},
            "[0].content[0].image_url: no data URI; download the image and give it as one",
        ),
    ],
)
def test_bad_openai_records_are_told(message, error):
    with pytest.raises(RecordError) as caught:
        read_record({"messages": [message]}, "openai")
    assert error in str(caught.value)
    assert str(caught.value).startswith("f:1: messages")


def test_openai_calls_have_one_result_each():
    result = {"role": "tool", "tool_call_id": "c1", "content": "x"}
    record = {"messages": [{"role": "assistant", "tool_calls": [call("c1")]}, result, result]}
    with pytest.raises(
        RecordError, match=r"messages\[2\]\.tool_call_id: a tool result without its"
    ):
        read_record(record, "openai")


SHAREGPT = {
    "id": "s-1",
    "system": "be brief",
    "tools": '[{"name": "find", "description": "finds"}]',
    "conversations": [
        {"from": "human", "value": "a table"},
        {"from": "function_call", "value": '{"name": "find", "arguments": {"price": "cheap"}}'},
        {"from": "observation", "value": "Marlo"},
        {"from": "gpt", "value": "Marlo?", "weight": 0},
    ],
    "chosen": {"from": "gpt", "value": "yes"},
    "rejected": [{"from": "human", "value": "no"}],
}


def test_sharegpt_becomes_messages():
    dialogue = read_record(SHAREGPT, "sharegpt")
    assert dialogue.id == "s-1"
    assert dialogue.messages == (
        Message("system", "be brief"),
        Message("user", "a table"),
        Message("assistant", "", "call", "find", {"price": "cheap"}),
        Message("tool", "Marlo"),
        Message("assistant", "Marlo?", weight=0),
    )
    assert dialogue.tools == ({"name": "find", "description": "finds"},)
    assert dialogue.chosen == (Message("assistant", "yes"),)
    assert dialogue.rejected == (Message("user", "no"),)
    assert dialogue.meta == {}


def test_sharegpt_calls_may_be_several_and_double_encoded():
    value = json.dumps([{"name": "a", "arguments": "{}"}, {"name": "b"}])
    record = {"conversations": [{"from": "function_call", "value": value}]}
    assert read_record(record, "sharegpt").messages == (
        Message("assistant", "", "call", "a", {}),
        Message("assistant", "", "call", "b", {}),
    )


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"messages": []}, "conversations: missing; give the list of messages"),
        ({"conversations": {}}, "conversations: expected a list, got an object"),
        ({"conversations": []}, "messages: empty; a dialogue needs at least one message"),
        ({"conversations": [{"value": "a"}]}, "conversations[0].from: unknown value null; one of"),
        (
            {"conversations": [{"from": "humn", "value": "a"}]},
            "from: unknown value 'humn'; did you",
        ),
        (
            {"conversations": [{"from": "gpt"}]},
            "conversations[0].value: expected a string, got null",
        ),
        (
            {"conversations": [{"from": "function_call", "value": "f("}]},
            "value: expected JSON in t",
        ),
        ({"conversations": [{"from": "function_call", "value": "3"}]}, "value: expected an object"),
        (
            {"conversations": [{"from": "observation", "value": ""}]},
            "a tool result without its call",
        ),
        ({"conversations": [], "tools": "["}, "tools: expected JSON in the string"),
    ],
)
def test_bad_sharegpt_records_are_told(record, error):
    with pytest.raises(RecordError) as caught:
        read_record(record, "sharegpt")
    assert error in str(caught.value)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "a", "completion": "b"},
        {"prompt": "a", "response": "b"},
        {"instruction": "a", "output": "b"},
        {"instruction": "a", "input": "", "output": "b", "system": "", "history": []},
    ],
)
def test_pairs_become_two_messages(record):
    dialogue = read_record(record, "prompt_response")
    assert dialogue.messages == (Message("user", "a"), Message("assistant", "b"))
    assert dialogue.meta == {}


def test_instructions_bring_input_system_and_history():
    record = {"instruction": "a", "input": "b", "output": "c", "lang": "en"}
    dialogue = read_record({**record, "system": "s", "history": [["d", "e"]]}, "prompt_response")
    assert dialogue.messages == (
        Message("system", "s"),
        Message("user", "d"),
        Message("assistant", "e"),
        Message("user", "a\n\nb"),
        Message("assistant", "c"),
    )
    assert dialogue.meta == {"lang": "en"}


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ([], "expected an object, got a list"),
        ({"text": "a"}, "prompt: missing; give prompt (or instruction)"),
        ({"prompt": "a"}, "response: missing; give completion or response"),
        ({"instruction": "a", "response": "b"}, "output: missing; give output"),
        ({"prompt": ["a"], "response": "b"}, "prompt: expected a string, got a list"),
        ({"prompt": "a", "response": None}, "response: expected a string, got null"),
        ({"instruction": "a", "input": 3, "output": "b"}, "input: expected a string, got a number"),
        (
            {"prompt": "a", "response": "b", "history": ["c"]},
            "history[0]: expected a pair of questi",
        ),
        (
            {"prompt": "a", "response": "b", "system": 3},
            "messages[0].content: expected a string or",
        ),
    ],
)
def test_bad_pairs_are_told(record, error):
    with pytest.raises(RecordError) as caught:
        read_record(record, "prompt_response")
    assert error in str(caught.value)
