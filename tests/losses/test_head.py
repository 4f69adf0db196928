"""The chunked head equals full logits, does only the work asked for, and never holds [N, V]."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.losses import head, sweep
from dlm.losses.api import Aux, Parts
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.sweep import TokenScores
from dlm.models.vocabulary import Kernel, is_hidden

WIDTH, VOCABULARY = 3, 11


class Case(NamedTuple):
    kernel: jax.Array
    hidden: jax.Array
    targets: jax.Array
    weights: jax.Array
    aux: Aux


def make_case(supervised, seed=0, vocabulary=VOCABULARY, width=WIDTH) -> Case:
    """Random operands; position i has a random weight where `supervised[i]`."""
    random = np.random.default_rng(seed)
    size = len(supervised)
    weights = jnp.asarray(np.where(supervised, random.uniform(0.1, 2, size), 0))
    count = jnp.arange(size, dtype=jnp.int32)
    return Case(
        jnp.asarray(random.normal(size=(vocabulary, width))),
        jnp.asarray(random.normal(size=(size, width))),
        jnp.asarray(random.integers(0, vocabulary, size), jnp.int32),
        weights,
        Aux(weights, count % 5, count),
    )


def focal(logits, targets, aux, *, gamma=2.0):
    """A user's loss, without a gradient rule; reads every field of aux."""
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=-1)[:, 0]
    return -((1 - jnp.exp(log_p)) ** gamma) * log_p * (1 + 0.1 * aux.channel + 0.01 * aux.position)


def full(loss, kernel, hidden, case):
    """Unweighted losses by full logits."""
    return loss(hidden @ kernel.T, case.targets, case.aux)


def assert_close(a, b, tolerance=1e-12):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance), a, b
    )


@partial(jax.jit, static_argnums=(0, 1))
def chunked_and_full(loss, chunk, case):
    """((total, scores), gradients) by chunks, forward only, and the same by full logits."""

    def chunked(kernel, hidden):
        return head.linear_total(loss, kernel, hidden, *case[2:], chunk=chunk)

    def plain(kernel, hidden):
        logits = hidden @ kernel.T
        losses = jnp.where(case.weights > 0, loss(logits, case.targets, case.aux), 0)
        correct = (jnp.argmax(logits, -1) == case.targets) & (case.weights > 0)
        return jnp.vdot(case.weights, losses), TokenScores(losses, correct, {})

    def tripled(function):  # a cotangent other than 1
        return lambda *operands: (3 * function(*operands)[0], function(*operands)[1])

    results = [
        jax.value_and_grad(tripled(f), (0, 1), has_aux=True)(*case[:2]) for f in (chunked, plain)
    ]
    return results[0], tripled(chunked)(*case[:2]), results[1]


@hypothesis.settings(max_examples=30)
@hypothesis.given(
    supervised=st.lists(st.booleans(), min_size=9, max_size=9),
    chunk=st.sampled_from([1, 4, 9, 20]),
    loss=st.sampled_from([cross_entropy, focal]),
)
@hypothesis.example(supervised=[False] * 9, chunk=4, loss=cross_entropy)
@hypothesis.example(supervised=[False] * 8 + [True], chunk=4, loss=focal)
@hypothesis.example(supervised=[True] * 9, chunk=4, loss=cross_entropy)
def test_chunked_equals_full(supervised, chunk, loss):
    """Every path, one loss: value, scores and both gradients, any mask, any chunk, any loss."""
    with jax.enable_x64(True):
        both, forward, expected = chunked_and_full(loss, chunk, make_case(supervised))
        assert_close(both, expected)
        assert_close(forward, expected[0])


@pytest.mark.parametrize("chunk", [2, 7, 64])
def test_recomputed_gradients_of_a_total_that_is_not_linear(chunk):
    """A sequence loss: -log sigmoid of a sum of log-probabilities."""
    with jax.enable_x64(True):
        case = make_case([True, False, True, True, True, False, True])

        def total(losses):
            return jax.nn.softplus(jnp.vdot(case.weights, losses)) + jnp.sum(losses**2)

        def chunked(kernel, hidden):
            return total(head.token_losses(focal, kernel, hidden, *case[2:], chunk=chunk))

        def plain(kernel, hidden):
            return total(jnp.where(case.weights > 0, full(focal, kernel, hidden, case), 0))

        for operands in (0, 1, (0, 1)):
            assert_close(
                jax.jit(jax.value_and_grad(chunked, operands))(*case[:2]),
                jax.value_and_grad(plain, operands)(*case[:2]),
            )


