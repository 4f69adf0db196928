"""Attention for CPUs: one key/value head at a time, blocks of queries, plain 2-D products.

XLA's batched small products are slow on a CPU, so each (row, key/value head) is a scan step and
its G query heads are stacked into the rows of one product. A block of queries reads the keys from
the first block that shares a segment with it up to its own: nothing above the diagonal and, in
packed rows, nothing before the block's first segment is computed. Only the output and the
log-sum-exp are kept; the gradient makes the probabilities again (Dao 2023, arXiv:2307.08691,
section 3.1):

    p = exp(q k' - lse)   dv = p' do   ds = p * (do v' - sum(do * o))   dq = ds k   dk = ds' q

Measured on two cores, forward and gradient in ms, einsum / blocks: [B 16, N 4, T 256, H 32] one
segment a row 57 / 36, four 34 / 17; [B 8, N 6, T 512, H 64] one 132 / 106, four 138 / 66.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_vjp
def block_attention(
    query: Array, key: Array, value: Array, segments: Array, positions: Array
) -> Array:
    """Attends tokens among themselves; see the module, and `attention` for what is computed.

    Args:
      query: [B, T, N, H] float.
      key: [B, T, K, H].
      value: [B, T, K, H].
      segments: [B, T] int32.
      positions: [B, T] int32, rising along a row within a segment.

    Returns:
      [B, T, N, H], dtype of the query.
    """
    return _forward(query, key, value, segments, positions)[0]


def _forward(
    query: Array, key: Array, value: Array, segments: Array, positions: Array
) -> tuple[Array, tuple[Any, ...]]:
    query = query * query.shape[-1] ** -0.5
    heads = _split_queries(query, key.shape[2]), _split(key), _split(value)
    segments, positions = jnp.asarray(segments), jnp.asarray(positions)
    tokens = segments, positions, _first_blocks(segments)
    outs, log_sums = _scan_heads(_head_forward, heads, tokens)
    out, log_sums = jnp.concatenate(outs, axis=2), jnp.concatenate(log_sums, axis=2)
    return _join_queries(out, query.shape), (heads, tokens, out, log_sums)


def _backward(residuals: tuple[Any, ...], d_out: Array) -> tuple[Array | None, ...]:
    heads, tokens, out, log_sums = residuals
    batch, width = d_out.shape[0], d_out.shape[-1]
    num_kv_heads = heads[1].shape[0] // batch
    d_heads = _split_queries(d_out, num_kv_heads)
    inner = jnp.einsum("...h,...h->...", out, d_heads, preferred_element_type=log_sums.dtype)
    # Transposed here, all heads at once, and not block by block.
    turned = jnp.swapaxes(heads[0], 2, 3), jnp.swapaxes(d_heads, 2, 3)
    d_queries, d_key, d_value = _scan_heads(
        _head_backward, (*heads, d_heads, log_sums, inner, *turned), tokens
    )
    d_query = _join_queries(jnp.concatenate(d_queries, axis=2), d_out.shape) * width**-0.5
    d_key, d_value = (_join(jnp.swapaxes(x, 1, 2), batch) for x in (d_key, d_value))
    return d_query, d_key, d_value, None, None


block_attention.defvjp(_forward, _backward)


def _head_forward(
    query: Array, key: Array, value: Array, segments: Array, positions: Array, first_blocks: Array
) -> tuple[Sequence[Array], ...]:
    """One key/value head, query [G, T, H]: output [G, T, H] and log-sum-exp [G, T]."""

    def attend(queries: slice, keys: slice) -> tuple[Array, ...]:
        mask = _allowed(segments, positions, queries, keys)
        scores = _scores(query[:, queries], key[keys])
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        highest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.where(mask, jnp.exp(scores - highest), 0)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        total = jnp.where(total > 0, total, 1)
        out = _product("gts,sh->gth", weights.astype(value.dtype), value[keys]) / total
        return out.astype(query.dtype), (highest + jnp.log(total))[..., 0]

    return _sweep_blocks(attend, query.shape[1], first_blocks)


def _head_backward(
    query: Array,
    key: Array,
    value: Array,
    d_out: Array,
    log_sums: Array,
    inner: Array,
    turned_query: Array,
    turned_d_out: Array,
    segments: Array,
    positions: Array,
    first_blocks: Array,
) -> tuple[Sequence[Array], Array, Array]:
    """Gradients of one key/value head: query [G, T, H], key and value [T, H]."""
    length, dtype = query.shape[1], query.dtype

    def pull(queries: slice, keys: slice) -> tuple[Array, ...]:
        rows, d_rows = query[:, queries], d_out[:, queries]
        mask = _allowed(segments, positions, queries, keys)
        weights = jnp.exp(_scores(rows, key[keys]) - log_sums[:, queries, None])
        weights = jnp.where(mask, weights, 0)
        d_scores = weights * (_scores(d_rows, value[keys]) - inner[:, queries, None])
        d_scores, weights = d_scores.astype(dtype), weights.astype(dtype)
        d_query = _product("gts,sh->gth", d_scores, key[keys])
        d_key = _product("ght,gts->hs", turned_query[:, :, queries], d_scores)
        d_value = _product("ght,gts->hs", turned_d_out[:, :, queries], weights)
        place = ((0, 0), (keys.start, length - keys.stop))
        return d_query.astype(dtype), jnp.pad(d_key, place), jnp.pad(d_value, place)

    d_queries, d_keys, d_values = _sweep_blocks(pull, length, first_blocks)
    d_key, d_value = (functools.reduce(jnp.add, parts) for parts in (d_keys, d_values))
    return d_queries, d_key.astype(dtype), d_value.astype(dtype)


def _sweep_blocks(work: Callable, length: int, first_blocks: Array) -> tuple[Sequence[Array], ...]:
    """Runs `work(queries, keys)` for each block of queries; its results, listed by block.

    Keys go from the first block needed to the queries' own, a branch for each; a block of padding
    gives zeros.
    """
    blocks, results = _blocks(length), []
    for i, queries in enumerate(blocks):
        branches = [
            functools.partial(work, queries, slice(b.start, queries.stop)) for b in blocks[: i + 1]
        ]
        shapes = jax.eval_shape(branches[0])
        nothing = functools.partial(jax.tree.map, lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        results.append(lax.switch(first_blocks[i], [*branches, nothing]))
    return tuple(zip(*results, strict=True))


def _blocks(length: int) -> list[slice]:
    size = 64 if length <= 256 else 128
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _first_blocks(segments: Array) -> Array:
    """The first key block that each query block needs [B, blocks]; i + 1 where i is all padding.

    Two blocks meet if their ranges of segment numbers overlap: never too few, and in the order of
    a packer, who numbers segments along the row, never too many.
    """
    blocks = _blocks(segments.shape[1])
    least = jnp.where(segments > 0, segments, jnp.iinfo(segments.dtype).max)
    lowest = jnp.stack([jnp.min(least[:, b], axis=1) for b in blocks], axis=1)
    highest = jnp.stack([jnp.max(segments[:, b], axis=1) for b in blocks], axis=1)
    number = jnp.arange(len(blocks))
    meets = (
        (lowest[:, None, :] <= highest[:, :, None])
        & (highest[:, None, :] >= lowest[:, :, None])
        & (number[None, :] <= number[:, None])
    )
    return jnp.where(jnp.any(meets, axis=2), jnp.argmax(meets, axis=2), number + 1)


def _allowed(segments: Array, positions: Array, queries: slice, keys: slice) -> Array:
    mine = segments[queries, None]
    same = (mine == segments[None, keys]) & (mine > 0)
    return same & (positions[None, keys] <= positions[queries, None])


def _scores(rows: Array, columns: Array) -> Array:
    return _product("gth,sh->gts", rows, columns)


def _product(letters: str, left: Array, right: Array) -> Array:
    wide = jnp.promote_types(left.dtype, jnp.float32)
    return jnp.einsum(letters, left, right, preferred_element_type=wide)


def _scan_heads(
    work: Callable, heads: tuple[Array, ...], tokens: tuple[Array, ...]
) -> tuple[Array, ...]:
    """Runs `work` on each (row, head) of [B K, ...], with the tokens' arrays of its row."""
    count = heads[0].shape[0]
    rows = jnp.arange(count) // (count // tokens[0].shape[0])

    def step(carry: None, item: tuple[Array, ...]) -> tuple[None, tuple[Array, ...]]:
        *arrays, row = item
        return carry, work(*arrays, *(array[row] for array in tokens))

    return lax.scan(step, None, (*heads, rows))[1]


def _split(x: Array) -> Array:
    """[B, T, K, H] to [B K, T, H]."""
    batch, length, heads, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch * heads, length, width)


def _join(x: Array, batch: int) -> Array:
    """[B K, T, H] to [B, T, K, H]."""
    return x.reshape(batch, -1, *x.shape[1:]).transpose(0, 2, 1, 3)


def _split_queries(x: Array, num_kv_heads: int) -> Array:
    """[B, T, N, H] to [B K, G, T, H]."""
    return _split(x).reshape(x.shape[0] * num_kv_heads, -1, x.shape[1], x.shape[3])


def _join_queries(x: Array, shape: tuple[int, ...]) -> Array:
    """[B K, G, T, H] to `shape` [B, T, N, H]."""
    return _join(x.reshape(-1, *x.shape[2:]), shape[0])
