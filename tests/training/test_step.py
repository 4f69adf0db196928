"""The train step: exact accumulation, what is skipped, what is frozen, what is random."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.core.paths import flatten
from dlm.data.batch import Batch
from dlm.losses.api import Context
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.objective import make_objective
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.training.optimizer import OptimizerConfig, make_optimizer, resolve_trainable
from dlm.training.step import LOSS, init_state, make_train_step, row_keys

VOCABULARY, ROWS, LENGTH = 17, 8, 24
COUNTS = (1, 0, 23, 3, 7, 0, 1, 12)  # supervised targets of each row
SGD = OptimizerConfig(
    name="sgd", learning_rate=0.5, schedule="constant", weight_decay=0.0, clip_norm=None
)
ADAMW = OptimizerConfig(learning_rate=0.01, warmup=2, clip_norm=0.3)
ALL = ((r".*", True),)


def make_model(**changes) -> Model:
    sizes = {"vocab_size": VOCABULARY, "num_layers": 2, "width": 8, "num_heads": 2}
    return Model(ModelConfig(**{**sizes, "max_length": 32, "attention": "reference", **changes}))


@cache
def make_params():
    return jax.jit(make_model().init)(jax.random.key(0))


def make_batch(counts=COUNTS, seed=0, weight=1.0) -> Batch:
    random = np.random.default_rng(seed)
    shape = (len(counts), LENGTH)
    tokens = random.integers(0, VOCABULARY, shape).astype(np.int32)
    order = random.permuted(np.tile(np.arange(LENGTH), (len(counts), 1)), axis=1)
    weights = (weight * (order < np.array(counts)[:, None])).astype(np.float32)
    ones = np.ones(shape, np.int32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (len(counts), 1))
    ids = np.zeros((len(counts), 1), np.int32)
    targets = random.integers(0, VOCABULARY, shape).astype(np.int32)
    return Batch(tokens, targets, weights, ones, positions, 10 * ones, 0 * ones, ids, ids)


class Run:
    """A model, its step, and a fresh state for each call."""

    def __init__(
        self,
        optimizer,
        *,
        rules=ALL,
        objective=None,
        dropout=0.0,
        **options,
    ):
        model = make_model(dropout=dropout)
        self.params = make_params()
        self.trainable = resolve_trainable(rules, self.params)
        self.optimizer = make_optimizer(optimizer, 20, self.params)
        self.objective = objective or make_objective(cross_entropy, model, chunk=16, train=True)
        self.step = make_train_step(
            self.objective, self.optimizer, trainable=self.trainable, **options
        )

    def state(self, params=None):
        params = jax.tree.map(jnp.array, params or self.params)  # a copy: the step donates it
        return init_state(params, self.optimizer, self.trainable, jax.random.key(1))

    def after(self, *batches):
        """(state, metrics of the last step)."""
        state = self.state()
        for batch in batches:
            state, metrics = self.step(state, batch)
        return state, metrics


make_run = cache(Run)  # compiled once


def assert_same(a, b, tolerance=0.0):
    for path, leaf in flatten(a).items():
        other = flatten(b)[path]
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(leaf, other, atol=tolerance * scale, rtol=0, err_msg=path)


def bits(tree):
    return {path: np.asarray(leaf).tobytes() for path, leaf in flatten(tree).items()}


def leaves(tree):
    """Arrays of a tree with a random key in it, as comparable bytes."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


# Adam divides a gradient by its own size: below epsilon its rounding (6e-12 of 3e-9 here) would be
# an update's third digit. This epsilon bounds what a rounding can do; wrong gradients still show.
CONDITIONED = replace(ADAMW, epsilon=1e-5)


