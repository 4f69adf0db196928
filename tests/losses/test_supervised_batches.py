"""A loss over packed and padded batches, by every attention: docs/checks.md, C2 and C11 to C14."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.core.paths import flatten
from dlm.data.batch import Batch, check, empty_batch
from dlm.losses.api import Context
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.objective import make_objective, token_terms
from dlm.models.decoder import Model
from tests.models.model_cases import GPT2, IMPLEMENTATIONS, hidden_of

END = 7  # a terminator, which stands inside texts too
LENGTH = 101


class Piece(NamedTuple):
    """n + 1 tokens, and which of them are learned (never the first)."""

    tokens: np.ndarray
    learned: np.ndarray


def piece(seed: int, length: int, *spans: tuple[int, int], ends: tuple[int, ...]) -> Piece:
    tokens = np.random.default_rng(seed).integers(10, 61, length).astype(np.int32)
    tokens[list(ends)] = END
    learned = np.zeros(length, bool)
    for start, stop in spans:
        learned[start:stop] = True
    return Piece(tokens, learned)


PIECES = (
    piece(0, 44, (1, 4), (20, 31), (40, 44), ends=(3, 30, 43)),  # learned to its last token
    piece(1, 38, (5, 6), (30, 37), ends=()),  # without a terminator
    piece(2, 12, (2, 12), ends=(4, 5, 11)),
)


def batch_of(rows: list[list[Piece]], length: int = LENGTH) -> Batch:
    batch = empty_batch(len(rows), length, 3)
    for row, members in enumerate(rows):
        start = 0
        for number, (tokens, learned) in enumerate(members):
            here = slice(start, start + len(tokens) - 1)
            batch.tokens[row, here], batch.targets[row, here] = tokens[:-1], tokens[1:]
            batch.loss_weights[row, here] = learned[1:] * (0.5 + number)
            batch.segment_ids[row, here] = number + 1
            batch.positions[row, here] = np.arange(len(tokens) - 1)
            batch.turn_ids[row, here] = batch.channel_ids[row, here] = 0
            batch.dialogue_ids[row, number] = batch.task_ids[row, number] = 0
            start = here.stop
    return batch


PACKED = batch_of([list(PIECES), [], []])
# the same weights, each piece in a row of its own
SEPARATE = batch_of([[member] for member in PIECES])
SEPARATE = SEPARATE._replace(
    loss_weights=SEPARATE.loss_weights * np.array([[1], [3], [5]], np.float32)
)


@partial(jax.jit, static_argnums=0)
def gradients(model: Model, params: dict, batch: Batch) -> tuple:
    """Total and count of the loss, and the total's gradients."""
    objective = make_objective(cross_entropy, model, chunk=16, train=False)
    zero = jnp.zeros((), jnp.int32)

    def total(params):
        loss = objective(params, batch, Context(None, zero, zero))["loss"]
        return loss.total, loss.count

    (value, count), gradient = jax.value_and_grad(total, has_aux=True)(params)
    return value, count, gradient


def model_of(implementation: str) -> tuple[Model, dict]:
    """A small model, its layers made again in the backward pass, and loud parameters.

    Its positions are learned, so that it tells those that run on from those that begin again; that
    every family and plain layers do the same is seen in tests/models/test_decoder.py.
    """
    small = replace(GPT2, num_layers=1, width=16, num_heads=2, attention=implementation)
    model = Model(replace(small, remat="layers"))
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return model, jax.tree.map(lambda leaf: random.normal(0, 0.2, leaf.shape).astype("f4"), shapes)


def assert_same(ours: tuple, theirs: tuple) -> None:
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    assert float(ours[1]) == pytest.approx(float(theirs[1]), rel=1e-6)
    wanted = flatten(theirs[2])
    for path, leaf in flatten(ours[2]).items():
        scale = max(1, np.abs(wanted[path]).max())
        np.testing.assert_allclose(leaf, wanted[path], atol=1e-6 * scale, rtol=0, err_msg=path)


def test_the_batches_keep_their_contract():
    """C13: the last token of a piece is no query for the first of the next."""
    check(PACKED)
    check(SEPARATE)
    for last in np.flatnonzero(np.diff(PACKED.segment_ids[0]) > 0):
        assert PACKED.targets[0, last] != PACKED.tokens[0, last + 1]
    assert PACKED.loss_weights[0, 42] > 0  # the first piece is learned to its end


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_gradient_is_where_the_next_token_is_learned(implementation):
    """C2: at position t of the model's output exactly where token t + 1 is learned."""
    model, params = model_of(implementation)
    batch = PACKED
    hidden = hidden_of(model, params, batch.tokens, batch.segment_ids, batch.positions)
    kernel = model.head_kernel(params)

    def total(hidden):
        terms = token_terms(cross_entropy, kernel, hidden, batch, normaliser="token", chunk=16)
        return terms["loss"].total

    touched = np.any(np.abs(jax.jit(jax.grad(total))(hidden)) > 0, axis=-1)
    wanted = np.concatenate([member.learned[1:] for member in PIECES])
    np.testing.assert_array_equal(touched[0, : len(wanted)], wanted)
    assert not touched[0, len(wanted) :].any()
    assert not touched[1:].any()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_packed_equals_separate(implementation):
    """C11, C13: loss, weights and every gradient; terminators inside a text split nothing."""
    model, params = model_of(implementation)
    assert_same(gradients(model, params, PACKED), gradients(model, params, SEPARATE))


def one_segment(batch: Batch) -> Batch:
    """The causal mask alone: everything of a row is one segment."""
    return batch._replace(segment_ids=np.minimum(batch.segment_ids, 1))


def running(batch: Batch) -> Batch:
    """Isolation alone: positions run on over a row."""
    return batch._replace(positions=np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (3, LENGTH)))


def from_terminators(batch: Batch) -> Batch:
    """Segments told from terminators, not from the packer."""
    ended = np.cumsum(batch.tokens == END, axis=1) - (batch.tokens == END)
    return batch._replace(segment_ids=np.where(batch.segment_ids > 0, 1 + ended, 0).astype("i4"))


@pytest.mark.parametrize("mutant", [one_segment, running, from_terminators])
def test_either_half_of_isolation_alone_is_seen(mutant):
    """C11, C12, C13: neither is what the pieces give one by one."""
    model, params = model_of("reference")
    separate = gradients(model, params, SEPARATE)
    assert_same(gradients(model, params, PACKED), separate)
    with pytest.raises(AssertionError):
        assert_same(gradients(model, params, mutant(PACKED)), separate)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_padding_is_nothing(implementation):
    """C14: where it is and whatever lies there changes no loss, count or gradient."""
    model, params = model_of(implementation)
    wanted = gradients(model, params, PACKED)
    assert float(wanted[1]) == PACKED.loss_weights.sum()
    noise = np.random.default_rng(5).integers(1, 60, PACKED.tokens.shape).astype(np.int32)
    there = PACKED.segment_ids > 0
    dirty = PACKED._replace(
        tokens=np.where(there, PACKED.tokens, noise),
        targets=np.where(there, PACKED.targets, noise),
        positions=np.where(there, PACKED.positions, noise),
    )
    assert_same(gradients(model, params, dirty), wanted)
    assert_same(gradients(model, params, batch_of([[], list(PIECES), []])), wanted)
    for leaf in flatten(gradients(model, params, batch_of([[], [], []]))[2]).values():
        np.testing.assert_array_equal(leaf, 0)
