"""Streaming: pieces joined are the text."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from dlm.dialogue.template import Template
from dlm.dialogue.tokenizer import CONTROL
from dlm.generation.response_text import Piece, ResponseText


@settings(max_examples=60)
@given(content=st.text(max_size=12) | st.lists(st.integers(0, 299), max_size=12))
def test_pieces_joined_are_the_text(template: Template, content: str | list[int]):
    """Streamed pieces equal the final text, whole or broken characters alike."""
    ids = template.tokenizer.encode(content) if isinstance(content, str) else content
    stream = ResponseText(template)
    tokens = [template.tokenizer.control("<|reply|>"), *ids, template.tokenizer.control("<|end|>")]
    pieces = [stream.feed(token) for token in tokens]
    assert "".join(piece.text for piece in pieces) == template.tokenizer.decode(ids)
    assert {piece.channel for piece in pieces} == {"reply"}
    assert [piece.ended for piece in pieces] == [False] * (len(ids) + 1) + [True]


def test_a_character_appears_when_all_its_bytes_are_there(template: Template):
    stream = ResponseText(template)
    texts = [stream.feed(token).text for token in template.tokenizer.encode("\U0001f600")]
    assert len(texts) == 4
    assert texts == ["", "", "", "\U0001f600"]


def test_headers_are_no_piece_and_channels_are_told_apart(template: Template):
    stream = ResponseText(template)
    names = ["<|state|>", "<|end|>", "<|assistant|>", "<|reply|>"]
    pieces = [stream.feed(template.tokenizer.control(name)) for name in names]
    assert pieces == [Piece("state", ""), Piece("state", "", ended=True), None, Piece("reply", "")]
    stream.feed(template.tokenizer.control("<|end|>"))
    assert stream.feed(template.tokenizer.encode("a")[0]) == Piece("", "a")


@settings(max_examples=60)
@given(data=st.data())
def test_no_text_holds_a_control_token(template: Template, data: st.DataObject):
    """Stopping: whatever is written, control tokens anywhere, the text is that of the others."""
    controls = [template.tokenizer.control(name) for name in CONTROL]
    tokens = st.integers(0, 299) | st.sampled_from(controls)
    ids = data.draw(st.lists(tokens, max_size=12))
    stream = ResponseText(template)
    pieces = [piece for piece in map(stream.feed, ids) if piece is not None]
    shown = "".join(piece.text for piece in pieces)
    assert not any(name in shown for name in CONTROL)
