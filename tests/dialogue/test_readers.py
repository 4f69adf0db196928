from __future__ import annotations

import json
import random

import pytest
from dialogue_cases import dialogues
from hypothesis import given
from hypothesis import strategies as st

from dlm.core.errors import UserError
from dlm.dialogue.checks import RecordError
from dlm.dialogue.readers import FORMATS, MAX_LINE, read, write_jsonl
from dlm.dialogue.schema import Dialogue, Message, from_json, to_json

GOOD = b'{"id": "a", "messages": [{"role": "user", "content": "hi"}]}'


def message(**fields):
    return json.dumps({"messages": [{"role": "user", "content": "hi"}, fields]}).encode()


BAD = {
    "malformed line": (b'{"messages": [}', "malformed JSON at character 15: Expecting value; give"),
    "two objects": (
        GOOD + GOOD,
        "malformed JSON at character 61: Extra data; give one JSON object",
    ),
    "no JSON": (b"hello", "malformed JSON at character 1: Expecting value; give one JSON object a"),
    "array": (b"[" + GOOD + b"]", "expected an object, got a list; give one a line"),
    "deep": (b"[" * 100_000, "malformed JSON: maximum recursion depth exceeded"),
    "nan": (b'{"messages": [], "rating": NaN}', "malformed JSON: NaN is no JSON; give a number"),
    "long number": (b'{"rating": ' + b"9" * 5000 + b"}", "malformed JSON: Exceeds the limit"),
    "unknown role": (
        message(role="bot", content=""),
        "messages[1].role: unknown value 'bot'; one of system, context, user, assistant, tool",
    ),
    "empty dialogue": (b'{"messages": []}', "messages: empty; a dialogue needs at least one mess"),
    "negative weight": (
        message(role="assistant", content="", weight=-1.5),
        "messages[1].weight: got -1.5; give a number from 0 to 1e+06",
    ),
    "result without call": (
        message(role="tool", name="find", content=""),
        "messages[1]: a tool result without its call; put the assistant's call before it, or give",
    ),
    "invalid UTF-8": (b'{"id": "\xe9"}', "invalid UTF-8 at byte 8; save the file as UTF-8"),
    "long line": (b'{"id": "' + b"x" * 10_000_000 + b'"}', "longer than 8 MB; split the dialogue"),
    "null byte": (b'{"id": "\0"}', "null byte at byte 8; remove it, or save the file as UTF-8"),
    "escaped null": (message(role="user", content="\0"), "messages[1].content: holds a null byte"),
    "image": (
        message(role="user", content=[{"type": "image", "data": "data:image/png;base64,AA=="}]),
        "messages[1].content[0]: the model reads text only; take the image out",
    ),
    "UTF-16": (GOOD.decode().encode("utf-16"), "null byte at byte 3; remove it, or save the file"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_lines_are_told_in_one_line(tmp_path, bad):
    """Each kind of bad input gives file, line, field where there is one, and the remedy."""
    line, problem = BAD[bad]
    path = tmp_path / "my.jsonl"
    path.write_bytes(GOOD + b"\n\n" + line + b"\n" + GOOD)
    with pytest.raises(RecordError) as caught:
        list(read(path))
    assert str(caught.value).startswith(f"{path}:3: {problem}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("bad", BAD)
def test_bad_lines_are_skipped_and_noted(tmp_path, bad):
    line, problem = BAD[bad]
    path = tmp_path / "my.jsonl"
    path.write_bytes(b"\n".join([line, GOOD, line, b"", GOOD]))
    rejected = []
    read_in = list(read(path, on_bad_record="skip", rejected=rejected))
    assert [dialogue.id for dialogue in read_in] == ["a", "a"]
    assert [entry["where"] for entry in rejected] == [f"{path}:1", f"{path}:3"]
    for entry in rejected:
        assert ": ".join(filter(None, (entry["field"], entry["problem"]))).startswith(problem)
        assert len(entry["record"]) < 10_000
        json.dumps(entry).encode()
    assert len(list(read(path, on_bad_record="skip"))) == 2


def test_missing_files_and_empty_ones_are_named(tmp_path):
    path = tmp_path / "my.jsonl"
    with pytest.raises(
        UserError, match=r"my\.jsonl: cannot be read: No such file or directory; giv"
    ):
        next(read(path))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        next(read(tmp_path))
    path.write_bytes(b"\n \n")
    with pytest.raises(
        UserError, match=r"my\.jsonl: holds no dialogue; give one JSON object a line"
    ):
        list(read(path))


def test_wrong_options_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r"data\.format: unknown value 'openia'; did you mean 'opena"
    ):
        next(read(tmp_path, format="openia"))
    with pytest.raises(
        UserError, match=r"data\.on_bad_record: unknown value 'ignore'; one of raise"
    ):
        next(read(tmp_path, on_bad_record="ignore"))


def test_byte_order_mark_and_line_ends_are_no_matter(tmp_path):
    path = tmp_path / "my.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n" + GOOD + b"\r\n")
    assert len(list(read(path))) == 2


def test_a_line_may_be_as_long_as_the_limit(tmp_path):
    path = tmp_path / "my.jsonl"
    line = GOOD + b" " * (MAX_LINE - len(GOOD))
    path.write_bytes(line + b"\n" + GOOD + b"\n" + line)
    assert len(list(read(path))) == 3
    path.write_bytes(line + b" \n" + GOOD)
    assert len(list(read(path, on_bad_record="skip"))) == 1


@given(cases=st.lists(dialogues(), min_size=1, max_size=3))
def test_written_dialogues_are_read_again(tmp_path_factory, cases):
    path = tmp_path_factory.mktemp("written") / "deep" / "my.jsonl"
    write_jsonl(path, cases)
    assert list(read(path)) == cases
    assert [entry.name for entry in path.parent.iterdir()] == ["my.jsonl"]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "my.jsonl"
    case = Dialogue("a", (Message("user", "hi"),))
    write_jsonl(path, [case])
    with pytest.raises(TypeError):
        write_jsonl(path, [case, Dialogue("b", (Message("user", "x", meta={"a": {1}}),))])
    assert list(read(path)) == [case]
    assert [entry.name for entry in tmp_path.iterdir()] == ["my.jsonl"]


FIND = {"name": "f", "arguments": {"a": [1]}}
SEEDS = {
    "dlm": {
        "id": "c",
        "messages": [
            {"role": "user", "content": "u"},
            {"role": "assistant", "channel": "call", **FIND},
            {"role": "tool", "name": "f", "content": "r"},
            {"role": "assistant", "content": [{"type": "text", "text": "d"}], "weight": 0.5},
        ],
        "tools": [{"name": "f"}],
        "candidates": ["a"],
        "answer": 0,
        "chosen": [{"role": "assistant", "content": "x"}],
        "meta": {"x": 1},
    },
    "openai": {
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "r"},
            {"role": "assistant", "content": "done", "weight": 0},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "u"},
            {"from": "function_call", "value": json.dumps(FIND)},
            {"from": "observation", "value": "r"},
            {"from": "gpt", "value": "d"},
        ],
        "system": "s",
        "tools": '[{"name": "f"}]',
        "rejected": {"from": "gpt", "value": "d"},
    },
    "prompt_response": {
        **{"instruction": "a", "input": "b", "output": "c"},
        **{"history": [["d", "e"]], "system": "f"},
    },
}
VALUES = (None, True, -1, 0.5, 10**400, "", "user", "\0", "\ud800", "[]", [], {}, [[]], {"a": None})


