"""Causal attention within segments: one function, an ordered choice of implementations.

Letters: B rows, T queries, S keys, N query heads, K key/value heads, G = N/K, H head width. A query
attends a key of its own segment whose position is not after its own:

    out_t = sum_s p_ts v_s     p_t. = softmax over the allowed s of (q_t . k_s) / sqrt(H)

Segment 0 is padding: it attends nothing, nothing attends it, and its output is 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from dlm.models.block_attention import block_attention


def attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    query_segments: Array,
    key_segments: Array,
    query_positions: Array,
    key_positions: Array,
    implementation: str = "auto",
) -> Array:
    """Attends by the implementation that is named, or by the fastest one for device and shape.

    Args:
      query: [B, T, N, H] float.
      key: [B, S, K, H].
      value: [B, S, K, H].
      query_segments: [B, T] int32.
      key_segments: [B, S] int32.
      query_positions: [B, T] int32.
      key_positions: [B, S] int32.
      implementation: one of
        "reference": the equation as it stands.
        "xla": by einsum; also for keys from a cache.
        "blocks": head by head in blocks, for CPUs, see `block_attention`; queries and keys must be
          the same tokens, positions rising along a row within a segment, as in `Batch`.
        "auto": "blocks" on a CPU where queries and keys are as many, else "xla".

    Returns:
      [B, T, N, H], dtype of the query; scores and softmax in at least float32.
    """
    if implementation == "auto":
        same = query.shape[1] == key.shape[1] > 1
        implementation = "blocks" if same and jax.default_backend() == "cpu" else "xla"
    if implementation == "blocks":
        return block_attention(query, key, value, query_segments, query_positions)
    allowed = (
        (query_segments[:, :, None] == key_segments[:, None, :])
        & (query_segments[:, :, None] > 0)
        & (key_positions[:, None, :] <= query_positions[:, :, None])
    )
    if implementation == "reference":
        return reference_attention(query, key, value, allowed)
    if query.shape[:2] != (1, 1) and query.shape[1] == 1 and jax.default_backend() == "cpu":
        return one_query_attention(query, key, value, allowed)
    return einsum_attention(query, key, value, allowed)


def reference_attention(query: Array, key: Array, value: Array, allowed: Array) -> Array:
    """The equation as it stands: what every other implementation must equal.

    Args:
      query: [B, T, N, H].
      key: [B, S, K, H].
      value: [B, S, K, H].
      allowed: [B, T, S] bool, True = the query may attend the key.
    """
    groups = query.shape[2] // key.shape[2]
    wide = _statistics_dtype(query)
    keys = jnp.repeat(key, groups, axis=2).astype(wide)
    values = jnp.repeat(value, groups, axis=2).astype(wide)
    scores = jnp.einsum("BTNH,BSNH->BNTS", query.astype(wide), keys) / query.shape[-1] ** 0.5
    probabilities = masked_softmax(scores, allowed[:, None])
    return jnp.einsum("BNTS,BSNH->BTNH", probabilities, values).astype(query.dtype)


def einsum_attention(query: Array, key: Array, value: Array, allowed: Array) -> Array:
    """As the reference, with keys and values shared by the heads of a group, not repeated."""
    batch, length, _, width = query.shape
    grouped = query.reshape(batch, length, key.shape[2], -1, width) * width**-0.5
    wide = _statistics_dtype(query)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, key, preferred_element_type=wide)
    probabilities = masked_softmax(scores, allowed[:, None, None]).astype(value.dtype)
    out = jnp.einsum("BKGTS,BSKH->BTKGH", probabilities, value, preferred_element_type=wide)
    return out.reshape(query.shape).astype(query.dtype)


def one_query_attention(query: Array, key: Array, value: Array, allowed: Array) -> Array:
    """One query a row, as products and sums: on a CPU faster than many tiny matrix products."""
    batch, _, heads, width = query.shape
    wide = _statistics_dtype(query)
    if heads == key.shape[2]:  # a group axis of size 1 would cost XLA's CPU backend a factor of 10
        scores = jnp.sum(query * width**-0.5 * key, axis=-1, dtype=wide)
        probabilities = masked_softmax(scores, allowed[:, 0, :, None], axis=1)
        out = jnp.sum(probabilities[..., None] * value, axis=1, dtype=wide)
        return out[:, None].astype(query.dtype)
    grouped = query.reshape(batch, 1, key.shape[2], -1, width) * width**-0.5
    scores = jnp.sum(grouped * key[:, :, :, None], axis=-1, dtype=wide)
    probabilities = masked_softmax(scores, allowed[:, 0, :, None, None], axis=1)
    out = jnp.sum(probabilities[..., None] * value[:, :, :, None], axis=1, dtype=wide)
    return out.reshape(query.shape).astype(query.dtype)


def masked_softmax(scores: Array, allowed: Array, axis: int = -1) -> Array:
    """Softmax over the allowed entries; all zeros, not NaN, where nothing is allowed."""
    scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(allowed, jax.nn.softmax(scores, axis=axis), 0)


def _statistics_dtype(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)