def test_a_tied_kernel_adds_its_two_gradients():
    with jax.enable_x64(True):
        case = make_case([True, True, False, True])
        tokens = jnp.array([1, 4, 4, 9])

        def chunked(embedding):
            return head.linear_total(
                cross_entropy, embedding, embedding[tokens], *case[2:], chunk=2
            )[0]

        def plain(embedding):
            losses = full(cross_entropy, embedding, embedding[tokens], case)
            return jnp.vdot(case.weights, losses)

        assert_close(jax.grad(chunked)(case.kernel), jax.grad(plain)(case.kernel))


def apart(logits, targets, aux):
    """A loss of two looks at a position; symmetric in neither, nor in the vocabulary."""
    weights = jax.nn.softmax(aux.others) * (1 + jnp.arange(aux.others.shape[1]) % 3)
    log_p = jax.nn.log_softmax(logits)
    return cross_entropy(logits, targets, aux) - jnp.sum(weights * log_p, axis=-1)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("chunk", [2, 16])
def test_a_second_look_equals_full_logits(shared, chunk):
    """Value, and the gradients of both hidden states and both kernels, or of the one of both."""
    with jax.enable_x64(True):
        case = make_case([True, False, True, True, True, False, True])
        width = WIDTH if shared else 5
        seen = make_case([True] * 7, seed=1, width=width)

        def chunked(kernel, hidden, other_kernel, other_hidden):
            other = head.Other(other_hidden, None if shared else other_kernel)
            return head.linear_total(apart, kernel, hidden, *case[2:], chunk=chunk, other=other)[0]

        def plain(kernel, hidden, other_kernel, other_hidden):
            others = other_hidden @ (kernel if shared else other_kernel).T
            aux = case.aux._replace(others=others)
            return jnp.vdot(case.weights, apart(hidden @ kernel.T, case.targets, aux))

        operands = (case.kernel, case.hidden, seen.kernel, seen.hidden)
        for wanted in ((0, 1, 2, 3), (1, 3)):
            assert_close(
                jax.jit(jax.value_and_grad(chunked, wanted))(*operands),
                jax.value_and_grad(plain, wanted)(*operands),
            )


def in_parts(rows, first, mask=None) -> Kernel:
    return Kernel((rows[:first], rows[first:]), mask)


@pytest.mark.parametrize("loss", [cross_entropy, focal])
def test_a_kernel_in_parts_is_one_kernel(loss):
    """Value, scores and the gradients of either part and of the hidden states."""
    with jax.enable_x64(True):
        case = make_case([True, False, True, True, True, False, True])

        def total(kernel, hidden):
            return head.linear_total(loss, kernel, hidden, *case[2:], chunk=2)

        def recomputed(kernel, hidden):
            return (head.token_losses(loss, kernel, hidden, *case[2:], chunk=2) ** 2).sum(), 0

        for function in (total, recomputed):
            gradients = jax.value_and_grad(function, (0, 1), has_aux=True)
            value, (parts, hidden) = gradients(in_parts(case.kernel, 8), case.hidden)
            joined = jnp.concatenate(parts.parts)
            assert_close((value, (joined, hidden)), gradients(case.kernel, case.hidden))


def test_rows_filled_up_to_whole_tiles_change_nothing(monkeypatch):
    """As on an accelerator: parts of 7 and 4 rows, multiplied as 8 each."""
    with jax.enable_x64(True):
        case = make_case([True, False, True, True])
        parts = in_parts(case.kernel, 7)

        def total(kernel, hidden):
            return head.linear_total(focal, kernel, hidden, *case[2:], chunk=2)

        def run():
            gradients = jax.value_and_grad(total, (0, 1), has_aux=True)
            return gradients(parts, case.hidden), str(jax.make_jaxpr(gradients)(parts, case.hidden))

        expected, plain = run()
        monkeypatch.setattr(sweep, "_tile", lambda: 8)
        filled, tiled = run()
        assert_close(filled, expected)
        assert "f64[8,3]" in tiled
        assert "f64[8,3]" not in plain


def certainty(logits, targets, aux):
    """Sums over the vocabulary on its own, as an entropy does."""
    log_p = jax.nn.log_softmax(logits)
    log_p = jnp.where(is_hidden(logits), 0, log_p)
    return -jnp.sum(jnp.where(is_hidden(logits), 0, jnp.exp(log_p)) * log_p, axis=-1)


