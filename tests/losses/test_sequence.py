"""Sequence losses: published values, gradients, log probabilities of endings in real batches."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.core.paths import flatten
from dlm.data.batch import Batch, check, empty_batch
from dlm.losses.api import Context, SequenceAux
from dlm.losses.candidates import candidates
from dlm.losses.dpo import dpo
from dlm.losses.objective import make_objective
from dlm.losses.sequence import hits, margins, segment_log_probs
from dlm.models.decoder import Model
from dlm.training.optimizer import OptimizerConfig, make_optimizer, resolve_trainable
from dlm.training.step import init_state, make_train_step
from tests.models.model_cases import GPT2

LENGTH, VOCABULARY = 48, 61


def aux_of(ids, chosen, reference=None, lengths=None) -> SequenceAux:
    lengths = np.ones(len(ids)) if lengths is None else lengths
    arrays = (np.asarray(ids, np.int32), np.asarray(chosen, bool), np.asarray(lengths, np.float32))
    return SequenceAux(
        *map(jnp.asarray, arrays), None if reference is None else jnp.asarray(reference)
    )


# Fixture B: log pi(w) = -10, log pi(l) = -12, log ref(w) = -11, log ref(l) = -11.5, so h = 1.5.
B = jnp.array([-10.0, -12.0])
PAIR = aux_of([3, 3], [1, 0], [-11.0, -11.5])


@pytest.mark.parametrize(
    ("beta", "value"), [(0.1, 0.6209570478), (0.5, math.log1p(math.exp(-0.75)))]
)
def test_dpo_on_the_fixture(beta, value):
    values, weights = dpo(B, PAIR, beta=beta)
    np.testing.assert_allclose(values, [value, 0], atol=1e-7)
    assert weights.tolist() == [1, 0]


def test_dpo_where_the_model_is_the_reference():
    """Log 2 to the bit, wherever in the row the pair stands and whatever its log probabilities."""
    log_probs = jnp.array([-3.0, -1e4, 0.0, -7.25, 0.0], jnp.float32)
    aux = aux_of([9, 4, 9, 4, -1], [0, 1, 1, 0, 0], log_probs)
    values, weights = dpo(log_probs, aux)
    assert values.tolist() == [0, *[float(np.float32(math.log(2)))] * 2, 0, 0]
    assert weights.tolist() == [0, 1, 1, 0, 0]
    assert (margins(log_probs - aux.reference_log_probs, aux) == 0).all()


def test_swapping_the_endings_negates_the_margin():
    swapped = PAIR._replace(chosen=~PAIR.chosen)
    rewards = B - PAIR.reference_log_probs
    assert margins(rewards, PAIR)[0] == -margins(rewards, swapped)[1] == 1.5
    difference = dpo(B, swapped)[0][1] - dpo(B, PAIR)[0][0]  # softplus(x) - softplus(-x) = x
    np.testing.assert_allclose(difference, 0.1 * 1.5, rtol=1e-5)


def test_candidates_by_hand():
    """Fixture A as three candidates; per token each score is over its length."""
    scores, aux = jnp.array([2.0, 1.0, 0.0]), aux_of([5, 5, 5], [1, 0, 0])
    np.testing.assert_allclose(candidates(scores, aux)[0], [0.4076059644, 0, 0], atol=1e-7)
    longer = aux._replace(lengths=jnp.array([4.0, 2.0, 1.0]))
    values, weights = candidates(scores * longer.lengths, longer, per_token=True)
    np.testing.assert_allclose(values, [0.4076059644, 0, 0], atol=1e-7)
    assert weights.tolist() == [1, 0, 0]


def test_two_candidates_are_a_pair_without_reference():
    """The cross-entropy of two scores is -log sigmoid of their difference."""
    without = PAIR._replace(reference_log_probs=jnp.zeros(2))
    np.testing.assert_allclose(candidates(B, PAIR)[0], dpo(B, without, beta=1.0)[0], rtol=1e-6)


ROW = aux_of([8, 2, 8, 2, 5, 5, -1], [1, 0, 0, 1, 0, 1, 0], np.zeros(7), [3, 1, 2, 5, 1, 1, 0])
CASES = {
    "ordinary": [-10.0, -12.5, -9.0, -11.0, -3.0, -2.0, 0.0],
    "certain": [-1e-4, -40.0, -50.0, -1e-3, -60.0, 0.0, 0.0],
    "far apart": [-1e4, 0.0, 0.0, -1e4, 0.0, -1e4, 0.0],
    "equal": [-5.0] * 6 + [0.0],
}
LOSSES = {
    "dpo": partial(dpo, beta=0.3),
    "candidates": candidates,
    "candidates per token": partial(candidates, per_token=True),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_in_float64(name, case):
    """`jax.grad` equals finite differences, and of DPO the formula of its docstring."""
    with jax.enable_x64(True):
        log_probs = jnp.asarray(CASES[case], jnp.float64)
        reference = jnp.linspace(-1.0, 1.0, 7) if case != "equal" else log_probs
        aux = ROW._replace(reference_log_probs=reference)

        def total(log_probs):
            values, weights = LOSSES[name](log_probs, aux)
            assert values.dtype == jnp.float64
            return jnp.sum(jnp.arange(1.0, 8.0) * weights * values)

        gradient, step = jax.grad(total)(log_probs), 1e-4
        moves = step * jnp.eye(7)
        slopes = [
            (total(log_probs + move) - total(log_probs - move)) / (2 * step) for move in moves
        ]
        np.testing.assert_allclose(gradient, slopes, atol=1e-6)
        assert jnp.isfinite(gradient).all()
        assert gradient[6] == 0  # no segment
        if name == "dpo":
            h = margins(log_probs - reference, aux)
            slope = jnp.where(aux.chosen, -0.3 * jax.nn.sigmoid(-0.3 * h), 0) * jnp.arange(1.0, 8.0)
            np.testing.assert_allclose(gradient, margins(slope, aux), atol=1e-12)


def test_values_are_those_of_each_group_alone():
    """Neither the order of the segments nor other groups in the row matter."""
    log_probs = jnp.asarray(CASES["ordinary"])
    aux = ROW._replace(reference_log_probs=jnp.linspace(-1.0, 1.0, 7))
    order = np.random.default_rng(0).permutation(7)
    for loss in LOSSES.values():
        values, weights = loss(log_probs, aux)
        moved = loss(log_probs[order], jax.tree.map(lambda x: x[order], aux))
        np.testing.assert_array_equal(moved[0], values[order])
        np.testing.assert_array_equal(moved[1], weights[order])
        for group in (8, 2, 5):
            here = np.flatnonzero(np.asarray(aux.pair_ids) == group)
            alone = loss(log_probs[here], jax.tree.map(lambda x: x[here], aux))  # noqa: B023
            np.testing.assert_allclose(alone[0], values[here], rtol=1e-6)


def test_hits_are_shared_among_equals():
    """A model that knows nothing gets the chance level; a NaN never wins."""
    aux = aux_of([5, 5, 5, 2, 2, 7, 7, -1], [1, 0, 0, 0, 1, 1, 0, 0])
    scores = jnp.array([1.0, 1.0, 1.0, 3.0, 4.0, jnp.nan, 0.0, 0.0])
    np.testing.assert_allclose(hits(scores, aux), [1 / 3] * 3 + [0, 1, 0, 0, 1], rtol=1e-6)


# Endings of unequal lengths in rows of their own groups; group 6 has three.
GROUPS = {
    4: [(5, 3), (9, 6)],
    7: [(4, 1), (3, 2)],
    9: [(12, 7), (6, 1)],
    2: [(8, 8), (2, 1)],
}


def batch_of(rows: list[list[int]], groups=GROUPS, length: int = LENGTH) -> Batch:
    """Rows of groups; of each ending (tokens, learned at its end) random ids of its own."""
    segments = max(sum(len(groups[group]) for group in row) for row in rows)
    batch = empty_batch(len(rows), length, segments, pairs=True, reference=True)
    for row, members in enumerate(rows):
        start = segment = 0
        for group in members:
            random = np.random.default_rng(group)
            preferred = int(random.integers(len(groups[group])))
            for place, (tokens, learned) in enumerate(groups[group]):
                ids, here = (
                    random.integers(10, VOCABULARY, tokens + 1),
                    slice(start, start + tokens),
                )
                batch.tokens[row, here], batch.targets[row, here] = ids[:-1], ids[1:]
                batch.loss_weights[row, start + tokens - learned : start + tokens] = 1
                batch.segment_ids[row, here] = segment + 1
                batch.positions[row, here] = np.arange(tokens)
                batch.turn_ids[row, here] = batch.channel_ids[row, here] = 0
                batch.dialogue_ids[row, segment] = batch.pair_ids[row, segment] = group
                batch.chosen[row, segment] = place == preferred
                batch.reference_log_probs[row, segment] = -4.0 * learned + random.normal()
                start, segment = start + tokens, segment + 1
    return check(batch)


PACKED, PADDED = batch_of([[4, 7], [9, 2], [], []]), batch_of([[4], [7], [9], [2]])


class Bigram:
    """A stand-in for a model: the hidden state of a position is the embedding of its token."""

    def hidden(self, params, tokens, positions, segment_ids, *, dropout_keys=None):
        return jnp.asarray(params["embedding"])[tokens]

    def head_kernel(self, params):
        return params["head"]


@pytest.fixture
def model() -> Bigram:
    return Bigram()


@pytest.fixture
def params():
    random = np.random.default_rng(0)
    return {name: random.normal(size=(VOCABULARY, 6)) for name in ("embedding", "head")}


def full_log_probs(model, params, batch):
    """[B, U] by full logits, differentiable."""
    hidden = model.hidden(params, batch.tokens, batch.positions, batch.segment_ids)
    log_p = jax.nn.log_softmax(hidden @ model.head_kernel(params).T)
    mine = jnp.take_along_axis(log_p, batch.targets[..., None], -1)[..., 0] * batch.loss_weights
    segments = np.arange(1, batch.dialogue_ids.shape[1] + 1)
    return jnp.stack([jnp.sum(jnp.where(batch.segment_ids == i, mine, 0), 1) for i in segments], 1)


def terms_of(model, params, batch, loss, **options):
    objective = make_objective(loss, model, **{"chunk": 5, "train": False, **options})
    return objective(params, batch, Context(None, 0, 0))


@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient_are_those_of_full_logits(loss, model, params):
    """The head in chunks gives what [B, T, V] logits give, to 1e-9, for every parameter."""
    with jax.enable_x64(True):

        def full(params):
            log_probs = full_log_probs(model, params, PACKED)
            lengths = full_log_probs(model, params, PACKED) * 0 + jnp.stack(
                [((PACKED.segment_ids == i + 1) * PACKED.loss_weights).sum(1) for i in range(4)], 1
            )
            rows = []
            for row in range(2):
                aux = SequenceAux(
                    *(x[row] for x in (PACKED.pair_ids, PACKED.chosen, lengths)),
                    PACKED.reference_log_probs[row],
                )
                values, weights = LOSSES[loss](log_probs[row], aux)
                rows.append(jnp.sum(values * weights))
            return sum(rows)

        def ours(params):
            return terms_of(model, params, PACKED, LOSSES[loss])["loss"].total

        wanted, gradient = jax.jit(jax.value_and_grad(full))(params)
        got, found = jax.jit(jax.value_and_grad(ours))(params)
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
        for path, leaf in flatten(gradient).items():
            np.testing.assert_allclose(flatten(found)[path], leaf, atol=1e-9, err_msg=path)
        assert max(np.abs(leaf).max() for leaf in flatten(gradient).values()) > 1e-3


def test_only_the_endings_count(model, params):
    """What is only read enters a segment's log probability as history, not as a target."""
    with jax.enable_x64(True):
        kernel = model.head_kernel(params)

        @jax.jit
        def log_probs(batch):
            hidden = model.hidden(params, batch.tokens, batch.positions, batch.segment_ids)
            return segment_log_probs(kernel, hidden, batch, chunk=5)

        base = log_probs(PACKED)
        np.testing.assert_allclose(base, full_log_probs(model, params, PACKED), atol=1e-10)
        assert (base[2:] == 0).all()
        read = np.where(PACKED.loss_weights == 0, 11, PACKED.targets).astype(np.int32)
        np.testing.assert_array_equal(log_probs(PACKED._replace(targets=read)), base)


