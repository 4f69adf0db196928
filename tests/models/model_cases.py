"""Small configs and packed rows for the tests of the models."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import numpy as np

from dlm.models.config import ModelConfig
from dlm.models.decoder import Model

LLAMA = ModelConfig(
    vocab_size=61, num_layers=2, width=32, num_heads=4, num_kv_heads=2, max_length=160, tied=False
)
GPT2 = replace(
    LLAMA,
    num_kv_heads=None,
    position="learned",
    norm="layer",
    mlp="gelu",
    bias=True,
    tied=True,
)
FAMILIES = {"llama": LLAMA, "gpt2": GPT2}
IMPLEMENTATIONS = ("reference", "xla", "blocks", "flash")


def pack(lengths: list[list[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Segment ids and positions [B, length] of rows that pack pieces of these lengths."""
    segments = np.zeros((len(lengths), length), np.int32)
    positions = np.zeros_like(segments)
    for row, pieces in enumerate(lengths):
        start = 0
        for number, size in enumerate(pieces, 1):
            segments[row, start : start + size] = number
            positions[row, start : start + size] = np.arange(size)
            start += size
    return segments, positions


@partial(jax.jit, static_argnums=0)
def hidden_of(model: Model, params: dict, tokens, segments, positions, keys=None) -> jax.Array:
    return model.hidden(params, tokens, positions, segments, dropout_keys=keys)


@partial(jax.jit, static_argnums=0)
def logits_of(model: Model, params: dict, tokens, segments, positions) -> jax.Array:
    return model.logits(params, hidden_of(model, params, tokens, segments, positions))


@partial(jax.jit, static_argnums=0)
def init(model: Model, seed: int) -> dict:
    return model.init(jax.random.key(seed))


def random_tokens(shape: tuple[int, ...], vocab_size: int = 61, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocab_size, shape).astype(np.int32)


def loud(params: dict, scale: float = 8.0) -> dict:
    """Parameters scaled up, so that attention is peaked and a wrong mask shows in every digit."""
    return jax.tree.map(lambda leaf: scale * leaf if leaf.ndim > 1 else leaf, params)