@pytest.mark.parametrize("loss", [cross_entropy, focal, certainty])
def test_masked_tokens_get_no_probability_and_no_gradient(loss):
    """Padding and new rows, however loud: as if the kernel had no such rows."""
    with jax.enable_x64(True):
        case = make_case([True, True, True])
        case = case._replace(targets=jnp.argmax(case.hidden @ case.kernel.T, axis=-1))
        loud = jnp.full((5, WIDTH), 1e4)
        padded = in_parts(jnp.concatenate([case.kernel, loud]), 13, jnp.arange(16) < VOCABULARY)

        def total(parts, kernel):
            kernel = kernel._replace(parts=parts)
            return head.linear_total(loss, kernel, *case[1:], chunk=2)

        gradients = jax.value_and_grad(total, has_aux=True)
        value, parts = gradients(padded.parts, padded)
        expected, (gradient,) = gradients((case.kernel,), Kernel((case.kernel,)))
        assert_close(value, expected)
        assert value[1].correct.all()
        parts = jnp.concatenate(parts)
        assert (parts[VOCABULARY:] == 0).all()
        assert_close(parts[:VOCABULARY], gradient)


def products(function, *arguments) -> int:
    return str(jax.make_jaxpr(function)(*arguments)).count("dot_general")


def test_what_nobody_differentiates_is_not_computed():
    """One product forward, two with one operand frozen, three in all."""
    case = make_case([True] * 4)

    def total(kernel, hidden):
        return head.linear_total(cross_entropy, kernel, hidden, *case[2:], chunk=2)[0]

    def recomputed(kernel, hidden):
        return head.token_losses(cross_entropy, kernel, hidden, *case[2:], chunk=2).sum()

    counts = [products(f, *case[:2]) for f in (total, jax.grad(total), jax.grad(total, 1))]
    assert counts == [1, 2, 2]
    assert products(jax.grad(total, (0, 1)), *case[:2]) == 3
    assert products(jax.grad(recomputed, 1), *case[:2]) == 3
    assert products(jax.grad(recomputed, (0, 1)), *case[:2]) == 4


def test_a_teacher_costs_one_product():
    case, seen = make_case([True] * 4), make_case([True] * 4, seed=1, width=5)

    def total(kernel, hidden, other=None):
        return head.linear_total(apart, kernel, hidden, *case[2:], chunk=2, other=other)[0]

    other = head.Other(seen.hidden, seen.kernel)
    assert products(partial(total, other=other), *case[:2]) == 2
    assert products(jax.grad(partial(total, other=other), (0, 1)), *case[:2]) == 4


def test_a_frozen_part_of_the_kernel_costs_no_gradient():
    """Two products forward; one more for the part that is trained, none for the other."""
    case = make_case([True] * 4)
    old, new = in_parts(case.kernel, 8).parts

    def total(new):
        kernel = Kernel((old, new))
        return head.linear_total(cross_entropy, kernel, *case[1:], chunk=2)[0]

    assert [products(total, new), products(jax.grad(total), new)] == [2, 3]


@pytest.mark.parametrize(("supervised", "chunks"), [(0, 0), (1, 1), (4, 2), (5, 3), (12, 6)])
def test_only_supervised_positions_are_computed(supervised, chunks):
    """The number of chunks follows the data, in one compiled program."""
    seen = []

    def counted(logits, targets, aux):
        jax.debug.callback(lambda: seen.append(len(seen)))
        return cross_entropy(logits, targets, aux)

    case = make_case(np.arange(12) % 12 < supervised)
    run = jax.jit(lambda case: head.linear_total(counted, *case, chunk=2)[0])
    jax.block_until_ready(run(case))
    jax.effects_barrier()
    assert len(seen) == chunks


def test_the_gradient_touches_exactly_the_supervised_positions():
    """No off-by-one: d hidden[t] is non-zero exactly where targets[t] has weight."""
    supervised = np.array([False, True, True, False, False, True])
    case = make_case(supervised)
    gradient = jax.grad(
        lambda h: head.linear_total(cross_entropy, case.kernel, h, *case[2:], chunk=4)[0]
    )(case.hidden)
    assert ((np.abs(gradient) > 0).any(axis=1) == supervised).all()


