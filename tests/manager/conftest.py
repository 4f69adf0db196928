"""A tokenizer for the tests of the manager."""

from __future__ import annotations

import pytest

from dlm.dialogue.tokenizer import Tokenizer, TokenizerConfig, train


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train(["a cheap table for four tonight"] * 3, [], TokenizerConfig(vocab_size=290))
