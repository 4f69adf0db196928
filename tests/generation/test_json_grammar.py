"""The grammar of calls: exactly the JSON that `json.dumps` writes, after the tool's schema."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from dlm.generation import json_grammar
from dlm.generation.json_grammar import advance_all, call, complete, text

FIND = {
    "type": "object",
    "properties": {
        "price": {"type": "string", "enum": ["cheap", "dear"]},
        "people": {"type": "integer"},
        "size": {"enum": [1, 12, "x"]},
        "near": {"type": ["string", "null"]},
        "score": {"type": "number"},
        "open": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "box": {"type": "object", "properties": {"a": {}}},
        "kind": {"const": "food"},
        "any": {},
    },
    "required": ["price"],
}
PARAMETERS = {"find": FIND, "find_all": {"type": "object", "properties": {}}}


def fits(written: str, parameters: dict = PARAMETERS) -> bool:
    state = advance_all(call(parameters), written.encode())
    return state is not None and complete(state)


def find(arguments: str) -> str:
    return f'{{"name": "find", "arguments": {arguments}}}'


@pytest.mark.parametrize(
    "arguments",
    [
        '{"price": "cheap"}',
        '{"people": 4, "price": "dear"}',
        '{"people": -12, "price": "dear"}',
        '{"size": 1, "price": "dear"}',
        '{"price": "dear", "size": 12}',
        '{"size": "x", "price": "dear"}',
        '{"near": null, "price": "dear"}',
        '{"near": "a \\"quoted\\" \\\\ \\n name: caf\u00e9 \U0001f600", "price": "dear"}',
        '{"score": -0.5, "price": "dear"}',
        '{"score": 10, "open": true, "price": "dear"}',
        '{"tags": [], "price": "dear"}',
        '{"tags": ["a", ""], "price": "dear"}',
        '{"box": {}, "price": "dear"}',
        '{"box": {"a": [1, {"b": [null]}]}, "price": "dear"}',
        '{"kind": "food", "any": {"x": {"y": false}}, "price": "dear"}',
    ],
)
def test_what_the_schema_allows(arguments: str):
    assert fits(find(arguments))
    state = call(PARAMETERS)
    for byte in find(arguments).encode()[:-1]:
        state = json_grammar.advance(state, byte)
        assert not complete(state)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("{}", "a required argument is missing"),
        ('{"people": 4}', "a required argument is missing"),
        ('{"price": "free"}', "not in the enum"),
        ('{"price": "cheap", "price": "dear"}', "twice"),
        ('{"price": "cheap", "colour": "red"}', "unknown argument"),
        ('{"price": "cheap", "people": "4"}', "a string for an integer"),
        ('{"price": "cheap", "people": 4.5}', "a fraction for an integer"),
        ('{"price": "cheap", "people": 04}', "a leading zero"),
        ('{"price": "cheap", "people": -}', "no digit"),
        ('{"price": "cheap", "people": true}', "a boolean for an integer"),
        ('{"price": "cheap", "size": 2}', "not in the enum"),
        ('{"price": "cheap", "score": 1.}', "no digit after the point"),
        ('{"price": "cheap", "score": NaN}', "not JSON"),
        ('{"price": "cheap", "near": tru}', "half a word"),
        ('{"price": "cheap", "tags": ["a",]}', "a comma too many"),
        ('{"price": "cheap", "tags": [1]}', "an item's type"),
        ('{"price": "cheap", "box": {"b": 1}}', "unknown inner key"),
        ('{"price":"cheap"}', "no space: not as the template writes it"),
        ('{"price": "cheap", }', "a comma too many"),
        ('{"price": "cheap", "near": "a\nb"}', "a raw line break"),
        ('{"price": "cheap", "near": "\\u0000"}', "an escape that json.dumps never needs here"),
        ('{"price": "cheap", "near": "a}', "an open string"),
        ('{"price": "cheap"}}', "a brace too many"),
        ('["cheap"]', "no object"),
    ],
)
def test_what_the_schema_forbids(arguments: str, why: str):
    assert not fits(find(arguments)), why


def test_names_that_begin_alike_are_told_apart():
    assert fits('{"name": "find_all", "arguments": {}}')
    assert not fits('{"name": "find_al", "arguments": {}}')
    assert not fits('{"name": "find_all", "arguments": {"price": "cheap"}}')
    assert not fits('{"name": "book", "arguments": {}}')


def test_without_tools_any_name_and_arguments_fit():
    assert fits('{"name": "book", "arguments": {"a": [1, "x", null], "b": {}}}', {})
    assert not fits('{"name": "book", "arguments": [1]}', {})
    assert not fits('{"name": 3, "arguments": {}}', {})


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"k": ', "}")])
def test_depth_is_limited(opened: str, closed: str):
    for depth, expected in ((json_grammar.MAX_DEPTH - 1, True), (json_grammar.MAX_DEPTH, False)):
        value = opened * depth + ("" if opened == "[" else "1") + closed * depth
        assert fits(find(f'{{"price": "dear", "any": {value}}}')) == expected


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)
SCALARS = st.none() | st.booleans() | st.integers(-(10**14), 10**14) | WORDS
JSON = st.recursive(
    SCALARS | st.floats(-1e6, 1e6).map(lambda x: round(x, 3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(name=WORDS, arguments=st.dictionaries(WORDS, JSON, max_size=3))
def test_what_json_dumps_writes_fits(name: str, arguments: dict):
    """Every call that the template renders fits the grammar of its own names and types."""
    written = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    properties = {key: {} for key in arguments}
    schema = {"type": "object", "properties": properties, "required": list(arguments)}
    assert fits(written, {name: schema})
    assert fits(written, {})


@settings(max_examples=40)
@given(data=st.data())
def test_whatever_is_walked_is_a_valid_call(data: st.DataObject):
    """Bytes drawn at random among those allowed spell JSON that keeps to the schema."""
    state, written = call(PARAMETERS), b""
    while state and len(written) < 200:
        allowed = [b for b in range(256) if json_grammar.advance(state, b) is not None]
        assert allowed, written
        # Closing is preferred now and then, or strings would never end.
        closing = [b for b in allowed if b in b'"]}'] if data.draw(st.booleans()) else []
        byte = data.draw(st.sampled_from(closing or allowed))
        state, written = json_grammar.advance(state, byte), written + bytes([byte])
    if not state:
        arguments = json.loads(written)["arguments"]
        if json.loads(written)["name"] == "find":
            assert arguments["price"] in ("cheap", "dear")
            assert set(arguments) <= set(FIND["properties"])
            assert isinstance(arguments.get("people", 0), int)
        else:
            assert arguments == {}


@settings(max_examples=200)
@given(st.binary(max_size=6) | st.text(max_size=3).map(str.encode))
def test_content_is_utf8_without_null(written: bytes):
    state = advance_all(text(), written)
    whole = state is not None and complete(state)
    try:
        expected = "\0" not in written.decode()
    except UnicodeDecodeError:
        expected = False
    assert whole == expected


@pytest.mark.parametrize(
    "written", [b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
)
def test_overlong_forms_and_surrogates_are_no_utf8(written: bytes):
    assert advance_all(text(), written) is None