def test_what_lies_at_other_positions_does_not_matter():
    """Padding is nothing: NaN there reaches neither value nor gradient."""
    case = make_case([False, True, True, False, True])
    dirty = case._replace(
        hidden=jnp.where(case.weights[:, None] > 0, case.hidden, jnp.nan),
        aux=case.aux._replace(position=jnp.where(case.weights > 0, case.aux.position, 10**9)),
    )

    def run(case):
        def total(kernel, hidden):
            return head.linear_total(focal, kernel, hidden, *case[2:], chunk=2)[0]

        return jax.value_and_grad(total, (0, 1))(*case[:2])

    assert_close(run(dirty), run(case), 0)


def test_temporaries_stay_far_below_full_logits():
    """Compiled: value and both gradients of 2,048 positions in an eighth of [2048, V] float32."""
    vocabulary, size = 4096, 2048
    case = make_case([True] * size, vocabulary=vocabulary, width=8)

    def total(kernel, hidden):
        return head.linear_total(cross_entropy, kernel, hidden, *case[2:], chunk=64)[0]

    for function in (jax.value_and_grad(total, (0, 1)), total):
        memory = jax.jit(function).lower(*case[:2]).compile().memory_analysis()
        assert memory.temp_size_in_bytes < size * vocabulary * 4 / 8


def test_parts_stand_in_their_places():
    """What a loss tells apart comes back a position, 0 where it is not supervised."""

    def told(logits, targets, aux):
        losses = cross_entropy(logits, targets, aux)
        return Parts(2 * losses, {"half": Mean(losses, targets % 2)})

    case = make_case([True, False, True, True])
    _, scores = head.linear_total(told, *case, chunk=2)
    half = scores.parts["half"]
    there = case.weights > 0
    assert_close(2 * half.total, scores.losses, 1e-6)
    assert_close(scores.losses, jnp.where(there, 2 * full(cross_entropy, *case[:2], case), 0), 1e-5)
    assert (half.count == jnp.where(there, case.targets % 2, 0)).all()


def test_the_first_of_equal_logits_is_the_argmax():
    kernel, hidden = jnp.ones((4, 2)), jnp.ones((3, 2))
    targets, weights = jnp.array([0, 1, 0]), jnp.ones(3)
    hidden = hidden.at[2].set(jnp.nan)
    aux = Aux(weights, targets, targets)
    _, scores = head.linear_total(cross_entropy, kernel, hidden, targets, weights, aux, chunk=2)
    assert scores.correct.tolist() == [True, False, False]


def test_scores_of_a_batch_stand_in_their_places():
    case = make_case([True, False, True, True, False, True])
    grid = [array.reshape(2, 3) for array in (case.targets, case.weights, *case.aux[1:3])]
    hidden = case.hidden.reshape(2, 3, WIDTH)
    losses, correct = head.token_scores(cross_entropy, case.kernel, hidden, *grid, chunk=2)
    logits = hidden @ case.kernel.T
    expected = -jax.nn.log_softmax(logits)[jnp.arange(2)[:, None], jnp.arange(3), grid[0]]
    assert_close(losses, jnp.where(grid[1] > 0, expected, 0), 1e-5)
    assert (correct == ((logits.argmax(-1) == grid[0]) & (grid[1] > 0))).all()


def test_bfloat16_products_with_float32_sums():
    case = make_case([True] * 6)

    def total(kernel, hidden):
        return head.linear_total(cross_entropy, kernel, hidden, *case[2:], chunk=4)[0]

    value, (d_kernel, d_hidden) = jax.value_and_grad(total, (0, 1))(
        case.kernel, case.hidden.astype(jnp.bfloat16)
    )
    assert (value.dtype, d_kernel.dtype, d_hidden.dtype) == (jnp.float32, jnp.float32, jnp.bfloat16)
    expected, gradients = jax.value_and_grad(total, (0, 1))(*case[:2])
    np.testing.assert_allclose(value, expected, rtol=2e-2)
    np.testing.assert_allclose(d_kernel, gradients[0], atol=5e-2)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda logits, targets, aux: logits, r"returned shape \[2, 11\] for 2 targets"),
        (lambda logits, targets, aux: logits[:, 0].astype(jnp.bfloat16), "returned bfloat16"),
        (lambda logits, targets, aux: targets, "returned int32"),
    ],
)
def test_a_loss_of_the_wrong_kind_is_told_by_name(loss, message):
    case = make_case([True] * 3)
    with pytest.raises(UserError, match=f"loss '<lambda>' {message}"):
        head.linear_total(loss, *case, chunk=2)
