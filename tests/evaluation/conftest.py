"""A model that has learned a few dialogues part-way."""

from __future__ import annotations

import pytest

from dlm.dialogue.tokenizer import Tokenizer
from dlm.models.decoder import Model
from tests.evaluation.tiny_talks import (
    LEARNED,
    Reference,
    learn,
    make_model,
    make_pieces,
    make_tokenizer,
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Model:
    return make_model(tokenizer)


@pytest.fixture(scope="session")
def params(model: Model, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict:
    pieces = make_pieces(LEARNED, tokenizer, tmp_path_factory.mktemp("learned"))
    return learn(model, pieces, updates=60)


@pytest.fixture(scope="session")
def reference(model: Model, params: dict) -> Reference:
    return Reference(model, params)
