"""A small tokenizer, trained once."""

from __future__ import annotations

import pytest

from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.tokenizer import Tokenizer, TokenizerConfig, train

TEXTS = (
    "could you book a table for four tonight please",
    "here is a cheap place near the hotel, shall I book it for you?",
    'I have booked it. {"name": "find", "arguments": {"price": "cheap", "people": 4}}',
    "the owner of the museum lives near the station\nwould you like a table there",
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train(TEXTS * 20, ("Marlo Venta", "Hotel of Koris"), TokenizerConfig(vocab_size=400))


@pytest.fixture(scope="session")
def template(tokenizer) -> BuiltinTemplate:
    return BuiltinTemplate(tokenizer)
