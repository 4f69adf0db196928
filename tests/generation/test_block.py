"""Responses in a checkpoint's chat template: what may be written, and how it is read and shown."""

from __future__ import annotations

from functools import cache

import pytest

from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.template import response
from dlm.generation.constraints import BlockGrammar, response_grammar
from dlm.generation.response_text import Piece, ResponseText
from tests.dialogue.chat_forms import FORMS, checkpoint

STATE = Message("assistant", "people=4", "state")
FIND = Message("assistant", "", "call", "find", {"near": "Café 東"})
BOOK = Message("assistant", "", "call", "book", {})
REPLY = Message("assistant", "Marlo, 東京? 🙂")
ACT = Message("assistant", "offer", "act")


@cache
def template(form: str) -> ChatTemplate:
    return ChatTemplate(checkpoint(form))


def block(form: str, *said: Message) -> list[int]:
    """What a model writes for these messages after the prompt."""
    rendered = template(form).render(Dialogue("d", (Message("user", "a"), *said)))
    return [i for m in rendered if m.role == "assistant" for i in m.output]


def spelled(form: str, text: str) -> list[int]:
    """Ids of a text in which the names of control tokens are these."""
    return template(form).spelling.literal(text)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "said", [[REPLY], [STATE, REPLY], [FIND], [STATE, FIND], [STATE, ACT, REPLY], [FIND, BOOK]]
)
def test_what_is_learned_may_be_written_and_is_read_back(form: str, said: list[Message]):
    ids = block(form, *said)
    grammar = response_grammar(template(form), {}, constrained=True)
    for token in ids:
        assert not grammar.done
        assert grammar.forced() is None
        assert grammar.allows(token)
        grammar.advance(token)
    assert grammar.done
    assert response(template(form), ids) == said


def test_no_control_token_may_be_written_but_those_of_the_syntax():
    """Stopping: a block ends at the template's terminator or the end of all, at nothing else."""
    qwen = template("qwen")
    named = {name: qwen.tokenizer.control(name) for name in FORMS["qwen"][1]}
    grammar = BlockGrammar(qwen, constrained=True)
    allowed = {name for name, token in named.items() if grammar.allows(token)}
    assert allowed == {"<|im_end|>", "<tool_call>", "</tool_call>"}
    assert all(BlockGrammar(qwen, constrained=False).allows(token) for token in named.values())
    assert not grammar.allows(qwen.tokenizer.vocab_size)
    gemma = template("gemma")
    for name in ("<end_of_turn>", "<eos>"):
        grammar = BlockGrammar(gemma, constrained=True)
        grammar.advance(gemma.tokenizer.control(name))
        assert grammar.done
        assert not grammar.allows(0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("said", [[REPLY], [STATE, ACT, REPLY], [STATE, FIND]])
def test_pieces_joined_are_the_texts(form: str, said: list[Message]):
    """Streaming: pieces equal the final text, tags and control tokens are in none of them."""
    ids = block(form, *said)
    stream = ResponseText(template(form))
    pieces = [piece for piece in map(stream.feed, ids) if piece is not None]
    texts: list[list[str]] = [["", ""]]
    for piece in pieces:
        assert texts[-1][0] in ("", piece.channel)
        texts[-1] = [piece.channel, texts[-1][1] + piece.text]
        texts += [["", ""]] if piece.ended else []
    shown = [(channel, text) for channel, text in texts if channel]
    wanted = [(span.channel, span.text) for span in template(form).split(ids)]
    assert shown == wanted
    assert [channel for channel, _ in shown] == [m.channel for m in said]


def test_text_that_may_become_a_tag_waits():
    chatml = template("chatml")
    stream = ResponseText(chatml)
    *opening, last = spelled("chatml", "<state>")
    assert [stream.feed(token) for token in (*opening, last)] == [None] * len(opening) + [
        Piece("state", "")
    ]
    stream = ResponseText(chatml)
    first = spelled("chatml", "<state>")[0]
    assert stream.feed(first) is None
    pieces = [stream.feed(token) for token in spelled("chatml", "3 you!")]
    assert "".join(piece.text for piece in pieces) == "<3 you!"


WRONG = {
    "no object": "<tool_call>\nfind()\n</tool_call>",
    "another key": '<tool_call>\n{"name": "find", "parameters": {}}\n</tool_call>',
    "one more key": '<tool_call>\n{"name": "find", "arguments": {}, "now": 1}\n</tool_call>',
    "no arguments": '<tool_call>\n{"name": "find", "arguments": "{}"}\n</tool_call>',
    "a control token": '<tool_call>\n{"name": "find", "arguments": {"a": "<|im_start|>"}}\n'
    "</tool_call>",
    "not closed": '<tool_call>\n{"name": "find", "arguments": {}}',
    "more behind": '<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call> so',
}


@pytest.mark.parametrize("case", WRONG)
def test_a_call_that_is_not_the_templates_is_kept_as_text(case: str):
    """Actions: a call is read strictly; anything else is no call, and never learned."""
    (span,) = template("qwen").split(
        [*spelled("qwen", WRONG[case]), *spelled("qwen", "<|im_end|>")]
    )
    assert (span.channel, span.ended) == ("call", True)
    (message,) = response(template("qwen"), [*spelled("qwen", WRONG[case] + "<|im_end|>")])
    assert (message.name, message.weight) == (None, 0.0)


def test_other_white_space_makes_no_other_call():
    text = '<tool_call>{"name":"find",\n"arguments":{"a":1}}</tool_call><|im_end|>'
    (call,) = response(template("qwen"), spelled("qwen", text))
    assert (call.name, call.arguments) == ("find", {"a": 1})


def test_text_before_a_call_is_its_reason():
    text = 'Let me look.\n<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call><|im_end|>'
    reason, call = response(template("qwen"), spelled("qwen", text))
    assert (reason.channel, reason.content, call.name) == ("reason", "Let me look.", "find")


@pytest.mark.parametrize(
    "text",
    ["<state>a<|im_end|>", "<state>a</state>b<|im_end|>", "<context>a</context>\nb<|im_end|>"],
)
def test_malformed_blocks_are_no_messages(text: str):
    with pytest.raises(ValueError, match="no whole message of the assistant"):
        response(template("chatml"), spelled("chatml", text))
