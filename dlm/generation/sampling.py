"""Which token comes next: pure functions over the logits of one step.

Letters: B rows, V vocabulary, C candidates.

Sampling is done by the Gumbel-max trick: with independent standard Gumbel noise g,

    argmax_v  x_v / temperature + g_v      is a draw from      softmax(x / temperature),

and the argmax over a subset of the vocabulary is a draw from the distribution renormalised on that
subset. So the host may take the best *allowed* token of an ordered list, and constrained sampling
stays exact.

Source: Gumbel-max, Maddison et al. 2014, section 2, arXiv:1411.0030; nucleus (top-p) sampling,
Holtzman et al. 2020, section 3.1, arXiv:1904.09751.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dlm.models.vocabulary import is_hidden

NUM_CANDIDATES = 32


class Ranking(NamedTuple):
    """One step's answer: a short list for the host, and the whole rows it falls back on.

    Attributes:
      ids: [B, C] int32, the C best tokens in falling order; -1 where the filter left fewer.
      log_probs: [B, C] float32, log softmax of the plain logits at `ids`, in nats.
      scores: [B, V] float32, what the order is taken of; -inf where filtered out or masked.
      logits: [B, V] float32, the model's own; see `vocabulary.is_hidden` for masked ones.
      log_normalisers: [B] float32, logsumexp of `logits`.
    """

    ids: Array
    log_probs: Array
    scores: Array
    logits: Array
    log_normalisers: Array


def gumbel_noise(seed: Array, samples: Array, positions: Array, vocab_size: int) -> Array:
    """Noise that depends on nothing but (seed, sample, position): neighbours cannot change it.

    Args:
      seed: [] int32.
      samples: [B] int32, which request a row belongs to.
      positions: [B] int32, position in its dialogue of the token to be drawn.
      vocab_size: V.

    Returns:
      [B, V] float32 standard Gumbel noise.
    """

    def row(sample: Array, position: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), sample), position)
        return jax.random.gumbel(key, (vocab_size,), jnp.float32)

    return jax.vmap(row)(samples, positions)


def kept(logits: Array, top_k: Array, top_p: Array) -> Array:
    """Which tokens stay: the `top_k` likeliest, and of these the smallest set holding `top_p`.

    A token stays if the likelier ones together hold less than `top_p`, so one always stays.

    Args:
      logits: [B, V] float32, already divided by the temperature.
      top_k: [] int32; 0 keeps all.
      top_p: [] float32 in (0, 1]; 1 keeps all.

    Returns:
      [B, V] bool.
    """
    order = jnp.argsort(-logits, axis=-1)
    ranked = jnp.take_along_axis(logits, order, axis=-1)
    places = jnp.arange(logits.shape[-1])[None]
    within = (places < top_k) | (top_k == 0)
    probs = jax.nn.softmax(jnp.where(within, ranked, -jnp.inf), axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    # At top_p = 1 rounding of the cumulative sum must not drop the tail.
    stays = within & ((before < top_p) | (top_p >= 1))
    return jnp.take_along_axis(stays, jnp.argsort(order, axis=-1), axis=-1)


def rank(logits: Array, scores: Array) -> Ranking:
    """Orders each row by `scores`; see `Ranking`. Equal scores are ordered by token id.

    Args:
      logits: [B, V] float32.
      scores: [B, V] float32; -inf = filtered out. Those of masked tokens count as filtered out.
    """
    scores = jnp.where(is_hidden(logits), -jnp.inf, scores)
    values, ids = jax.lax.top_k(scores, min(NUM_CANDIDATES, scores.shape[-1]))
    log_normalisers = jax.nn.logsumexp(logits, axis=-1)
    log_probs = jnp.take_along_axis(logits, ids, axis=-1) - log_normalisers[:, None]
    ids = jnp.where(values > -jnp.inf, ids, -1).astype(jnp.int32)
    return Ranking(ids, log_probs, scores, logits, log_normalisers)


class Knobs(NamedTuple):
    """The numbers that sampling reads: scalars, so that other values compile nothing new."""

    seed: Array
    temperature: Array
    top_k: Array
    top_p: Array


def choose(logits: Array, samples: Array, positions: Array, knobs: Knobs, *, mode: str) -> Ranking:
    """Ranks the next token of every row.

    Args:
      logits: [B, V] float32.
      samples: [B] int32, as in `gumbel_noise`.
      positions: [B] int32, likewise.
      knobs: temperature > 0 unless greedy; top_k and top_p as in `kept`.
      mode: "greedy" (by logits), "sampled" (whole distribution) or "filtered" (top-k, top-p).
    """
    if mode == "greedy":
        return rank(logits, logits)
    scaled = logits / knobs.temperature
    scores = scaled + gumbel_noise(knobs.seed, samples, positions, logits.shape[-1])
    if mode == "filtered":
        scores = jnp.where(kept(scaled, knobs.top_k, knobs.top_p), scores, -jnp.inf)
    return rank(logits, scores)