def damaged(record, rng):
    """A record with one value replaced, removed or repeated, as a line; or its bytes damaged."""
    record = json.loads(json.dumps(record))
    places = []

    def walk(node):
        for key in range(len(node)) if isinstance(node, list) else list(node):
            places.append((node, key))
            if isinstance(node[key], list | dict):
                walk(node[key])

    walk(record)
    node, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, list):
        node.insert(key, node[key])
    elif kind == 2:
        line = json.dumps(record).encode()
        cut = rng.randrange(len(line))
        wrong = rng.choice([b"", bytes([rng.randrange(256)]), b'"', b"null", b"NaN"])
        return line[:cut] + wrong + line[cut + rng.randint(0, 9) :]
    else:
        node[key] = rng.choice([*VALUES, rng.choice(places)[0]])
    try:
        return json.dumps(record).encode()
    except ValueError:  # the record holds itself
        return b"{}"


@pytest.mark.parametrize("format", FORMATS)
def test_any_line_is_a_dialogue_or_one_line_of_error(tmp_path, format):
    """Thousands of damaged records, for every reader: each is read, or refused in one line."""
    rng = random.Random(format)
    lines = [damaged(SEEDS[format], rng).replace(b"\n", b" ") for _ in range(1500)]
    lines += [damaged(seed, rng).replace(b"\n", b" ") for seed in SEEDS.values()]
    path = tmp_path / "my.jsonl"
    path.write_bytes(b"\n".join(lines))
    rejected = []
    accepted = list(read(path, format=format, on_bad_record="skip", rejected=rejected))
    assert len(accepted) + len(rejected) == len(lines)
    assert min(len(accepted), len(rejected)) > 100
    assert not any("\n" in entry["problem"] for entry in rejected)
    for dialogue in accepted:
        assert from_json(json.loads(json.dumps(to_json(dialogue))), "f:1") == dialogue
