"""A template for the tests of the manager."""

from __future__ import annotations

import pytest

from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.tokenizer import TokenizerConfig, train


@pytest.fixture(scope="session")
def template() -> BuiltinTemplate:
    texts = ["a cheap table for four tonight"] * 3
    return BuiltinTemplate(train(texts, [], TokenizerConfig(vocab_size=290)))