@pytest.mark.parametrize("loss", LOSSES)
def test_packed_padded_and_accumulated_are_one(loss, model, params):
    """Four groups in two rows, in four rows, in micro-batches: the same terms and parameters."""
    with jax.enable_x64(True):
        trainable = resolve_trainable(((".*", True),), params)
        optimizer = make_optimizer(OptimizerConfig("adamw", 0.01, warmup=0), 5, params)
        objective = make_objective(LOSSES[loss], model, chunk=5, train=False)
        found = []
        for batch, accumulate in [(PACKED, 1), (PADDED, 2), (PACKED, 4)]:
            step = make_train_step(objective, optimizer, trainable=trainable, accumulate=accumulate)
            state = init_state(
                jax.tree.map(jnp.array, params), optimizer, trainable, jax.random.key(0)
            )
            for _ in range(3):
                state, metrics = step(state, batch)
            found.append((metrics.terms, state.params))
        assert found[0][0]["loss"].count == 4
        for terms, after in found[1:]:
            for name, mean in found[0][0].items():
                np.testing.assert_allclose(terms[name], mean, atol=1e-9, err_msg=name)
            for path, leaf in flatten(found[0][1]).items():
                np.testing.assert_allclose(flatten(after)[path], leaf, atol=1e-9, err_msg=path)


