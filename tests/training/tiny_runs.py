"""A tiny run for the tests of the loop: a model and its step, batches by number, a workdir."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlm.core.mean import Mean
from dlm.core.paths import flatten
from dlm.data.batch import Batch
from dlm.losses.api import Context
from dlm.losses.objective import Terms
from dlm.training.checkpoints import Checkpoints
from dlm.training.feed import AHEAD
from dlm.training.log import METRICS_FILE, MetricsLog, read_metrics
from dlm.training.loop import TrainConfig, lower_is_better, run
from dlm.training.optimizer import OptimizerConfig, make_optimizer, resolve_trainable
from dlm.training.step import State, TrainStep, init_state, make_train_step
from dlm.training.tracker import Tracker

VOCABULARY, ROWS, LENGTH = 17, 4, 12
COUNTS = (2, 7, 0, 3)  # supervised targets of each row, in any order; half of it in odd steps
POISON = VOCABULARY - 1  # as first token of a batch, it makes one leaf's gradient NaN
TIMINGS = ("train/tokens_per_second", "train/supervised_tokens_per_second", "train/data_wait")
OPTIMIZER = OptimizerConfig(learning_rate=0.05, warmup=2)
Evaluate = Callable[[Any], Mapping[str, float]]


def objective(params: Any, batch: Batch, context: Context) -> Terms:
    """A bigram model with noise of each row's key; a second term counts fewer tokens."""
    noise = jax.vmap(lambda key: jax.random.normal(key, (VOCABULARY,)))(context.key)
    logits = params["scale"] * params["table"][batch.tokens] + 0.1 * noise[:, None]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    harm = jnp.where(batch.tokens[0, 0] == POISON, jnp.nan, 0) * params["scale"].sum()
    odd = batch.loss_weights * (batch.targets % 2)
    return {
        "loss": Mean(jnp.sum(batch.loss_weights * losses) + harm, jnp.sum(batch.loss_weights)),
        "odd": Mean(jnp.sum(odd * losses), jnp.sum(odd)),
    }


@cache
def make_step(accumulate: int) -> TrainStep:
    """The compiled step of all tiny runs."""
    return make_train_step(objective, optimizer(), trainable=trainable(), accumulate=accumulate)


@cache
def _params() -> dict[str, jax.Array]:
    table = jax.random.normal(jax.random.key(0), (VOCABULARY, VOCABULARY))
    return {"scale": jnp.ones(VOCABULARY), "table": table}


@cache
def trainable() -> dict[str, bool]:
    return resolve_trainable(((r".*", True),), _params())


@cache
def optimizer() -> optax.GradientTransformation:
    return make_optimizer(OPTIMIZER, 60, _params())


def fresh_state() -> State:
    """The state before the first step, the same each time; a copy, as the step donates it."""
    params = jax.tree.map(jnp.array, _params())
    state = init_state(params, optimizer(), trainable(), jax.random.key(1))
    return jax.device_put(state, jax.devices()[0])  # as a restored one is: one compilation for both


class Killed(BaseException):
    """Ends a run at once, as a kill does: nothing is saved any more."""


class Numbered:
    """batch(step) as a function of the step; notes which are fetched.

    Args:
      empty: steps without a supervised token.
      poisoned: steps whose gradient is not finite.
      stop_at: a signal comes just before this step.
      kill_at: the run ends just before this step.
      cycle: steps after which the batches come again.
    """

    def __init__(
        self,
        *,
        empty: Collection[int] = (),
        poisoned: Collection[int] = (),
        stop_at: int | None = None,
        kill_at: int | None = None,
        number: signal.Signals = signal.SIGTERM,
        cycle: int = 1000,
    ) -> None:
        self.empty, self.poisoned = empty, poisoned
        self.stop_at, self.kill_at, self.number = stop_at, kill_at, number
        self.cycle = cycle
        self.fetched: list[int] = []

    def batch(self, step: int) -> Batch:
        random = np.random.default_rng(step % self.cycle)
        shape = (ROWS, LENGTH)
        counts = random.permutation(COUNTS) // (1 + step % 2) * (step not in self.empty)
        tokens = random.integers(0, POISON, shape).astype(np.int32)
        tokens[0, 0] = POISON if step in self.poisoned else 0
        where = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
        segments = (where < 2 + random.integers(7, LENGTH - 1, (ROWS, 1))).astype(np.int32)
        return Batch(
            tokens=tokens,
            targets=random.integers(0, POISON, shape).astype(np.int32),
            loss_weights=(where < counts[:, None]).astype(np.float32),
            segment_ids=segments,
            positions=where,
            channel_ids=np.full(shape, 10, np.int32),
            turn_ids=np.zeros(shape, np.int32),
            dialogue_ids=10 * step + np.arange(ROWS, dtype=np.int32)[:, None],
            task_ids=np.zeros((ROWS, 1), np.int32),
        )

    def iterate(self, start: int, stop: int | None = None) -> Iterator[Batch]:
        assert stop is None
        for step in itertools.count(start):
            self.fetched.append(step)
            now = step - AHEAD  # the step that is done next
            if now == self.stop_at:
                os.kill(os.getpid(), self.number)
            if now == self.kill_at:
                raise Killed
            yield self.batch(step)


def fixed_point(params: Any) -> dict[str, float]:
    """An evaluation that is a function of the parameters."""
    return {"validation/loss": float(jnp.sum(jnp.abs(params["table"])))}


class Scripted:
    """An evaluation whose figure of the metric comes from a list."""

    def __init__(self, *values: float, metric: str = "validation/loss") -> None:
        self.values, self.metric = list(values), metric

    def __call__(self, params: Any) -> dict[str, float]:
        return {self.metric: self.values.pop(0)}


def train(
    workdir: Path,
    batches: Numbered,
    config: TrainConfig,
    *,
    total: int,
    evaluate: Evaluate = fixed_point,
    step: TrainStep | None = None,
    guard: str = "allow",
) -> tuple[State, Tracker]:
    """Starts the run of a workdir, or goes on with it; everything is made anew but the step.

    `guard` is JAX's transfer guard around the loop.
    """
    better = lower_is_better(config.metric)
    with Checkpoints(workdir / "checkpoints", lower_is_better=better) as checkpoints:
        state, tracker = fresh_state(), Tracker()
        restored = checkpoints.latest_good()
        if restored is not None:
            state = checkpoints.restore(restored, state)
            tracker = Tracker.load(checkpoints.extra(restored))
        with MetricsLog(workdir, restored=restored) as log, jax.transfer_guard(guard):
            state = run(
                step or make_step(1),
                state,
                batches,
                config=config,
                total_updates=total,
                tracker=tracker,
                evaluate=evaluate,
                checkpoints=checkpoints,
                log=log,
                loss="bigram",
            )
    return state, tracker


def lines(workdir: Path, *, evaluations: bool | None = None) -> list[dict[str, Any]]:
    """The log without its timings: every line, or those (not) of evaluations."""
    rows = [
        {name: value for name, value in row.items() if name not in TIMINGS}
        for row in read_metrics(workdir / METRICS_FILE)
    ]
    if evaluations is None:
        return rows
    return [row for row in rows if ("train/learning_rate" in row) != evaluations]


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def bits(state: State) -> dict[str, bytes]:
    """Every leaf of a state as comparable bytes."""
    leaves = {"key": jax.random.key_data(state.key), "step": state.step, "updates": state.updates}
    leaves |= flatten(state.params)
    leaves |= {f"opt/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(state.opt_state))}
    return {path: np.asarray(leaf).tobytes() for path, leaf in leaves.items()}
