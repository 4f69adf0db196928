"""A few small dialogues with calls, and a model that knows some of them by heart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dlm.data.pipeline import Batches
from dlm.data.store import Pieces, build_or_load
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.encoding import Encoded
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message, validate
from dlm.dialogue.template import Template, message_text
from dlm.dialogue.tokenizer import TokenizerConfig, train
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.objective import make_objective
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.training.optimizer import OptimizerConfig, make_optimizer, resolve_trainable
from dlm.training.step import init_state, make_train_step
from tests.manager.scripted import called, wrote

LENGTH = 192  # holds each dialogue whole
PLACES = ("Rome", "Paris", "Oslo", "Lima")


def make_talk(number: int, code: int) -> Dialogue:
    """Three turns, four responses: a call, a reply after its result, a code to remember, a bye."""
    place, people = PLACES[number % 4], 2 + number
    messages = (
        *((Message("system", "Be brief."),) if number % 2 else ()),
        Message("user", f"{place} for {people}"),
        wrote("state", f"{place} {people}"),
        called("book", place=place, people=people),
        Message("tool", f"booked {place}", name="book"),
        wrote("act", "done"),
        Message("assistant", f"{place} it is", weight=0.5 if number == 2 else 1.0),
        *(Message("user", "code?"), wrote("reply", f"code {code}")),
        *(Message("user", "bye"), wrote("reply", f"{code} bye")),
    )
    dialogue = Dialogue(f"talk-{number}-{code}", messages, task=("even", "odd")[number % 2])
    validate(dialogue, "")
    return dialogue


# The first two differ in their code alone, so no model gets both right.
LEARNED = [make_talk(0, 71), make_talk(0, 38), *(make_talk(n, 100 - 7 * n) for n in (1, 2, 3))]
TALKS = [*LEARNED, *(make_talk(n, 50 + n) for n in (4, 5, 6))]


def make_template() -> BuiltinTemplate:
    texts = [message_text(message) for talk in TALKS for message in talk.messages]
    return BuiltinTemplate(train(texts, (), TokenizerConfig(vocab_size=330)))


def make_pieces(
    dialogues: Sequence[Dialogue], template: Template, folder: Path, length: int = LENGTH
) -> Pieces:
    """The dialogues as evaluation cuts them."""
    return build_or_load(
        dialogues,
        template,
        PolicyConfig(),
        length,
        name="test",
        data_digest=",".join(dialogue.id for dialogue in dialogues),
        cache_dir=folder,
        evaluation=True,
    )


def make_model(template: Template) -> Model:
    return Model(
        ModelConfig(
            vocab_size=template.tokenizer.vocab_size,
            num_layers=1,
            width=32,
            num_heads=2,
            max_length=LENGTH,
            position="learned",  # so that where a segment starts matters
            attention="reference",
        )
    )


def learn(model: Model, pieces: Pieces, updates: int) -> dict:
    """Parameters after so many updates on the pieces."""
    batches = Batches(pieces, rows=4, length=LENGTH)
    params = jax.jit(model.init)(jax.random.key(0))
    trainable = resolve_trainable(((r".*", True),), params)
    config = OptimizerConfig(learning_rate=0.01, schedule="constant")
    optimizer = make_optimizer(config, updates, params)
    objective = make_objective(cross_entropy, model, chunk=64, train=True)
    step = make_train_step(objective, optimizer, trainable=trainable)
    state = init_state(params, optimizer, trainable, jax.random.key(1))
    for number in range(updates):
        state, _ = step(state, batches.batch(number))
    return state.params


class Forced(NamedTuple):
    """What an encoded piece scores by its own forward pass: float64 nats, and argmax hits."""

    losses: np.ndarray
    correct: np.ndarray


class Reference:
    """Teacher forcing done plainly: one piece at a time, all logits, log-softmax in numpy."""

    def __init__(self, model: Model, params: dict) -> None:
        self.model, self.params = model, params
        self.logits = jax.jit(
            lambda tokens, positions, segments: model.logits(
                params, model.hidden(params, tokens, positions, segments)
            )
        )

    def __call__(self, piece: Encoded) -> Forced:
        n = len(piece.tokens)
        tokens = np.zeros((1, LENGTH), np.int32)
        tokens[0, :n] = piece.tokens
        positions = np.arange(LENGTH, dtype=np.int32)[None]
        logits = self.logits(tokens, positions, (positions < n).astype(np.int32))
        logits = np.asarray(logits, np.float64)[0, :n]
        nats = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1))
        chosen = (logits - logits.max(-1, keepdims=True))[np.arange(n), piece.targets]
        return Forced(nats - chosen, logits.argmax(-1) == piece.targets)
