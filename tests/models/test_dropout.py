"""Randomness: dropout's zeros belong to seed, step, row and site."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import GPT2, hidden_of, init, pack, random_tokens

from dlm.models.decoder import Model
from dlm.models.dropout import dropout

KEYS = jax.random.split(jax.random.key(0), 4)
ONES = jnp.ones((4, 33, 50))  # 1650 elements a row: not a multiple of four


def zeros(keys=KEYS, site: int = 0, rate: float = 0.25) -> np.ndarray:
    return np.asarray(dropout(ONES, keys, site, rate)) == 0


def test_share_and_scale_are_exact():
    """The share is n/256, and what stays is scaled so that the mean stays."""
    for rate, dropped in ((0.1, 26), (0.25, 64), (0.5, 128), (0.9, 230)):
        out = np.asarray(dropout(jnp.ones((8, 100, 64)), jax.random.split(KEYS[0], 8), 0, rate))
        assert set(np.unique(out)) == {0, np.float32(256 / (256 - dropped))}
        assert np.mean(out == 0) == pytest.approx(dropped / 256, abs=0.006)
        assert np.mean(out) == pytest.approx(1, abs=0.02 / (1 - rate))


def test_zeros_differ_between_sites_rows_and_steps():
    """Randomness: independent between rows, sites (layers) and keys (steps); repeats exactly."""
    first = zeros()
    assert np.array_equal(first, zeros())
    flat = [*first, *zeros(site=1), *zeros(jax.random.split(jax.random.key(1), 4))]
    for i in range(len(flat)):
        for j in range(i):
            assert np.mean(flat[i] & flat[j]) == pytest.approx(1 / 16, abs=0.025)


def test_no_pattern_within_a_row():
    """The four draws of one word are independent of one another and of the next word's."""
    row = zeros(jax.random.split(jax.random.key(2), 4), rate=0.5).reshape(4, -1)
    for lag in (1, 2, 3, 4, 5, 8):
        assert np.mean(row[:, lag:] == row[:, :-lag]) == pytest.approx(0.5, abs=0.03)


def test_row_keeps_its_zeros_in_any_micro_batch():
    """Randomness: a row's zeros depend on its key alone, not on the rows beside it."""
    alone = np.concatenate(
        [np.asarray(dropout(ONES[:1], KEYS[i : i + 1], 3, 0.3)) for i in range(4)]
    )
    np.testing.assert_array_equal(alone, dropout(ONES, KEYS, 3, 0.3))


def test_gradient_is_the_mask():
    x = jnp.full((4, 3, 5), 2.0)
    out, pull = jax.vjp(lambda x: dropout(x, KEYS, 0, 0.25), x)
    np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], out / 2)


def test_model_draws_at_every_site_and_only_when_asked():
    """Randomness: every layer draws its own zeros; without keys or rate nothing is random."""
    config = replace(GPT2, dropout=0.5)
    params = init(Model(config), 0)
    segments, positions = pack([[30], [30]], 30)
    tokens = np.repeat(random_tokens((1, 30)), 2, axis=0)

    def hidden(config, keys=None) -> np.ndarray:
        return np.asarray(hidden_of(Model(config), params, tokens, segments, positions, keys))

    off = hidden(config)
    np.testing.assert_array_equal(off, hidden(replace(config, dropout=0.0), KEYS[:2]))
    np.testing.assert_array_equal(off[0], off[1])
    on = hidden(config, KEYS[:2])
    np.testing.assert_array_equal(on, hidden(config, KEYS[:2]))
    assert np.mean(on[0] == on[1]) < 0.01
    assert np.mean(on == off) < 0.01

    sites = []

    def record(x, keys, site, rate):
        sites.append((site, rate))
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlm.models.layers.dropout", record)
        jax.eval_shape(
            partial(Model(config).hidden, dropout_keys=KEYS[:2]),
            params,
            tokens,
            positions,
            segments,
        )
    assert sites == [(site, 0.5) for site in range(1 + 2 * config.num_layers)]
