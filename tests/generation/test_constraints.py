"""The grammar of a response: channels in their order, headers forced, an end."""

from __future__ import annotations

import json

import pytest

from dlm.dialogue.actions import Tool
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.template import Template
from dlm.dialogue.tokenizer import CONTROL
from dlm.generation.constraints import ResponseGrammar
from dlm.generation.engine import Engine, GenerateConfig, Request

REPLY = Message("assistant", "It is booked \u2713", "reply")
CALL = Message("assistant", "", "call", "find", {"price": "cheap", "near": 'the "Caf\u00e9"'})


def response_ids(template: Template, *messages: Message) -> list[int]:
    """What training teaches the model to write: outputs, with headers between them."""
    rendered = template.render(Dialogue("", messages))
    return [t for message in rendered for t in message.header + message.output][1:]


def walk(grammar: ResponseGrammar, ids: list[int]) -> bool:
    """Whether the grammar takes all ids and is done after the last, and no sooner."""
    for token in ids:
        forced = grammar.forced()
        if grammar.done or not grammar.allows(token) or forced not in (None, token):
            return False
        grammar.advance(token)
    return grammar.done


def written(channel: str, content: str = "x") -> Message:
    if channel == "call":
        return CALL
    return Message("assistant", content, channel)


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize(
    "channels",
    [["reply"], ["call"], ["intent", "state", "reason", "call"], ["state", "act", "reply"]],
)
def test_gold_responses_fit(
    template: Template, tools: dict[str, Tool], channels: list[str], constrained: bool
):
    ids = response_ids(template, *map(written, channels))
    assert walk(ResponseGrammar(template, tools, constrained=constrained), ids)


def test_only_the_header_is_forced(template: Template, tools: dict[str, Tool]):
    grammar = ResponseGrammar(template, tools, constrained=True)
    forced = []
    for token in response_ids(template, written("state", "a b"), REPLY):
        forced += [] if grammar.forced() is None else [grammar.forced()]
        grammar.advance(token)
    assert forced == [template.tokenizer.control("<|assistant|>")]


@pytest.mark.parametrize("channels", [["state", "intent"], ["state", "state"], ["act", "call"]])
def test_channels_keep_their_order(template: Template, tools: dict[str, Tool], channels: list[str]):
    ids = response_ids(template, *map(written, channels), REPLY)
    assert not walk(ResponseGrammar(template, tools, constrained=True), ids)
    assert not ResponseGrammar(template, tools, constrained=True).done


def test_after_a_result_the_round_goes_on_from_reason(template: Template, tools: dict[str, Tool]):
    for channel, expected in (("intent", False), ("state", False), ("reason", True), ("act", True)):
        grammar = ResponseGrammar(template, tools, constrained=True, resumed=True)
        assert walk(grammar, response_ids(template, written(channel), REPLY)) == expected


def test_content_holds_no_control_token(template: Template, tools: dict[str, Tool]):
    """Content is never control: inside a message only the terminator stands, once it is whole."""
    grammar = ResponseGrammar(template, tools, constrained=True)
    grammar.advance(template.tokenizer.control("<|reply|>"))
    controls = {name for name in CONTROL if grammar.allows(template.tokenizer.control(name))}
    assert controls == {"<|end|>"}
    assert not grammar.allows(template.tokenizer.vocab_size)  # a model's padding of its vocabulary
    (lead,) = (
        t
        for t in range(template.tokenizer.text_size)
        if template.tokenizer.token_bytes(t) == b"\xc3"
    )
    grammar.advance(lead)
    assert not grammar.allows(template.tokenizer.control("<|end|>"))


def test_a_call_ends_only_when_it_is_whole(template: Template, tools: dict[str, Tool]):
    grammar = ResponseGrammar(template, tools, constrained=True)
    *call, end = response_ids(template, CALL)
    for token in call:
        assert not grammar.allows(end)
        grammar.advance(token)
    assert [t for t in range(template.tokenizer.vocab_size) if grammar.allows(t)] == [end]


def test_a_tool_outside_the_schema_is_not_allowed(template: Template, tools: dict[str, Tool]):
    for name, arguments in (("drop", {}), ("find", {}), ("find", {"price": "cheap", "x": 1})):
        call = Message("assistant", "", "call", name, arguments)
        ids = response_ids(template, call)
        assert not walk(ResponseGrammar(template, tools, constrained=True), ids)
        assert walk(ResponseGrammar(template, tools, constrained=False), ids)


def test_trying_a_token_changes_nothing(template: Template, tools: dict[str, Tool]):
    grammar = ResponseGrammar(template, tools, constrained=True)
    ids = response_ids(template, CALL)
    for token in ids:
        for other in range(0, template.tokenizer.vocab_size, 7):
            grammar.allows(other)
        grammar.allows(token)
        grammar.advance(token)
    assert grammar.done


def test_without_constraints_a_message_without_channel_ends_the_response(template: Template):
    grammar = ResponseGrammar(template, {}, constrained=False)
    text = template.tokenizer.encode("hello")
    assert walk(
        grammar,
        [*text, template.tokenizer.control("<|user|>"), template.tokenizer.control("<|end|>")],
    )
    assert walk(
        ResponseGrammar(template, {}, constrained=False), [template.tokenizer.control("<|end|>")]
    )


@pytest.mark.parametrize("seed", range(3))
def test_what_a_random_model_writes_is_a_response(
    engine: Engine, template: Template, tools: dict[str, Tool], seed: int
):
    """However bad the model: what ends is whole, in order, and calls keep to the schema."""
    config = GenerateConfig(temperature=2.0, seed=seed)
    prompt = [
        template.tokenizer.control("<|user|>"),
        *template.tokenizer.encode("hi"),
        template.tokenizer.control("<|end|>"),
    ]
    header = [template.tokenizer.control("<|assistant|>")]
    asked = [
        Request([*prompt, *header], ResponseGrammar(template, tools, constrained=True), 150)
        for _ in range(16)
    ]
    ended = [done.ids for done in engine.generate(asked, config) if done.reason == "stop"]
    assert ended
    for ids in ended:
        messages = template.parse([*header, *ids])
        assert response_ids(template, *messages)[-1:] == list(ids[-1:])
        assert messages[-1].channel in ("call", "reply")
        if messages[-1].channel == "call":
            assert json.dumps(messages[-1].arguments)
            assert messages[-1].name in tools