def test_a_transformer_reads_each_ending_alone():
    """DPO of packed endings is that of padded ones, to 1e-9 in every gradient."""
    gpt2 = Model(replace(GPT2, num_layers=1, width=16, num_heads=2), dtype="float64")
    with jax.enable_x64(True):
        random, shapes = np.random.default_rng(0), jax.eval_shape(gpt2.init, jax.random.key(0))
        params = jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape), shapes)

        @jax.jit
        @partial(jax.value_and_grad, has_aux=True)
        def total(params, batch):
            terms = terms_of(gpt2, params, batch, dpo)
            return terms["loss"].total, terms

        (_, terms), gradient = total(params, PACKED)
        (_, wanted), expected = total(params, PADDED)
        for name, mean in wanted.items():
            np.testing.assert_allclose(terms[name], mean, rtol=1e-9, err_msg=name)
        for path, leaf in flatten(expected).items():
            np.testing.assert_allclose(flatten(gradient)[path], leaf, atol=1e-9, err_msg=path)


def test_the_terms_by_hand(model, params):
    """Accuracies and margins of the log probabilities and, beside the reference, of rewards."""
    with jax.enable_x64(True):
        terms = jax.jit(partial(terms_of, model, loss=dpo))(params, PADDED)
        log_probs = np.asarray(full_log_probs(model, params, PADDED))
        chosen = PADDED.chosen
        for prefix, scores in [
            ("", log_probs),
            ("reward_", log_probs - PADDED.reference_log_probs),
        ]:
            difference = scores[chosen] - scores[~chosen]
            accuracy = "preference_accuracy" if not prefix else "reward_accuracy"
            np.testing.assert_allclose(terms[accuracy], [(difference > 0).sum(), 4])
            np.testing.assert_allclose(terms[f"{prefix}margin"], [difference.sum(), 4], rtol=1e-9)
        expected = np.log1p(np.exp(-0.1 * difference)).sum()
        np.testing.assert_allclose(terms["loss"], [expected, 4], rtol=1e-9)
        choice = terms_of(model, params, PADDED, candidates)
        assert choice.keys() == {"loss", "choice_accuracy"}
        assert choice["choice_accuracy"] == terms["preference_accuracy"]


