"""What is compiled: reading prompts into a cache, and one step of all rows.

Letters: B rows, P prompt length, S cache slots.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dlm.generation.sampling import Knobs, Ranking, choose
from dlm.models.cache import Cache, empty_cache, longer
from dlm.models.decoder import Model


def prefill(
    model: Model,
    params: dict,
    tokens: Array,
    lengths: Array,
    samples: Array,
    knobs: Knobs,
    *,
    cache_length: int,
    mode: str,
) -> tuple[Cache, Ranking]:
    """Reads prompts into a new cache and ranks the token after each.

    Args:
      model: see `Engine`.
      params: its parameters.
      tokens: [B, P] int32, padded on the right.
      lengths: [B] int32, tokens of each prompt; 0 = an empty row.
      samples: [B] int32, see `sampling.gumbel_noise`.
      knobs: see `sampling.choose`.
      cache_length: S, slots of the cache, at least P.
      mode: see `sampling.choose`.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    segment_ids = (positions < lengths[:, None]).astype(jnp.int32)
    # Reading needs no slots beyond the prompt's; they are added when it is read.
    rows, length = tokens.shape
    cache = empty_cache(model.config, rows, length, model.dtype)
    hidden, cache = model.hidden(params, tokens, positions, segment_ids, cache=cache)
    cache = longer(cache, cache_length)
    last = jnp.maximum(lengths - 1, 0)[:, None, None]
    logits = model.logits(params, jnp.take_along_axis(hidden, last, axis=1)[:, 0])
    return cache, choose(logits, samples, lengths, knobs, mode=mode)


def step(
    model: Model,
    params: dict,
    cache: Cache,
    tokens: Array,
    positions: Array,
    active: Array,
    samples: Array,
    knobs: Knobs,
    *,
    mode: str,
) -> tuple[Cache, Ranking]:
    """Reads one token of every row and ranks the next.

    Args:
      model: see `Engine`.
      params: its parameters.
      cache: what the rows have read; donated.
      tokens: [B] int32, the token last written.
      positions: [B] int32, its position.
      active: [B] int32, 1 = the row is decoded, 0 = it writes nothing to the cache.
      samples: [B] int32, see `sampling.gumbel_noise`.
      knobs: see `sampling.choose`.
      mode: likewise.
    """
    hidden, cache = model.hidden(
        params, tokens[:, None], positions[:, None], active[:, None], cache=cache
    )
    logits = model.logits(params, hidden[:, 0])
    return cache, choose(logits, samples, positions + 1, knobs, mode=mode)
