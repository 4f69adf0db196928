"""The train step: one pure function from (state, batch) to (state, metrics)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlm.core.errors import UserError
from dlm.core.mean import add
from dlm.core.paths import flatten, merge, split
from dlm.data.batch import Batch
from dlm.losses.api import Context
from dlm.losses.objective import Objective, Terms
from dlm.training.optimizer import learning_rate


class State(NamedTuple):
    """What training changes; saved and restored whole.

    Attributes:
      step: int32 scalar, batches seen; drives data order and random keys.
      updates: int32 scalar, optimiser updates made; drives the schedule and the end of the run.
      params: nested dict of all parameters, frozen ones included.
      opt_state: the optimiser's state, over the trainable parameters alone.
      key: one random key for the whole run.
    """

    step: jax.Array
    updates: jax.Array
    params: Any
    opt_state: Any
    key: jax.Array


class StepMetrics(NamedTuple):
    """What one step measured; scalars on the device, read later.

    Attributes:
      terms: every term's total and count over the whole batch; add them over a logging window and
        divide once.
      grad_norm: norm of the whole trainable gradient before clipping.
      learning_rate: of this update; where it was refused, of the last one made.
      tokens: int32, positions of the whole batch that hold a token.
      supervised: int32, positions of weight > 0 among them.
      empty: bool, no supervised target in the whole batch: no update, no schedule step.
      nonfinite: {path: bool}, leaves whose gradient holds NaN or infinity, and `LOSS` where the
        loss itself does; any of them refuses the update.
    """

    terms: Terms
    grad_norm: jax.Array
    learning_rate: jax.Array
    tokens: jax.Array
    supervised: jax.Array
    empty: jax.Array
    nonfinite: dict[str, jax.Array]


LOSS = "(loss)"  # no path of a parameter
TrainStep = Callable[..., tuple[State, StepMetrics]]


def init_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    trainable: Mapping[str, bool],
    key: jax.Array,
) -> State:
    """The state before the first step. A step donates it: its arrays are gone afterwards."""
    opt_state = optimizer.init(split(params, trainable)[0])
    return State(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), params, opt_state, key)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    coefficients: Mapping[str, float] | None = None,
    trainable: Mapping[str, bool],
    accumulate: int = 1,
    shardings: State | None = None,
) -> TrainStep:
    """Builds the compiled step `(state, batch, frozen=None) -> (state, metrics)`.

    With totals T_k and counts C_k of term k summed over the whole batch, it descends

        sum_k c_k T_k / C_k

    exactly, however the batch is cut into micro-batches: counts depend on the batch alone, so they
    are added first and each micro-batch's total is divided by the count of all. Row i draws its
    randomness from fold_in(fold_in(key, step), i). The state is donated. `frozen`, parameters that
    the objective reads as `context.frozen`, lies where its arrays do, and is not.

    An update is refused, parameters, moments and schedule left as they are, where no term counts
    anything or any gradient is not finite; `step` still advances.

    Args:
      objective: (params, batch, context) -> {term: Mean}.
      optimizer: over the trainable sub-tree.
      coefficients: c_k by term; None = {"loss": 1.0}. Other terms are only logged.
      trainable: {path: bool}; gradients are taken of the trainable sub-tree only.
      accumulate: micro-batches; rows must divide by it.
      shardings: where the new state lies, as `mesh.state_shardings` gives them; None = wherever
        the compiler puts it, right on one device.

    Raises:
      UserError: when called: rows that `accumulate` does not divide, or a coefficient of no term.
    """
    step = _plain_step(objective, optimizer, coefficients, trainable, accumulate, axis=None)
    out = None if shardings is None else (shardings, shardings.step)  # metrics lie everywhere
    return jax.jit(step, donate_argnums=0, out_shardings=out)


def make_pmap_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    coefficients: Mapping[str, float] | None = None,
    trainable: Mapping[str, bool],
    accumulate: int = 1,
) -> TrainStep:
    """The data-parallel twin of `make_train_step`, by `jax.pmap`: equal to it in every figure.

    Every array has a leading axis of devices: copies of the state and of `frozen`, and of the batch
    blocks of rows, [devices, B / devices, T].
    """
    step = _plain_step(objective, optimizer, coefficients, trainable, accumulate, axis="devices")
    return jax.pmap(step, axis_name="devices", donate_argnums=0)


def _plain_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    coefficients: Mapping[str, float] | None,
    trainable: Mapping[str, bool],
    accumulate: int,
    axis: str | None,
) -> TrainStep:
    """The step as a pure function; `axis` names the devices where each sees rows of its own."""
    coefficients = {"loss": 1.0} if coefficients is None else coefficients

    def whole(tree: Any) -> Any:
        return tree if axis is None else jax.lax.psum(tree, axis)

    def step(state: State, batch: Batch, frozen: Any = None) -> tuple[State, StepMetrics]:
        rows = batch.tokens.shape[0]
        if rows % accumulate:
            raise UserError(f"train.accumulate={accumulate} does not divide the {rows} rows")
        selected, rest = split(state.params, trainable)

        def terms_of(selected: Any, batch: Batch, keys: jax.Array) -> Terms:
            context = Context(keys, state.step, state.updates, frozen)
            return objective(merge(selected, rest), batch, context)

        first = 0 if axis is None else jax.lax.axis_index(axis) * rows
        data = (batch, row_keys(state.key, state.step, rows, first))
        grads, terms, empty = _differentiate(
            terms_of, selected, data, coefficients, accumulate, whole
        )
        totals = jnp.stack([jnp.asarray(terms[name].total) for name in coefficients])
        checked = {LOSS: totals, **flatten(grads)}
        nonfinite = {path: ~jnp.all(jnp.isfinite(values)) for path, values in checked.items()}
        refused = empty | jnp.any(jnp.stack(list(nonfinite.values())))
        selected, opt_state, rate = _apply(optimizer, selected, state.opt_state, grads, refused)
        held, learned = (jnp.sum(x > 0) for x in (batch.segment_ids, batch.loss_weights))
        tokens, supervised = whole((held, learned))
        norm = optax.tree.norm(grads)
        metrics = StepMetrics(terms, norm, rate, tokens, supervised, empty, nonfinite)
        updates = state.updates + ~refused
        params = merge(selected, rest)
        return State(state.step + 1, updates, params, opt_state, state.key), metrics

    return step


def row_keys(key: jax.Array, step: jax.Array, rows: int, first: jax.Array | int = 0) -> jax.Array:
    """Keys of rows first, first + 1, ... of the whole batch: functions of (seed, step, row)."""
    numbers = first + jnp.arange(rows)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), numbers)


def _micro_batches(tree: Any, number: int) -> Any:
    """Cuts axis 0 into [number, rows / number, ...]; micro-batch m takes rows m, m + number, ...

    Strided, so that rows sharded over devices in blocks are cut without moving between them.
    """

    def cut(array: jax.Array) -> jax.Array:
        return jnp.swapaxes(array.reshape(-1, number, *array.shape[1:]), 0, 1)

    return jax.tree.map(cut, tree)


def _differentiate(
    terms_of: Callable[..., Terms],
    selected: Any,
    data: tuple[Batch, jax.Array],
    coefficients: Mapping[str, float],
    accumulate: int,
    whole: Callable[[Any], Any],
) -> tuple[Any, Terms, jax.Array]:
    """The gradient of sum_k c_k T_k / C_k, the terms, and whether every C_k is 0.

    `whole` adds up over devices, each of which has rows of its own.
    """
    # Only the counts of this call are read: the compiler drops everything else of it.
    shape = terms_of(selected, *data)
    if unknown := coefficients.keys() - shape.keys():
        raise UserError(f"no term {sorted(unknown)[0]!r}; the objective gives {', '.join(shape)}")
    counts = whole({name: shape[name].count for name in coefficients})
    scales = {
        name: c / jnp.where(counts[name] == 0, 1, counts[name]) for name, c in coefficients.items()
    }

    def scaled(selected: Any, *part: Any) -> tuple[jax.Array, Terms]:
        terms = terms_of(selected, *part)
        return jnp.asarray(sum(s * terms[name].total for name, s in scales.items())), terms

    gradient = jax.grad(scaled, has_aux=True)
    parts = _micro_batches(data, accumulate)
    grads, terms = whole(_add_up(gradient, selected, shape, parts))
    return grads, terms, jnp.all(jnp.stack([count == 0 for count in counts.values()]))


def _add_up(gradient: Callable, selected: Any, terms: Terms, slices: Any) -> tuple[Any, Terms]:
    """Adds gradients and terms over micro-batches; `terms` tells names and dtypes."""
    number = jax.tree.leaves(slices)[0].shape[0]
    if number == 1:
        return gradient(selected, *jax.tree.map(lambda array: array[0], slices))

    def body(total: tuple[Any, Terms], part: Any) -> tuple[tuple[Any, Terms], None]:
        grads, terms = gradient(selected, *part)
        return (jax.tree.map(jnp.add, total[0], grads), add(total[1], terms)), None

    return jax.lax.scan(body, jax.tree.map(jnp.zeros_like, (selected, terms)), slices)[0]


def _apply(
    optimizer: optax.GradientTransformation, selected: Any, opt_state: Any, grads: Any, refused: Any
) -> tuple[Any, Any, jax.Array]:
    """One update, or the old values bit for bit: (parameters, optimiser state, learning rate)."""

    def update() -> tuple[Any, Any]:
        changes, new_state = optimizer.update(grads, opt_state, selected)
        return optax.apply_updates(selected, changes), new_state

    # A branch, not a `where` on every leaf, which takes XLA several times longer to compile.
    selected, opt_state = jax.lax.cond(refused, lambda: (selected, opt_state), update)
    return selected, opt_state, learning_rate(opt_state)
