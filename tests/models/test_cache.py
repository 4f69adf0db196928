"""Decoding with the cache gives what a full pass gives, and refuses what it cannot hold."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import FAMILIES, LLAMA, init, logits_of, loud, pack, random_tokens

from dlm.core.errors import UserError
from dlm.models.by_output import held_by_output
from dlm.models.cache import LONG, check_room, empty_cache, longer, write
from dlm.models.decoder import Model

LENGTHS = np.array([40, 7, 29])
LENGTH = 40


@pytest.fixture(scope="module", params=FAMILIES)
def case(request) -> tuple:
    """A model, its parameters as decoding holds them, three dialogues, their logits by a full pass.

    The full pass reads the parameters as they are trained.
    """
    model = Model(FAMILIES[request.param])
    params = loud(init(model, 1))
    tokens = random_tokens((3, LENGTH))
    segments, positions = pack([[n] for n in LENGTHS], LENGTH)
    full = logits_of(model, params, tokens, segments, positions)
    return model, held_by_output(params, model.dtype), tokens, np.asarray(full)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def read(model: Model, params: dict, cache, tokens, positions, segments):
    hidden, cache = model.hidden(params, tokens, positions, segments, cache=cache)
    return cache, model.logits(params, hidden)


def decode(case: tuple, splits: list[list[int]], widths: list[int], slots: int) -> np.ndarray:
    """Reads row r in pieces of splits[r] tokens; call i is padded to widths[i] tokens."""
    model, params, tokens, full = case
    cache = empty_cache(model.config, 3, slots)
    out = np.zeros_like(full)
    done = np.zeros(3, int)
    for i, width in enumerate(widths):
        sizes = np.array([split[i] for split in splits])
        segments, places = pack([[n] for n in sizes], width)
        # Padding carries positions of real slots, so that a careless write would spoil them.
        positions = np.where(segments > 0, places + done[:, None], places % 3).astype(np.int32)
        piece = np.take_along_axis(tokens, np.minimum(positions, LENGTH - 1), axis=1)
        check_room(cache, positions, segments)
        cache, logits = read(model, params, cache, piece, positions, segments)
        for row in range(3):
            out[row, done[row] : done[row] + sizes[row]] = logits[row, : sizes[row]]
        done += sizes
    assert np.all(done == LENGTHS)
    return out


def assert_equal_full(case: tuple, logits: np.ndarray) -> None:
    read_positions = np.arange(LENGTH) < LENGTHS[:, None]
    full = case[3]
    np.testing.assert_allclose(
        logits[read_positions],
        full[read_positions],
        atol=1e-5 * max(1, np.abs(full[read_positions]).max()),
        rtol=0,
    )


def test_token_by_token(case):
    """Cache equals no cache: one token at a time, rows of unequal length, to the last slot."""
    splits = [[1 if i < n else 0 for i in range(LENGTH)] for n in LENGTHS]
    assert_equal_full(case, decode(case, splits, [1] * LENGTH, slots=LENGTH))


@settings(max_examples=5)
@given(data=st.data())
def test_any_prefill_split(case, data):
    """Cache equals no cache: any split of each row's prompt, with padding behind each piece."""
    calls = 4
    splits = []
    for n in LENGTHS:
        cuts = sorted(data.draw(st.integers(0, int(n))) for _ in range(calls - 1))
        splits.append(list(np.diff([0, *cuts, int(n)])))
    widths = [44] * calls
    assert_equal_full(
        case, decode(case, splits, widths, slots=data.draw(st.sampled_from([40, 64])))
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_prompt_fills_an_empty_cache(family):
    """Read as a row of training is: as by the reference, what follows it too."""
    config = replace(FAMILIES[family], num_layers=1, max_length=LONG + 2)
    model = Model(config)
    params = loud(init(model, 1))
    tokens = random_tokens((2, LONG + 2))
    lengths = np.array([LONG, 77])
    reference = Model(replace(config, attention="reference"))
    wanted = logits_of(reference, params, tokens, *pack([[LONG + 2]] * 2, LONG + 2))
    wanted = np.asarray(wanted)
    held = held_by_output(params, model.dtype)
    segments, positions = pack([[n] for n in lengths], LONG)
    cache = empty_cache(config, 2, LONG)
    cache, logits = read(model, held, cache, tokens[:, :LONG], positions, segments)
    cache = longer(cache, LONG + 2)
    found = [[row[:n]] for row, n in zip(np.asarray(logits), lengths, strict=True)]
    for after in range(2):
        places = (lengths + after)[:, None].astype(np.int32)
        piece = np.take_along_axis(tokens, places, axis=1)
        cache, logits = read(model, held, cache, piece, places, np.ones_like(places))
        for row in range(2):
            found[row].append(np.asarray(logits)[row])
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(
            np.concatenate(found[row]), wanted[row, : n + 2], atol=1e-5 * np.abs(wanted).max()
        )


def test_many_tokens_behind_others_read_those_too():
    """However many: it is a cache that they fill from the first on that is read otherwise."""
    config = replace(LLAMA, num_layers=1, max_length=LONG + 10)
    model = Model(config)
    params = loud(init(model, 1))
    tokens = random_tokens((1, LONG + 10))
    segments, positions = pack([[LONG + 10]], LONG + 10)
    wanted = np.asarray(logits_of(model, params, tokens, segments, positions))
    cache = empty_cache(config, 1, LONG + 10)
    for part in (slice(0, 10), slice(10, None)):
        piece = (tokens[:, part], positions[:, part], segments[:, part])
        cache, logits = read(model, params, cache, *piece)
    np.testing.assert_allclose(logits, wanted[:, 10:], atol=1e-5 * np.abs(wanted).max())


def test_no_room_is_refused():
    """Positions beyond the last slot are refused; those of padding do not matter."""
    cache = empty_cache(LLAMA, 2, 8)
    check_room(cache, [[6, 7], [9, 9]], [[1, 1], [0, 0]])
    with pytest.raises(UserError, match="position 8 is beyond the cache of 8 slots"):
        check_room(cache, [[7, 8], [0, 0]], [[1, 1], [1, 0]])
    places = np.arange(300, 300 + LONG)[None]
    segments = np.where(places < 400, 1, 0)
    with pytest.raises(UserError, match="tokens from position 300 on"):
        check_room(empty_cache(replace(LLAMA, max_length=LONG), 1, LONG), places, segments)
    with pytest.raises(UserError, match="161 slots goes beyond the model's max_length=160"):
        empty_cache(LLAMA, 1, 161)


def test_padding_writes_nothing():
    """Padding is nothing: neither its values nor its positions reach a slot."""
    slots = jnp.zeros((2, 1, 5, 1))
    new = jnp.arange(1.0, 7).reshape(2, 3, 1, 1)
    segments = jnp.array([[1, 1, 0], [0, 1, 0]])
    positions = jnp.array([[3, 4, 0], [0, 2, 2]])
    written = write(slots, new, positions, segments)[:, 0, :, 0]
    np.testing.assert_array_equal(written, [[0, 0, 0, 1, 2], [0, 0, 5, 0, 0]])
