"""A model that has learned a few dialogues part-way."""

from __future__ import annotations

import pytest

from dlm.dialogue.template import Template
from dlm.models.decoder import Model
from tests.evaluation.tiny_talks import (
    LEARNED,
    Reference,
    learn,
    make_model,
    make_pieces,
    make_template,
)


@pytest.fixture(scope="session")
def template() -> Template:
    return make_template()


@pytest.fixture(scope="session")
def model(template: Template) -> Model:
    return make_model(template)


@pytest.fixture(scope="session")
def params(model: Model, template: Template, tmp_path_factory: pytest.TempPathFactory) -> dict:
    pieces = make_pieces(LEARNED, template, tmp_path_factory.mktemp("learned"))
    return learn(model, pieces, updates=60)


@pytest.fixture(scope="session")
def reference(model: Model, params: dict) -> Reference:
    return Reference(model, params)