def test_an_empty_batch_is_zero_over_zero(model, params):
    with jax.enable_x64(True):
        batch = empty_batch(2, LENGTH, 2, pairs=True, reference=True)

        def total(params):
            terms = terms_of(model, params, batch, dpo)
            return terms["loss"].total, terms

        gradient, terms = jax.jit(jax.grad(total, has_aux=True))(params)
        assert all(mean == (0, 0) for mean in jax.device_get(terms).values())
        assert all((leaf == 0).all() for leaf in flatten(gradient).values())


@pytest.mark.parametrize(
    ("loss", "changes", "message"),
    [
        (
            dpo,
            {"pair_ids": None},
            "loss 'dpo' compares endings, and these batches hold one of each",
        ),
        (dpo, {"reference_log_probs": None}, "loss 'dpo' reads reference_log_probs, and these"),
        (
            lambda log_probs, aux: (log_probs[:1], log_probs),
            {},
            r"returned values float\d\d\[1\] for 4",
        ),
        (
            lambda log_probs, aux: (log_probs, aux.chosen),
            {},
            r"returned weights bool\[4\] for 4 segments; .* at least float32",
        ),
    ],
)
def test_mistakes_are_told(loss, changes, message, model, params):
    with jax.enable_x64(True), pytest.raises(UserError, match=message):
        terms_of(model, params, PACKED._replace(**changes), loss)


def test_a_normaliser_is_refused(model):
    with pytest.raises(
        UserError, match=r"loss.normaliser='turn': loss 'dpo' is one of whole endings"
    ):
        make_objective(dpo, model, normaliser="turn", train=True)
