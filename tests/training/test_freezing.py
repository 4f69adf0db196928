"""Freezing proved: nothing of a frozen leaf is computed, kept or moved, scanned and unrolled alike.

The step is held against a plain variant that stands below: the lower layers run outside of what is
differentiated, the upper ones are unrolled, and the optimiser knows the upper leaves alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlm.core.paths import flatten
from dlm.data.batch import Batch
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.objective import make_objective
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model, scanned_apart
from dlm.models.layers import Layer, Norm, Tokens, rotation_of
from dlm.training.optimizer import OptimizerConfig, make_optimizer, resolve_trainable
from dlm.training.step import LOSS, init_state, make_train_step

ROWS, LENGTH, LAYERS, TRAINED = 3, 32, 6, 2
CONFIG = ModelConfig(
    vocab_size=97, num_layers=LAYERS, width=64, num_heads=4, max_length=32, attention="reference"
)
RULES = ((r"layers/[45]/.*|norm/.*", True), (r".*", False))
OPTIMIZER = OptimizerConfig(learning_rate=0.01, weight_decay=0.5, clip_norm=0.3)


def make_batch(seed: int = 0) -> Batch:
    random = np.random.default_rng(seed)
    shape = (ROWS, LENGTH)
    tokens, targets = random.integers(0, 97, (2, *shape)).astype(np.int32)
    ones = np.ones(shape, np.int32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    ids = np.zeros((ROWS, 1), np.int32)
    weights = random.uniform(0.1, 2, shape).astype(np.float32)
    return Batch(tokens, targets, weights, ones, positions, 10 * ones, 0 * ones, ids, ids)


@cache
def make_params() -> dict:
    return jax.jit(Model(CONFIG).init)(jax.random.key(0))


def make_step(rules=RULES, *, scan: bool = False, apart: bool = True):
    """The step and a fresh state."""
    params = jax.tree.map(jnp.array, make_params())
    trainable = resolve_trainable(rules, params)
    model = Model(replace(CONFIG, scan_layers=scan))
    model = scanned_apart(model, trainable) if apart else model
    optimizer = make_optimizer(OPTIMIZER, 60, params)
    objective = make_objective(cross_entropy, model, chunk=ROWS * LENGTH, train=True)
    step = make_train_step(objective, optimizer, trainable=trainable)
    return step, init_state(params, optimizer, trainable, jax.random.key(1))


def plain_step(upper, lower, opt_state, batch):
    """One update of the upper layers and the last norm, written out; only they have gradients."""
    read = Tokens(batch.segment_ids, batch.positions, rotation_of(batch.positions, CONFIG), None)
    table = lower["embedding"]["tokens"]

    def run(layers, x, numbers):
        for i in numbers:
            x, _ = Layer(CONFIG).apply({"params": layers[str(i)]}, x, read, None, 0)
        return x

    middle = run(lower["layers"], table[batch.tokens], range(LAYERS - TRAINED))

    def loss(upper):
        x = run(upper["layers"], middle, range(LAYERS - TRAINED, LAYERS))
        logits = Norm(CONFIG).apply({"params": upper["norm"]}, x) @ table.T
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        return jnp.sum(batch.loss_weights * losses) / jnp.sum(batch.loss_weights)

    optimizer = make_optimizer(OPTIMIZER, 60, upper | {"embedding": lower["embedding"]})
    value, gradients = jax.value_and_grad(loss)(upper)
    changes, opt_state = optimizer.update(gradients, opt_state, upper)
    return optax.apply_updates(upper, changes), opt_state, value, optax.tree.norm(gradients)


def split_by_hand(params):
    upper = {str(i): params["layers"][str(i)] for i in range(LAYERS - TRAINED, LAYERS)}
    lower = {k: v for k, v in params["layers"].items() if k not in upper}
    return (
        {"layers": upper, "norm": params["norm"]},
        {"layers": lower, "embedding": params["embedding"]},
    )


@cache
def compiled(rules=RULES, **options):
    step, state = make_step(rules, **options)
    return step.lower(state, make_batch()).compile()


@cache
def compiled_plain():
    upper, lower = split_by_hand(make_params())
    opt_state = make_optimizer(OPTIMIZER, 60, make_params()).init(upper)
    step = jax.jit(plain_step, donate_argnums=(0, 2))
    return step.lower(upper, lower, opt_state, make_batch()).compile()


def flops(program) -> float:
    return program.cost_analysis()["flops"]


def temporary(program) -> int:
    return program.memory_analysis().temp_size_in_bytes


def size(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("scan", [False, True])
def test_fifty_updates_leave_frozen_leaves_as_they_are(scan):
    """Decay and clipping on: every bit stays; no gradient, no moment; the plain step's values."""
    step, state = make_step(scan=scan)
    trainable = resolve_trainable(RULES, make_params())
    upper, lower = split_by_hand(make_params())
    opt_state = make_optimizer(OPTIMIZER, 60, make_params()).init(upper)
    plain = jax.jit(plain_step)
    for seed in range(50):
        state, metrics = step(state, make_batch(seed))
        if seed < 3:
            upper, opt_state, value, norm = plain(upper, lower, opt_state, make_batch(seed))
            np.testing.assert_allclose(metrics.terms["loss"].value, value, rtol=1e-5)
            np.testing.assert_allclose(metrics.grad_norm, norm, rtol=1e-4)
    before = flatten(make_params())
    for path, leaf in flatten(state.params).items():
        same = np.asarray(leaf).tobytes() == np.asarray(before[path]).tobytes()
        assert same != trainable[path], path
    assert set(metrics.nonfinite) == {LOSS, *(path for path, yes in trainable.items() if yes)}
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * sum(leaf.size for leaf in jax.tree.leaves(upper))


def test_no_backward_pass_below_the_trained_layers_is_compiled():
    """The work and the memory of the plain step; with everything trained both are far more.

    Within 2 and 5 %: the step also scores each target and looks for what is not finite.
    """
    everything = compiled(((r".*", True),))
    assert flops(compiled()) < 1.02 * flops(compiled_plain())
    assert temporary(compiled()) < 1.05 * temporary(compiled_plain())
    assert flops(everything) > 1.7 * flops(compiled_plain())
    assert temporary(everything) > 2 * temporary(compiled_plain())


def products(jaxpr) -> int:
    """Multiplications of a program, a scan's body as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += equation.outvars[0].aval.size * np.prod([shape[i] for i in contracted])
        inner = jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        )
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for leaf in inner:
            if hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr"):
                total += times * products(getattr(leaf, "jaxpr", leaf))
    return int(total)


def test_scanned_layers_compile_no_backward_pass_below_either():
    """Every product as often as it runs: those of the unrolled step, frozen or not.

    The compiler's own count takes a scan's body once. In memory the parameters are stacked, and
    the gradients of the trained ones: less than all layers twice.
    """

    def counted(rules=RULES, **options) -> int:
        step, state = make_step(rules, **options)
        return products(jax.make_jaxpr(step)(state, make_batch()).jaxpr)

    assert counted(scan=True) == counted()
    assert counted(((r".*", True),), scan=True) == counted(((r".*", True),))
    stacked = 2 * size(make_params()["layers"])
    assert temporary(compiled(scan=True)) < temporary(compiled()) + stacked
    assert temporary(compiled(scan=True, apart=False)) > temporary(compiled()) + 2 * stacked
