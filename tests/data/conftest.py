"""Small seeded dialogues, and their pieces."""

from __future__ import annotations

import random

import pytest

from dlm.data.store import build_or_load
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.tokenizer import Tokenizer, TokenizerConfig, train

WORDS = ("a", "table", "for", "two", "tonight", "please", "étage", "東京", "42", "<|end|>", "\n")


def make_dialogue(number: int) -> Dialogue:
    """A seeded dialogue of 1 to 4 turns, with several channels, weights and tasks."""
    rng = random.Random(number)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 5)))

    messages = [Message("system", text())] if rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 4)):
        messages.append(Message("user", text()))
        if rng.random() < 0.5:
            messages.append(Message("assistant", text(), "state"))
        messages.append(Message("assistant", text(), weight=rng.choice([0.5, 1.0, 1.0, 2.0])))
    return Dialogue(f"d{number}", tuple(messages), task=rng.choice(["talk", "book"]))


@pytest.fixture(scope="session")
def dialogues() -> list[Dialogue]:
    return [make_dialogue(number) for number in range(60)]


@pytest.fixture(scope="session")
def tokenizer(dialogues) -> Tokenizer:
    texts = (message.content for dialogue in dialogues for message in dialogue.messages)
    return train(texts, (), TokenizerConfig(vocab_size=300))


@pytest.fixture(scope="session")
def template(tokenizer) -> BuiltinTemplate:
    return BuiltinTemplate(tokenizer)


@pytest.fixture
def build(dialogues, template, tmp_path):
    """Encodes the dialogues into a cache of this test; keywords change the recipe."""

    def build(source=dialogues, policy=None, length=160, **changes):
        known = {
            "name": "train",
            "data_digest": "d1",
            "cache_dir": tmp_path,
            "template": template,
        }
        known |= changes
        return build_or_load(
            source, known.pop("template"), policy or PolicyConfig(), length, **known
        )

    return build


@pytest.fixture
def pieces(build):
    return build()
