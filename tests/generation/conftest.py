"""A tokenizer and a small random model for the tests of generation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import pytest

from dlm.dialogue.actions import Tool
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.tokenizer import Tokenizer, TokenizerConfig, train
from dlm.generation.engine import Engine
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model

TEXTS = [
    'a cheap table for four tonight {"name": "find", "arguments": {"price": "cheap"}}',
    "people=4; price=cheap; time=tonight offer(name=...) I found a place, shall I book it?",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train(TEXTS * 3, [], TokenizerConfig(vocab_size=320))


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Model:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, num_layers=2, width=32, num_heads=2, max_length=160
    )
    return Model(config)


@pytest.fixture(scope="session")
def params(model: Model) -> dict:
    # Ten times the usual scale, so that a random model has preferences and no near ties.
    return jax.tree.map(lambda leaf: 10 * leaf, model.init(jax.random.key(3)))


@pytest.fixture(scope="session")
def engine(model: Model, params: dict, tokenizer: Tokenizer) -> Engine:
    return Engine(model, params, tokenizer.control("<|pad|>"), model.config.max_length)


@pytest.fixture
def tools() -> dict[str, Tool]:
    def tool(name: str, parameters: dict, function: Callable[..., str] = str) -> Tool:
        return Tool(name, "", parameters, function)

    return {
        "find": tool(
            "find",
            {
                "type": "object",
                "properties": {
                    "price": {"type": "string", "enum": ["cheap", "dear"]},
                    "people": {"type": "integer"},
                    "near": {"type": "string"},
                },
                "required": ["price"],
            },
        ),
        "find_all": tool("find_all", {"type": "object", "properties": {}}),
    }


@pytest.fixture(scope="session")
def template(tokenizer: Tokenizer) -> BuiltinTemplate:
    return BuiltinTemplate(tokenizer)
