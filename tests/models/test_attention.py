"""Every implementation equals the reference, forward and gradient, packed and padded."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import IMPLEMENTATIONS, pack

from dlm.models.attention import attention, cached_attention, reference_attention
from dlm.models.block_attention import _first_blocks


def inputs(batch: int, length: int, heads: int, kv_heads: int, width: int, seed: int = 0) -> tuple:
    draw = np.random.default_rng(seed).normal
    return (
        draw(size=(batch, length, heads, width)).astype(np.float32),
        draw(size=(batch, length, kv_heads, width)).astype(np.float32),
        draw(size=(batch, length, kv_heads, width)).astype(np.float32),
    )


def attend(implementation: str, q, k, v, segments, positions) -> jax.Array:
    return attention(
        q,
        k,
        v,
        query_segments=segments,
        key_segments=segments,
        query_positions=positions,
        key_positions=positions,
        implementation=implementation,
    )


@partial(jax.jit, static_argnums=0)
def compiled(implementation: str, qkv: tuple, segments, positions, cotangent) -> tuple:
    out, pull = jax.vjp(lambda *a: attend(implementation, *a, segments, positions), *qkv)
    return out, *pull(cotangent)


def output_and_gradients(implementation: str, qkv: tuple, segments, positions) -> list:
    cotangent = np.random.default_rng(9).normal(size=qkv[0].shape).astype(np.float32)
    return [np.asarray(x) for x in compiled(implementation, qkv, segments, positions, cotangent)]


def assert_close(a: list, b: list, tolerance: float) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance * max(1, np.abs(y).max()), rtol=0)


def by_hand(q, k, v, segments, positions) -> np.ndarray:
    """The equation in loops over rows, queries and heads, float64."""
    out = np.zeros(q.shape)
    groups = q.shape[2] // k.shape[2]
    for b, t, n in np.ndindex(*q.shape[:3]):
        may = (segments[b] == segments[b, t]) & (positions[b] <= positions[b, t])
        if segments[b, t] > 0:
            scores = k[b, may, n // groups].astype(np.float64) @ q[b, t, n] / np.sqrt(q.shape[3])
            weights = np.exp(scores - scores.max())
            out[b, t, n] = weights @ v[b, may, n // groups] / weights.sum()
    return out


def test_reference_is_the_equation():
    segments, positions = pack([[3, 5], [6]], 9)
    qkv = inputs(2, 9, 4, 2, 6)
    expected = by_hand(*qkv, segments, positions)
    np.testing.assert_allclose(attend("reference", *qkv, segments, positions), expected, atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[1:])
@pytest.mark.parametrize(
    ("length", "pieces"),
    [
        (150, [[150], [40, 30, 80], [10], []]),  # blocks of 64, the last one short
        (300, [[300], [130, 1, 100, 60], [256, 44], [1]]),  # blocks of 128
        (128, [[64, 64], [63, 65]]),
    ],
)
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (6, 2), (4, 1)])
def test_implementations_equal_reference(implementation, length, pieces, heads, kv_heads):
    """Packed equals separate, for the parts: every implementation, GQA, padding, odd lengths."""
    segments, positions = pack(pieces, length)
    qkv = inputs(len(pieces), length, heads, kv_heads, 8)
    expected = output_and_gradients("reference", qkv, segments, positions)
    assert_close(output_and_gradients(implementation, qkv, segments, positions), expected, 2e-6)


@settings(max_examples=12)
@given(data=st.data())
def test_blocks_with_any_segments(data):
    """Segments in any order, in several stretches, with padding anywhere between."""
    length = 140
    runs = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 90)), min_size=1))
    segments = np.concatenate([np.full(size, number) for number, size in runs])
    segments = np.pad(segments[:length], (0, max(0, length - len(segments))))[None].astype(np.int32)
    positions = np.zeros_like(segments)
    for number in np.unique(segments):
        here = segments[0] == number
        positions[0, here] = np.arange(here.sum())
    qkv = inputs(1, length, 2, 1, 4)
    expected = output_and_gradients("reference", qkv, segments, positions)
    assert_close(output_and_gradients("blocks", qkv, segments, positions), expected, 2e-6)


def test_blocks_that_do_not_meet_are_skipped():
    """A packed row reads from the block of its segment's start; a block of padding reads none."""
    segments, _ = pack([[64, 64, 32], [160], [70, 90], []], 256)
    expected = [[0, 1, 2, 4], [0, 0, 0, 4], [0, 0, 1, 4], [1, 2, 3, 4]]
    np.testing.assert_array_equal(_first_blocks(jnp.asarray(segments)), expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_padding_is_nothing(implementation):
    """Padding is nothing: its output is 0, and its values reach no output and no gradient."""
    segments, positions = pack([[70, 20], [], [1]], 140)
    qkv = inputs(3, 140, 2, 2, 4)
    garbage = [np.where(segments[..., None, None] > 0, x, 1e30) for x in qkv]
    plain = output_and_gradients(implementation, qkv, segments, positions)
    other = output_and_gradients(implementation, garbage, segments, positions)
    for x, y in zip(plain, other, strict=True):
        assert np.all(x[segments == 0] == 0)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_keeps_statistics_in_float32(implementation):
    """Of 140 equal scores each weighs 1/140: the output is the mean of the values."""
    segments, positions = pack([[140]], 140)
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in inputs(1, 140, 2, 2, 8))
    out = attend(implementation, 0 * q, k, v, segments, positions)
    assert out.dtype == jnp.bfloat16
    mean = np.asarray(v, np.float32)[:, :, :, :].mean(1)
    np.testing.assert_allclose(np.asarray(out, np.float32)[:, -1], mean, atol=2e-2)


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 6), (6, 2), (3, 1)])
@pytest.mark.parametrize("queries", [1, 4])
def test_attention_over_a_cache_equals_reference(queries, heads, kv_heads):
    """Rows at different positions, one row without a dialogue; keys are held head by head."""
    q, k, v = inputs(3, 20, heads, kv_heads, 8)
    q = q[:, :queries]
    last = np.array([4, 19, -1])[:, None, None] - np.arange(queries)[::-1, None]
    allowed = (np.arange(20) <= last) & (last >= 0)
    expected = reference_attention(q, k, v, allowed)
    out = cached_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), allowed)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    assert np.all(expected[2] == 0)
