"""The useful operations of a step, counted product by product."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dlm.core.paths import flatten
from dlm.data.batch import Batch, empty_batch
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.training.flop import layer_matrices, step_flop

SHAPES = {
    "llama": ModelConfig(vocab_size=50, num_layers=2, width=32, num_heads=4, num_kv_heads=2),
    "gpt2": ModelConfig(vocab_size=50, num_layers=3, width=24, num_heads=2, mlp="gelu", tied=False),
    "wide heads": ModelConfig(vocab_size=50, num_layers=1, width=32, num_heads=2, head_width=8),
}


def batch() -> Batch:
    """Segments of 3, 2 and 4 tokens in two rows, 5 of the tokens supervised."""
    batch = empty_batch(2, 8, 2)
    batch.segment_ids[:] = [[1, 1, 1, 2, 2, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]]
    batch.positions[:] = [[0, 1, 2, 0, 1, 0, 0, 0], [0, 1, 2, 3, 0, 0, 0, 0]]
    batch.loss_weights[:] = [[0, 1, 0, 0.5, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]]
    return batch


TOKENS, PAIRS, SUPERVISED = 9, 6 + 3 + 10, 5


def shapes(config: ModelConfig) -> dict:
    return flatten(jax.eval_shape(Model(config).init, jax.random.key(0)))


@pytest.mark.parametrize("name", SHAPES)
def test_the_matrices_are_those_of_the_model(name):
    config = SHAPES[name]
    there = {
        path.removeprefix("layers/0/").removesuffix("/kernel"): int(np.prod(leaf.shape))
        for path, leaf in shapes(config).items()
        if path.startswith("layers/0/") and path.endswith("kernel")
    }
    assert layer_matrices(config) == there


@pytest.mark.parametrize("name", SHAPES)
def test_everything_trained_costs_six_an_element(name):
    config = SHAPES[name]
    matrices = config.num_layers * sum(layer_matrices(config).values())
    attention = 2 * PAIRS * config.num_layers * config.num_heads * config.head_size
    head = SUPERVISED * config.width * config.vocab_size
    expected = 6 * (TOKENS * matrices + attention + head)
    assert step_flop(config, batch()) == expected
    assert step_flop(config, batch(), dict.fromkeys(shapes(config), True)) == expected


def test_frozen_parts_cost_no_way_back():
    """Layer 0 and the tables are frozen; of layer 1 only the feed-forward part is trained."""
    config = SHAPES["gpt2"]
    trainable = {path: path.startswith(("layers/1/mlp", "layers/2")) for path in shapes(config)}
    part = {name: TOKENS * n for name, n in layer_matrices(config).items()}
    body = sum(part.values())
    attention = 2 * PAIRS * config.num_heads * config.head_size
    forward_alone = 2 * (body + attention)
    half = 4 * body + 2 * (part["mlp/up"] + part["mlp/down"]) + 6 * attention
    head = 4 * SUPERVISED * config.width * config.vocab_size
    expected = forward_alone + half + 6 * (body + attention) + head
    assert step_flop(config, batch(), trainable) == expected


def test_new_rows_are_trained_beside_a_frozen_table():
    """Forward and back to themselves; where they alone are trained, the embedding is below."""
    config = ModelConfig(vocab_size=50, new_tokens=10, num_layers=1, width=32, num_heads=4)
    trainable = {path: path == "embedding/new_tokens" for path in shapes(config)}
    body = TOKENS * sum(layer_matrices(config).values())
    attention = 2 * PAIRS * config.width
    head = SUPERVISED * config.width
    assert step_flop(config, batch(), trainable) == (
        4 * body + 6 * attention + 4 * head * 40 + 6 * head * 10
    )
