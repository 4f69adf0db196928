"""Causal attention within segments: one function, an ordered choice of implementations.

Letters: B rows, T queries, S keys, N query heads, K key/value heads, G = N/K, H head width. A query
attends a key of its own segment whose position is not after its own:

    out_t = sum_s p_ts v_s     p_t. = softmax over the allowed s of (q_t . k_s) / sqrt(H)

Segment 0 is padding: it attends nothing, nothing attends it, and its output is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from dlm.models.block_attention import block_attention
from dlm.models.devices import current_mesh, on_parts, row_axes
from dlm.models.flash_attention import flash_attention


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
        "xla": by einsum.
        "blocks": head by head in blocks, for CPUs, see `block_attention`; queries and keys must be
          the same tokens, positions rising along a row within a segment, as in `Batch`.
        "flash": by a fused kernel, for GPUs in 16 bits, see `flash_attention`; likewise.
        "auto": where queries and keys are as many, "blocks" on a CPU and "flash" on a GPU in 16
          bits; else "xla".

    Returns:
      [B, T, N, H], dtype of the query; scores and softmax in at least float32. On a mesh each
      device attends with its own rows and heads.
    """
    tokens = query_segments, key_segments, query_positions, key_positions
    work: Callable[..., Array] = partial(_attend, implementation)
    mesh = current_mesh()
    if mesh is not None:
        rows = row_axes(mesh, query.shape[0])
        heads = "tensor" if key.shape[2] % mesh.shape["tensor"] == 0 else None
        part = PartitionSpec(rows, None, heads)
        work = on_parts(work, mesh, (*[part] * 3, PartitionSpec(rows)), part)
    return work(query, key, value, tokens)


def _attend(
    implementation: str, query: Array, key: Array, value: Array, tokens: tuple[Array, ...]
) -> Array:
    """See `attention`; `tokens` are segments of queries and keys, then their positions."""
    query_segments, key_segments, query_positions, key_positions = tokens
    if implementation == "auto":
        same = query.shape[1] == key.shape[1] > 1
        implementation = _fastest(query.dtype) if same else "xla"
    if implementation == "blocks":
        return block_attention(query, key, value, query_segments, query_positions)
    if implementation == "flash":
        return flash_attention(query, key, value, query_segments)
    allowed = (
        (query_segments[:, :, None] == key_segments[:, None, :])
        & (query_segments[:, :, None] > 0)
        & (key_positions[:, None, :] <= query_positions[:, :, None])
    )
    if implementation == "reference":
        return reference_attention(query, key, value, allowed)
    return einsum_attention(query, key, value, allowed)


def _fastest(dtype: jnp.dtype) -> str:
    """For tokens among themselves, on the device at hand."""
    backend = jax.default_backend()
    if backend == "gpu" and dtype.itemsize == 2:
        return "flash"
    return "blocks" if backend == "cpu" else "xla"


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


def cached_attention(query: Array, key: Array, value: Array, allowed: Array) -> Array:
    """As the reference, over keys and values as a cache holds them: head by head.

    Args:
      query: [B, T, N, H].
      key: [B, K, S, H].
      value: [B, K, S, H].
      allowed: [B, T, S] bool, True = the query may attend the slot.
    """
    batch, length, heads, width = query.shape
    groups = heads // key.shape[1]
    grouped = query.reshape(batch, length, -1, groups, width) * width**-0.5
    # A CPU is fastest with one query a product, though it then reads a head's keys G times.
    parts = groups if jax.default_backend() == "cpu" else 1
    outs = [_grouped(part, key, value, allowed) for part in jnp.split(grouped, parts, axis=3)]
    return jnp.concatenate(outs, axis=3).reshape(query.shape).astype(query.dtype)


def _grouped(query: Array, key: Array, value: Array, allowed: Array) -> Array:
    """Attention of queries [B, T, K, G, H], already scaled, over [B, K, S, H]."""
    wide = _statistics_dtype(query)
    scores = jnp.einsum("BTKGH,BKSH->BKGTS", query, key, preferred_element_type=wide)
    probabilities = masked_softmax(scores, allowed[:, None, None]).astype(value.dtype)
    return jnp.einsum("BKGTS,BKSH->BTKGH", probabilities, value, preferred_element_type=wide)


def masked_softmax(scores: Array, allowed: Array) -> Array:
    """Softmax over the allowed entries; all zeros, not NaN, where nothing is allowed."""
    scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(allowed, jax.nn.softmax(scores, axis=-1), 0)


def _statistics_dtype(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)
