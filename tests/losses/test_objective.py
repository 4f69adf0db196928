"""Objectives: normalisers by hand, parts that add up, counts from the batch alone."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.core.mean import Mean, add
from dlm.data.batch import Batch
from dlm.dialogue.encoding import CHANNEL_NAMES
from dlm.losses.api import Context
from dlm.losses.binary_cross_entropy import binary_cross_entropy
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.objective import make_objective, normalise, token_terms

VOCABULARY, WIDTH = 13, 4

# Segments, turns and weights chosen so that every unit has another number of targets, one turn 0
# follows another in the next segment, and one dialogue has no weight at all.
SEGMENTS = np.array([[1, 1, 1, 1, 1, 1, 2, 2, 0, 0], [1, 1, 1, 2, 2, 2, 2, 2, 2, 2], [1] * 10])
TURNS = np.array([[0, 0, 0, 1, 1, 1, 0, 0, -1, -1], [0, 0, 0, 0, 0, 0, 0, 0, 1, 1], [0] * 10])
WEIGHTS = np.array(
    [[0, 1, 2, 0, 0.5, 0, 3, 0, 0, 0], [0, 0, 4, 1, 1, 0, 1, 1, 0.25, 0], [0] * 10], np.float32
)


class Bigram:
    """A stand-in for a model: the hidden state of a position is the embedding of its token."""

    def hidden(self, params, tokens, positions, segment_ids, *, dropout_keys=None):
        hidden = params["embedding"][tokens]
        if dropout_keys is None:
            return hidden
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, hidden.shape[1:]))(dropout_keys)
        return jnp.where(kept, 2 * hidden, 0)

    def head_kernel(self, params):
        return params["head"]


def make_params(seed=0):
    random = np.random.default_rng(seed)
    return {
        name: jnp.asarray(random.normal(size=(VOCABULARY, WIDTH)), jnp.float32)
        for name in ("embedding", "head")
    }


def make_batch(weights=WEIGHTS, segments=SEGMENTS, turns=TURNS) -> Batch:
    random = np.random.default_rng(1)
    tokens, targets = random.integers(0, VOCABULARY, (2, *weights.shape)).astype(np.int32)
    channels = random.integers(0, len(CHANNEL_NAMES), weights.shape).astype(np.int32)
    positions = np.zeros_like(tokens)
    ids = np.zeros((len(weights), 2), np.int32)
    return Batch(tokens, targets, weights, segments, positions, channels, turns, ids, ids)


CONTEXT = Context(jax.random.split(jax.random.key(0), 3), 0, 0)


def evaluate(loss=cross_entropy, batch=None, params=None, **options):
    options = {"normaliser": "token", "chunk": 3, "train": False, **options}
    batch = make_batch() if batch is None else batch
    return make_objective(loss, Bigram(), **options)(params or make_params(), batch, CONTEXT)


def token_losses(batch, params):
    """[B, T] float64 cross-entropy by full logits, on the host."""
    hidden = np.asarray(params["embedding"], np.float64)[batch.tokens]
    logits = hidden @ np.asarray(params["head"], np.float64).T
    logits -= logits.max(-1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(log_probs, batch.targets[..., None], -1)[..., 0]


UNITS = {  # positions of every unit with some weight, by hand
    "turn": [(0, [1, 2]), (0, [4]), (0, [6]), (1, [2]), (1, [3, 4, 6, 7]), (1, [8])],
    "dialogue": [(0, [1, 2, 4]), (0, [6]), (1, [2]), (1, [3, 4, 6, 7, 8])],
    "sequence": [(0, [1, 2]), (0, [4]), (0, [6]), (1, [2]), (1, [3, 4]), (1, [6, 7]), (1, [8])],
}


@pytest.mark.parametrize("normaliser", UNITS)
def test_unit_normalisers_by_hand(normaliser):
    """Mean over units of the unit's weighted mean; a unit crosses no segment and no row."""
    batch, params = make_batch(), make_params()
    losses = token_losses(batch, params)
    means = [
        np.average(losses[row, where], weights=WEIGHTS[row, where])
        for row, where in UNITS[normaliser]
    ]
    loss = evaluate(normaliser=normaliser)["loss"]
    assert loss.count == len(means)
    np.testing.assert_allclose(loss.value, np.mean(means), rtol=1e-6)