@pytest.mark.parametrize(("accumulate", "optimizer"), [(4, CONDITIONED), (8, SGD)])
def test_accumulation_is_exact(accumulate, optimizer):
    """Any split equals one batch within 1e-6: loss, every logged term, norm and parameters."""
    state, metrics = make_run(optimizer, accumulate=accumulate).after(make_batch())
    expected_state, expected = make_run(optimizer).after(make_batch())
    assert_same(state.params, expected_state.params, 1e-6)
    for name, mean in metrics.terms.items():
        np.testing.assert_allclose(mean, expected.terms[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(metrics.grad_norm, expected.grad_norm, rtol=1e-6)


def test_several_terms_are_each_divided_by_their_own_count():
    """The gradient is that of sum_k c_k T_k / C_k, also when micro-batches hold C_k unevenly."""

    def objective(params, batch, context):
        w = batch.loss_weights
        odd = w * (batch.targets % 2)
        a, b = params["a"], params["b"]
        return {
            "first": Mean(jnp.sum(w * (a * batch.tokens + b)), jnp.sum(w)),
            "second": Mean(jnp.sum(odd * (a - batch.tokens * b)), jnp.sum(odd)),
            "logged": Mean(jnp.sum(a * w), jnp.sum(w)),
        }

    params, batch = {"a": jnp.float32(1.0), "b": jnp.float32(2.0)}, make_batch()
    w, odd = batch.loss_weights, batch.loss_weights * (batch.targets % 2)
    mean = (batch.tokens * w).sum() / w.sum()
    mean_odd = (batch.tokens * odd).sum() / odd.sum()
    expected = {"a": 1 - 0.5 * (2 * mean + 3), "b": 2 - 0.5 * (2 - 3 * mean_odd)}
    trainable = {"a": True, "b": True}
    optimizer = make_optimizer(SGD, 5, params)
    for accumulate in (1, 4):
        step = make_train_step(
            objective,
            optimizer,
            coefficients={"first": 2.0, "second": 3.0},
            trainable=trainable,
            accumulate=accumulate,
        )
        copy = jax.tree.map(jnp.array, params)
        state, _ = step(init_state(copy, optimizer, trainable, jax.random.key(0)), batch)
        assert_same(state.params, expected, 1e-6)


def test_the_logged_loss_is_the_optimised_one():
    """The loss equals a float64 recomputation from logits; its parts add up to it."""
    model, batch, params = make_model(), make_batch(), make_params()
    hidden = model.hidden(params, batch.tokens, batch.positions, batch.segment_ids)
    logits = np.asarray(model.logits(params, hidden), np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_probs, batch.targets[..., None], -1)[..., 0]
    terms = make_run(SGD).after(batch)[1].terms
    expected = (losses * batch.loss_weights).sum() / sum(COUNTS)
    np.testing.assert_allclose(terms["loss"].value, expected, rtol=1e-5)
    parts = [m.total for n, m in terms.items() if n.startswith("channel:") and n.endswith("/loss")]
    np.testing.assert_allclose(sum(parts), terms["loss"].total, rtol=1e-6)


def test_weights_below_one_are_divided_by_their_sum():
    """The denominator counts what the numerator sums: a sum of weights of 0.47 is not 1."""
    expected, _ = make_run(SGD).after(make_batch())
    state, metrics = make_run(SGD).after(make_batch(weight=0.01))
    np.testing.assert_allclose(metrics.terms["loss"].count, 0.47, rtol=1e-6)
    assert_same(state.params, expected.params, 1e-6)


@pytest.mark.parametrize("options", [{}, {"accumulate": 4}])
def test_an_all_masked_batch_changes_nothing(options):
    """Loss 0 over 0, no update, no moment, no schedule step; the step is counted, and flagged."""
    run = make_run(ADAMW, **options)
    before, metrics = run.after(make_batch())
    assert not metrics.empty
    copy = jax.tree.map(jnp.array, before)
    after, metrics = run.step(copy, make_batch(counts=(0,) * ROWS))
    assert bits(after.params) == bits(before.params)
    assert leaves(after.opt_state) == leaves(before.opt_state)
    assert metrics.empty
    assert metrics.terms["loss"] == Mean(0, 0)
    assert metrics.grad_norm == 0
    assert (after.step, after.updates) == (2, 1)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_named():
    model = make_model()

    def poisoned(params, batch, context):
        terms = make_objective(cross_entropy, model, train=True)(params, batch, context)
        harm = jnp.where(batch.tokens[0, 0] == 3, jnp.nan, 0) * params["norm"]["scale"].sum()
        return {**terms, "loss": Mean(terms["loss"].total + harm, terms["loss"].count)}

    run = make_run(ADAMW, objective=poisoned)
    batch = make_batch()
    batch.tokens[0, 0] = 2
    before, metrics = run.after(batch)
    assert not any(metrics.nonfinite.values())
    copy = jax.tree.map(jnp.array, before)
    batch.tokens[0, 0] = 3
    after, metrics = run.step(copy, batch)
    assert [path for path, bad in metrics.nonfinite.items() if bad] == [LOSS, "norm/scale"]
    assert bits(after.params) == bits(before.params)
    assert leaves(after.opt_state) == leaves(before.opt_state)
    assert (after.step, after.updates, bool(metrics.empty)) == (2, 1, False)


def test_schedules_count_updates():
    """Not micro-batches, and not steps that made no update."""
    run = make_run(ADAMW, accumulate=4)
    state, rates = run.state(), []
    for counts in (COUNTS, (0,) * ROWS, COUNTS, COUNTS):
        state, metrics = run.step(state, make_batch(counts))
        rates.append(float(metrics.learning_rate))
    np.testing.assert_allclose(rates, [0.005, 0.005, 0.01, 0.01], rtol=1e-6)
    assert (state.step, state.updates) == (4, 3)


def test_one_trace_serves_every_step():
    traces = []
    model = make_model()

    def counted(params, batch, context):
        traces.append(1)
        return make_objective(cross_entropy, model, train=True)(params, batch, context)

    run = make_run(SGD, objective=counted)
    state = run.state()
    state, _ = run.step(state, make_batch())
    first = len(traces)
    for seed in (1, 2):
        state, _ = run.step(state, make_batch(counts=(3,) * ROWS, seed=seed))
    assert len(traces) == first
    assert run.step._cache_size() == 1


FROZEN = replace(ADAMW, weight_decay=0.5)
TOP = ((r"layers/1/.*|norm/.*", True), (r".*", False))


def test_frozen_means_bit_identical():
    """Ten updates with decay and clipping: frozen leaves keep every bit, have no moments, and are
    not in the gradient norm; every trainable leaf has moved.
    """
    run = make_run(FROZEN, rules=TOP)
    state = run.state()
    for seed in range(10):
        state, metrics = run.step(state, make_batch(seed=seed))
    before, after = bits(run.params), bits(state.params)
    for path, trained in run.trainable.items():
        assert (before[path] != after[path]) == trained, path
    checked = {path for path, trained in run.trainable.items() if trained}
    assert set(metrics.nonfinite) == {LOSS, *checked}
    size = sum(leaf.size for path, leaf in flatten(run.params).items() if run.trainable[path])
    assert sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) == 2 * size + 3


def test_the_norm_is_that_of_the_trainable_gradient():
    run, batch = make_run(FROZEN, rules=TOP), make_batch()
    keys = row_keys(jax.random.key(1), 0, ROWS)

    def loss(params):
        mean = run.objective(params, batch, Context(keys, 0, 0))["loss"]
        return mean.total / mean.count

    gradient = flatten(jax.jit(jax.grad(loss))(run.params))
    squares = [(gradient[path] ** 2).sum() for path, trained in run.trainable.items() if trained]
    np.testing.assert_allclose(run.after(batch)[1].grad_norm, np.sqrt(sum(squares)), rtol=1e-5)


def flops(run, batch) -> float:
    return run.step.lower(run.state(), batch).compile().cost_analysis()["flops"]


def test_no_backward_pass_below_the_lowest_trainable_layer_is_compiled():
    """Of three layers, training the top one saves the backward of two.

    A layer costs f forward and 2 f backward. All: 9 f; the top one alone: 3 f + 2 f.
    """
    batch = make_batch()
    model = make_model(num_layers=3, width=64)
    cost = {}
    for name, rules in {
        "all": ((r"embedding/.*", False), (r".*", True)),
        "top": ((r"layers/2/.*|norm/.*", True), (r".*", False)),
    }.items():
        params = model.init(jax.random.key(0))
        trainable = resolve_trainable(rules, params)
        optimizer = make_optimizer(SGD, 5, params)
        objective = make_objective(cross_entropy, model, chunk=16, train=True)
        step = make_train_step(objective, optimizer, trainable=trainable)
        state = init_state(params, optimizer, trainable, jax.random.key(1))
        cost[name] = step.lower(state, batch).compile().cost_analysis()["flops"]
    assert 0.45 < cost["top"] / cost["all"] < 0.65


def test_counting_first_costs_no_second_forward_pass():
    """The compiled step has the FLOPs of one value-and-gradient, plus the update."""
    run, batch = make_run(SGD), make_batch()
    keys = row_keys(jax.random.key(1), 0, ROWS)

    def total(params):
        return run.objective(params, batch, Context(keys, 0, 0))["loss"].total

    alone = jax.jit(jax.value_and_grad(total)).lower(run.params).compile()
    forward = jax.jit(total).lower(run.params).compile()
    once, passed = (c.cost_analysis()["flops"] for c in (alone, forward))
    assert flops(run, batch) < once + 0.3 * passed


def test_dropout_does_not_depend_on_micro_batches():
    """Randomness is keyed by seed, step and row: any split draws the same."""
    states = [make_run(SGD, dropout=0.5, accumulate=n).after(make_batch())[0] for n in (1, 4)]
    assert_same(states[1].params, states[0].params, 1e-6)
    without = make_run(SGD).after(make_batch())[0]
    assert bits(without.params) != bits(states[0].params)


def test_row_keys_differ_by_seed_step_and_row():
    draws = [
        jax.random.key_data(row_keys(jax.random.key(seed), step, 3)).tolist()
        for seed in (0, 1)
        for step in (0, 1)
    ]
    assert len({tuple(row) for rows in draws for row in rows}) == 12
    again = jax.random.key_data(row_keys(jax.random.key(0), 0, 2)).tolist()
    assert again == draws[0][:2]


def test_one_seed_gives_one_run():
    a, b = (
        make_run(SGD, dropout=0.5, accumulate=1).after(make_batch(), make_batch(seed=1))[0]
        for _ in range(2)
    )
    assert leaves(a._replace(key=0)) == leaves(b._replace(key=0))


def test_small_updates_survive_bfloat16_compute():
    """A thousand updates of relative size 1e-4 move a weight as far as in float32, within 1 %."""
    moved = {}
    for dtype in (jnp.float32, jnp.bfloat16):

        def objective(params, batch, context, dtype=dtype):
            product = params["w"].astype(dtype) * batch.tokens[0, :1].astype(dtype)
            return {"loss": Mean(-product.astype(jnp.float32).sum(), jnp.float32(1))}

        batch = make_batch()._replace(tokens=np.ones((ROWS, LENGTH), np.int32))
        params, trainable = {"w": jnp.ones(1)}, {"w": True}
        optimizer = make_optimizer(replace(SGD, learning_rate=1e-4), 1000, params)
        step = make_train_step(objective, optimizer, trainable=trainable)
        state = init_state(params, optimizer, trainable, jax.random.key(0))
        for _ in range(1000):
            state, _ = step(state, batch)
        moved[dtype] = float(state.params["w"][0]) - 1
    np.testing.assert_allclose(moved[jnp.bfloat16], moved[jnp.float32], rtol=0.01)
    np.testing.assert_allclose(moved[jnp.float32], 0.1, rtol=0.01)


def test_frozen_parameters_reach_the_objective():
    def distance(params, batch, context):
        return {"loss": Mean(jnp.sum((params["w"] - context.frozen["w"]) ** 2), jnp.float32(1))}

    params, trainable = {"w": jnp.zeros(3)}, {"w": True}
    optimizer = make_optimizer(SGD, 5, params)
    step = make_train_step(distance, optimizer, trainable=trainable)
    state = init_state(params, optimizer, trainable, jax.random.key(0))
    frozen = {"w": jnp.arange(3.0)}
    state, _ = step(state, make_batch(), frozen)
    np.testing.assert_allclose(state.params["w"], frozen["w"])


def test_mistakes_are_told():
    with pytest.raises(UserError, match=r"train\.accumulate=3 does not divide the 8 rows"):
        make_run(SGD, accumulate=3).after(make_batch())
    with pytest.raises(UserError, match="no term 'los'; the objective gives loss, token_accuracy"):
        Run(SGD, coefficients={"los": 1.0}).after(make_batch())
