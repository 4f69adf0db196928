"""Attention for CPUs: one block of queries of one key/value head at a time, plain 2-D products.

XLA's batched small products are slow on a CPU, so each (row, key/value head) is a scan step, each
block of its queries a step within, and the G query heads are stacked into the rows of one product.
A block reads the keys from the first block that shares a segment with it up to its own: nothing
above the diagonal and, in packed rows, nothing before the block's first segment is computed. Only
the output and the log-sum-exp are kept; the gradient makes the probabilities again (Dao 2023,
arXiv:2307.08691, section 3.1):

    p = exp(q k' - lse)   dv = p' do   ds = p * (do v' - sum(do * o))   dq = ds k   dk = ds' q

Measured on two cores, forward and gradient in ms, einsum / blocks: [B 16, N 4, T 256, H 32] one
segment a row 57 / 36, four 34 / 17; [B 8, N 6, T 512, H 64] one 132 / 106, four 138 / 66.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
    scaled = query * query.shape[-1] ** -0.5
    heads = _split_queries(scaled, key.shape[2]), _split(key), _split(value)
    segments, positions = _pad(jnp.asarray(segments)), _pad(jnp.asarray(positions))
    tokens = segments, positions, _first_blocks(segments)
    out, log_sums = _scan_heads(_head_forward, heads, tokens)
    out = _join_queries(out, query.shape)
    return out, (heads, tokens, out, log_sums)


def _backward(residuals: tuple[Any, ...], d_out: Array) -> tuple[Array | None, ...]:
    heads, tokens, out, log_sums = residuals
    batch, length, _, width = d_out.shape
    kv_heads = heads[1].shape[0] // batch
    inner = jnp.sum(out * d_out, axis=-1, keepdims=True, dtype=log_sums.dtype)
    d_heads, inner = _split_queries(d_out, kv_heads), _split_queries(inner, kv_heads)[..., 0]
    # Transposed here, all heads at once, and not block by block.
    turned = jnp.swapaxes(heads[0], 2, 3), jnp.swapaxes(d_heads, 2, 3)
    d_query, d_key, d_value = _scan_heads(
        _head_backward, (*heads, d_heads, log_sums, inner, *turned), tokens
    )
    d_query = _join_queries(d_query, d_out.shape) * width**-0.5
    shape = batch, length, kv_heads, width
    d_key, d_value = (_join(jnp.swapaxes(x, 1, 2), shape) for x in (d_key, d_value))
    return d_query, d_key, d_value, None, None


block_attention.defvjp(_forward, _backward)


def _head_forward(
    query: Array, key: Array, value: Array, segments: Array, positions: Array, first_blocks: Array
) -> tuple[Array, Array]:
    """One key/value head, query [G, T, H]: output [G, T, H] and log-sum-exp [G, T]."""

    def attend(sums: tuple[()], queries: _Window, keys: _Window) -> tuple[tuple[()], Any]:
        mask = _allowed(segments, positions, queries, keys)
        scores = _scores(queries.of(query, 1), keys.of(key))
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        highest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.where(mask, jnp.exp(scores - highest), 0)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        total = jnp.where(total > 0, total, 1)
        out = _product("gts,sh->gth", weights.astype(value.dtype), keys.of(value)) / total
        return sums, (out.astype(query.dtype), (highest + jnp.log(total))[..., 0])

    _, (outs, log_sums) = _sweep_blocks(attend, (), first_blocks, query.shape[1])
    return _rows(outs), _rows(log_sums)


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
) -> tuple[Array, Array, Array]:
    """Gradients of one key/value head: of the query [G, T, H], of key and value [H, T]."""
    length, dtype = query.shape[1], query.dtype

    def pull(sums: Any, queries: _Window, keys: _Window) -> tuple[tuple[Array, Array], Array]:
        rows, d_rows = queries.of(query, 1), queries.of(d_out, 1)
        columns = keys.of(key)
        mask = _allowed(segments, positions, queries, keys)
        weights = jnp.exp(_scores(rows, columns) - queries.of(log_sums, 1)[..., None])
        weights = jnp.where(mask, weights, 0)
        d_scores = weights * (_scores(d_rows, keys.of(value)) - queries.of(inner, 1)[..., None])
        d_scores, weights = d_scores.astype(dtype), weights.astype(dtype)
        d_query = _product("gts,sh->gth", d_scores, columns)
        d_key = _product("ght,gts->hs", queries.of(turned_query, 2), d_scores)
        d_value = _product("ght,gts->hs", queries.of(turned_d_out, 2), weights)
        return (keys.add(d_key, sums[0]), keys.add(d_value, sums[1])), d_query.astype(dtype)

    zeros = jnp.zeros((key.shape[1], length), log_sums.dtype)
    (d_key, d_value), d_queries = _sweep_blocks(pull, (zeros, zeros), first_blocks, length)
    return _rows(d_queries), d_key.astype(dtype), d_value.astype(dtype)


class _Window(NamedTuple):
    """A stretch of tokens: its start is known when it runs, its size before."""

    start: Array
    size: int

    def of(self, x: Array, axis: int = 0) -> Array:
        return lax.dynamic_slice_in_dim(x, self.start, self.size, axis)

    def add(self, part: Array, whole: Array) -> Array:
        """Adds [H, size] to this stretch of [H, T]."""
        return lax.dynamic_update_slice_in_dim(whole, self.of(whole, 1) + part, self.start, 1)


def _sweep_blocks(work: Callable, sums: Any, first_blocks: Array, length: int) -> tuple[Any, Any]:
    """Runs `work(sums, queries, keys)` for each block of queries, which gives (sums, results).

    Keys go from the first block needed to the queries' own, a branch for each number of blocks; a
    block of padding changes no sums and gives zeros.

    Returns:
      The last sums, and the results of the blocks, stacked.
    """
    count = first_blocks.shape[0]
    size = length // count

    def step(sums: Any, item: tuple[Array, Array]) -> tuple[Any, Any]:
        i, first = item
        queries = _Window(i * size, size)
        branches = [
            partial(work, queries=queries, keys=_Window((i + 1 - n) * size, n * size))
            for n in range(1, count + 1)
        ]

        def nothing(sums: Any) -> tuple[Any, Any]:
            _, shapes = jax.eval_shape(branches[0], sums)
            return sums, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        return lax.switch(i + 1 - first, [nothing, *branches], sums)

    return lax.scan(step, sums, (jnp.arange(count), first_blocks))


def _num_blocks(length: int) -> int:
    return -(-length // (64 if length <= 256 else 128))


def _first_blocks(segments: Array) -> Array:
    """The first key block that each query block needs [B, blocks]; i + 1 where i is all padding.

    Two blocks meet if their ranges of segment numbers overlap: never too few, and in the order of
    a packer, who numbers segments along the row, never too many.
    """
    batch, length = segments.shape
    blocks = segments.reshape(batch, _num_blocks(length), -1)
    lowest = jnp.min(jnp.where(blocks > 0, blocks, jnp.iinfo(blocks.dtype).max), axis=2)
    highest = jnp.max(blocks, axis=2)
    number = jnp.arange(blocks.shape[1])
    meets = (
        (lowest[:, None, :] <= highest[:, :, None])
        & (highest[:, None, :] >= lowest[:, :, None])
        & (number[None, :] <= number[:, None])
    )
    return jnp.where(jnp.any(meets, axis=2), jnp.argmax(meets, axis=2), number + 1)


def _allowed(segments: Array, positions: Array, queries: _Window, keys: _Window) -> Array:
    mine = queries.of(segments)[:, None]
    same = (mine == keys.of(segments)) & (mine > 0)
    return same & (keys.of(positions) <= queries.of(positions)[:, None])


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


def _rows(blocks: Array) -> Array:
    """[blocks, G, C, ...] to [G, T, ...]."""
    x = jnp.swapaxes(blocks, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def _pad(x: Array) -> Array:
    """[B, T, ...] with T rounded up to equal blocks."""
    length = x.shape[1]
    more = -length % _num_blocks(length)
    return jnp.pad(x, ((0, 0), (0, more)) + ((0, 0),) * (x.ndim - 2))


def _split(x: Array) -> Array:
    """[B, T, K, H] to [B K, T, H], padded."""
    x = _pad(x)
    batch, length, heads, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch * heads, length, width)


def _join(x: Array, shape: tuple[int, ...]) -> Array:
    """[B K, T, H] to `shape` [B, T, K, H]."""
    return x.reshape(shape[0], -1, *x.shape[1:]).transpose(0, 2, 1, 3)[:, : shape[1]]


def _split_queries(x: Array, num_kv_heads: int) -> Array:
    """[B, T, N, H] to [B K, G, T, H], padded."""
    x, batch = _split(x), x.shape[0]
    return x.reshape(batch * num_kv_heads, -1, *x.shape[1:])


def _join_queries(x: Array, shape: tuple[int, ...]) -> Array:
    """[B K, G, T, H] to `shape` [B, T, N, H]."""
    return _join(x.reshape(-1, *x.shape[2:]), shape)