def test_token_and_risk_by_hand():
    """Token: over the weights. Risk: (1/N) sum_i sum_j, N dialogues; one without weight is none."""
    total = (token_losses(make_batch(), make_params()) * WEIGHTS).sum()
    token, risk = evaluate()["loss"], evaluate(normaliser="risk")["loss"]
    np.testing.assert_allclose([token.total, token.count], [total, WEIGHTS.sum()], rtol=1e-6)
    np.testing.assert_allclose([risk.total, risk.count], [total, 4], rtol=1e-6)


@pytest.mark.parametrize("normaliser", ["token", "turn", "dialogue", "sequence", "risk"])
def test_rows_add(normaliser):
    """Totals and counts of rows add up to those of the batch: no unit crosses a row."""
    whole = evaluate(normaliser=normaliser)
    rows = [
        evaluate(batch=jax.tree.map(lambda a: a[i : i + 1], make_batch()), normaliser=normaliser)  # noqa: B023
        for i in range(3)
    ]
    both = add(add(rows[0], rows[1]), rows[2])
    assert both.keys() == whole.keys()
    for name, mean in whole.items():
        np.testing.assert_allclose(both[name], mean, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("normaliser", ["token", "turn", "dialogue", "sequence", "risk"])
def test_a_unit_alone_in_its_row_counts_the_same(normaliser):
    """Packed equals unpacked: each segment in a row of its own gives the same total and count."""
    packed = make_batch()

    def unpack(array):
        rows = [
            np.where(SEGMENTS[row] == segment, array[row], 0)
            for row in range(3)
            for segment in (1, 2)
        ]
        return np.stack(rows)

    fields = ("tokens", "targets", "loss_weights", "segment_ids", "channel_ids", "turn_ids")
    unpacked = packed._replace(**{name: unpack(getattr(packed, name)) for name in fields})
    unpacked = unpacked._replace(positions=np.zeros_like(unpacked.tokens))
    kernel, embedding = make_params()["head"], make_params()["embedding"]
    options = {"normaliser": normaliser, "chunk": 3}
    a, b = (
        token_terms(cross_entropy, kernel, embedding[batch.tokens], batch, **options)
        for batch in (packed, unpacked)
    )
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-6)


@pytest.mark.parametrize("normaliser", ["token", "turn", "risk"])
def test_channels_add_up_to_the_loss(normaliser):
    """What is logged is what is optimised: the parts sum to the loss's total."""
    terms = evaluate(normaliser=normaliser)
    parts = {name: mean for name, mean in terms.items() if name.startswith("channel:")}
    whole = {"loss": terms["loss"], "token_accuracy": terms["token_accuracy"]}
    assert set(parts) == {f"channel:{name}/{term}" for name in CHANNEL_NAMES for term in whole}
    for term, mean in whole.items():
        total = sum(part.total for name, part in parts.items() if name.endswith(f"/{term}"))
        np.testing.assert_allclose(total, mean.total, rtol=1e-6)
    batch, losses = make_batch(), token_losses(make_batch(), make_params())
    if normaliser == "token":
        there = (batch.channel_ids == CHANNEL_NAMES.index("reply")) * WEIGHTS
        expected = [(losses * there).sum(), there.sum()]
        np.testing.assert_allclose(parts["channel:reply/loss"], expected, rtol=1e-5)


def test_token_accuracy_counts_positions():
    batch, params = make_batch(), make_params()
    best = (params["embedding"][batch.tokens] @ params["head"].T).argmax(-1)
    targets = np.where(np.arange(10) % 2, best, (best + 1) % VOCABULARY).astype(np.int32)
    accuracy = evaluate(batch=batch._replace(targets=targets))["token_accuracy"]
    right = (np.arange(10) % 2) * (WEIGHTS > 0)
    assert accuracy == Mean(right.sum(), (WEIGHTS > 0).sum())


def test_a_channels_accuracy_counts_its_tokens():
    """Each channel by hand: its tokens, and those of them that are the argmax."""
    batch, params = make_batch(), make_params()
    best = (params["embedding"][batch.tokens] @ params["head"].T).argmax(-1)
    targets = np.where(np.arange(10) % 2, best, (best + 1) % VOCABULARY).astype(np.int32)
    terms = evaluate(batch=batch._replace(targets=targets))
    right = (np.arange(10) % 2) * (WEIGHTS > 0)
    for index, name in enumerate(CHANNEL_NAMES):
        there = (batch.channel_ids == index) & (WEIGHTS > 0)
        assert terms[f"channel:{name}/token_accuracy"] == Mean((right * there).sum(), there.sum())


def test_counts_depend_on_the_batch_alone():
    a, b = evaluate(params=make_params(0)), evaluate(params=make_params(9))
    assert all(a[name].count == b[name].count for name in a)
    assert a["loss"].total != b["loss"].total


@pytest.mark.parametrize("normaliser", ["token", "turn", "dialogue", "sequence", "risk"])
def test_an_all_masked_batch_is_zero_over_zero(normaliser):
    batch = make_batch(np.zeros_like(WEIGHTS))

    def total(params):
        terms = evaluate(batch=batch, params=params, normaliser=normaliser)
        return terms["loss"].total, terms

    gradient, terms = jax.grad(total, has_aux=True)(make_params())
    assert all(mean == Mean(0, 0) for mean in terms.values())
    assert all((leaf == 0).all() for leaf in gradient.values())


def test_a_loss_that_covers_some_targets_counts_those_alone():
    """The denominator counts what the numerator sums, also for a binary loss."""
    bound = partial(binary_cross_entropy, positive=2, negative=5)
    batch = make_batch()
    answers = (batch.targets == 2) | (batch.targets == 5)
    assert (WEIGHTS * answers).sum() > 0
    terms = evaluate(bound)
    np.testing.assert_allclose(terms["loss"].count, (WEIGHTS * answers).sum())
    assert terms["token_accuracy"].count == ((WEIGHTS > 0) & answers).sum()


def test_dropout_is_drawn_in_training_only():
    """Randomness is off in evaluation and comes from the rows' keys in training."""
    totals = [evaluate(train=train)["loss"].total for train in (False, True, True)]
    assert totals[0] == evaluate()["loss"].total
    assert totals[0] != totals[1] == totals[2]


def test_an_objective_is_given_what_it_names():
    def two_passes(params, batch, context, *, model, chunk, weight=1.0):
        return model, chunk, weight

    model = Bigram()
    objective = make_objective(partial(two_passes, weight=2.0), model, chunk=7, train=True)
    assert objective({}, None, None) == (model, 7, 2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normaliser": "tokens"}, "loss.normaliser='tokens': choose one of token, turn"),
        ({"chunk": -1}, "loss.chunk=-1"),
        ({"loss": lambda log_probs, aux: log_probs}, "and these batches hold one of each only"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(UserError, match=message):
        evaluate(**options)


def test_normalise_leaves_no_weight_on_positions_without():
    for name in ("token", "turn", "dialogue", "sequence", "risk"):
        scale, _ = normalise(name, *(jnp.asarray(a) for a in (WEIGHTS, SEGMENTS, TURNS)))
        assert ((scale > 0) == (WEIGHTS > 0)).all()


def test_tasks_share_out_the_loss():
    """A target counts for the task of its segment's dialogue, padding for none; parts add up.

    Row 0 holds dialogues of tasks 1 and 0, row 1 of 2 and 1, row 2 one of task 0 without a weight.
    """
    batch = make_batch()._replace(task_ids=np.array([[1, 0], [2, 1], [0, -1]], np.int32))
    terms = evaluate(batch=batch, tasks=("a", "b", "c"))
    losses = token_losses(batch, make_params())
    rows, columns = np.nonzero(WEIGHTS)
    tasks = batch.task_ids[rows, SEGMENTS[rows, columns] - 1]
    for task, name in enumerate("abc"):
        here = rows[tasks == task], columns[tasks == task]
        mean, hits = terms[f"task:{name}/loss"], terms[f"task:{name}/token_accuracy"]
        np.testing.assert_allclose(mean.total, (losses * WEIGHTS)[here].sum(), rtol=1e-6)
        np.testing.assert_allclose(mean.count, WEIGHTS[here].sum(), rtol=1e-6)
        assert hits.count == len(here[0])
    whole = sum(terms[f"task:{name}/loss"].total for name in "abc")
    np.testing.assert_allclose(whole, terms["loss"].total, rtol=1e-6)
    plain = evaluate(batch=batch)
    assert plain.keys() == {name for name in terms if not name.startswith("task:")}
    assert all(plain[name] == terms[name] for name in plain)
