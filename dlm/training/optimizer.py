"""The optimiser: clipping, AdamW or SGD, decoupled decay by path rules, and the schedule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlm.core.errors import UserError
from dlm.core.paths import Rules, describe, flatten, resolve, unflatten

SCHEDULES = ("cosine", "linear", "constant")
NEW_ROWS = re.compile(r"embedding/new_tokens|head/new_kernel")
DECAY_DEFAULTS: Rules[bool] = (
    (r"(.*/)?kernel", True),
    (r"embedding/tokens", True),
    (r".*", False),
)


@dataclass(frozen=True)
class OptimizerConfig:
    """The `optimizer` section of a config.

    Attributes:
      name: adamw or sgd.
      learning_rate: the peak, reached after warm-up.
      schedule: how it falls after warm-up: cosine, linear or constant.
      warmup: updates over which it rises linearly, the first having 1/warmup of it; below 1, the
        share of all updates.
      final_scale: share of the peak where the schedule ends.
      b1: decay of the first moment (adamw).
      b2: decay of the second moment (adamw).
      epsilon: added to the root of the second moment (adamw).
      momentum: decay of the sum of gradients (sgd); 0 = none.
      weight_decay: lambda of the decoupled decay, multiplied by the learning rate.
      clip_norm: largest norm of the whole gradient; None = no clipping.
      decay: ordered (regex over parameter paths, bool), asked before the built-in rules (kernels
        and the token embedding decay; norms, biases, positions and rows that were added to a
        vocabulary do not).
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.0
    final_scale: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.1
    clip_norm: float | None = 1.0
    decay: tuple[tuple[str, bool], ...] = ()


def make_optimizer(
    config: OptimizerConfig, total_updates: int, params: Mapping[str, Any]
) -> optax.GradientTransformation:
    """Builds the chain gradient -> clip -> direction d -> decay -> schedule.

    With g the clipped gradient, eta the learning rate of this update and lambda the decay (0 where
    the rules say so), one update is

        theta <- theta - eta d - eta lambda theta
        adamw:  m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
                d = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
        sgd:    d = g + momentum d_previous

    so plain SGD is theta <- theta - eta g - eta lambda theta.

    Args:
      config: the `optimizer` section.
      total_updates: updates of the whole run; the schedule ends there.
      params: nested dict of all parameters (arrays or shapes). The optimiser may be used on a
        trainable part of it.

    Raises:
      UserError: an unknown name, a figure out of range, or a decay rule that matches nothing.

    Source: AdamW, Loshchilov and Hutter 2019, algorithm 2, arXiv:1711.05101; here decay is
    multiplied by the peak learning rate too.
    """
    _check(config, total_updates)
    decays = resolve_decay(config, params)
    if config.name == "adamw":
        direction = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.epsilon)
    else:
        direction = optax.trace(config.momentum) if config.momentum else optax.identity()

    def mask(tree: Mapping[str, Any]) -> dict[str, Any]:
        return unflatten({path: decays[path] for path in flatten(tree)})

    return optax.chain(
        optax.identity()
        if config.clip_norm is None
        else optax.clip_by_global_norm(config.clip_norm),
        direction,
        optax.add_decayed_weights(config.weight_decay, mask),
        _descend(make_schedule(config, total_updates)),
    )


def make_schedule(config: OptimizerConfig, total_updates: int) -> optax.Schedule:
    """The learning rate as a function of the updates made so far.

    It rises as (u + 1) / warmup, then falls from the peak to `final_scale` of it over the remaining
    updates: as half a cosine, as a line, or not at all.
    """
    peak, warmup = config.learning_rate, warmup_updates(config, total_updates)
    remaining = total_updates - warmup
    fall = {
        "cosine": optax.cosine_decay_schedule(peak, remaining, alpha=config.final_scale),
        "linear": optax.linear_schedule(peak, peak * config.final_scale, remaining),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    if not warmup:
        return fall
    first = peak / warmup
    rise = optax.linear_schedule(first, peak + first, warmup)
    return optax.join_schedules([rise, fall], [warmup])


def warmup_updates(config: OptimizerConfig, total_updates: int) -> int:
    """The updates of warm-up; a share of the whole is rounded down."""
    if config.warmup < 1:
        return int(config.warmup * total_updates)
    return int(config.warmup)


def resolve_decay(config: OptimizerConfig, params: Mapping[str, Any]) -> dict[str, bool]:
    """Which leaves decay: `{path: bool}`, the config's rules before the built-in ones."""
    return resolve(config.decay, flatten(params), name="optimizer.decay", defaults=DECAY_DEFAULTS)


def resolve_trainable(rules: Rules[bool], params: Mapping[str, Any]) -> dict[str, bool]:
    """Which leaves are trained: `{path: bool}`.

    Rows that were added to a vocabulary always are, a mask never is, whatever the rules say.

    Raises:
      UserError: a rule that matches nothing, a leaf that no rule covers, or nothing to train.
    """
    flat = flatten(params)
    trainable = resolve(rules, flat, name="train.trainable")
    for path, leaf in flat.items():
        if NEW_ROWS.fullmatch(path) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            trainable[path] = NEW_ROWS.fullmatch(path) is not None
    if not any(trainable.values()):
        raise UserError("train.trainable: every parameter is frozen; let a rule say true")
    return trainable


def rule_table(resolved: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Formats resolved rules with the parameters they hold, for the log before the first step.

    A mask holds none.
    """
    sizes = {
        path: leaf.size if jnp.issubdtype(leaf.dtype, jnp.floating) else 0
        for path, leaf in flatten(params).items()
    }
    return describe(resolved, sizes)


class ScheduleState(NamedTuple):
    """The schedule's place: `updates` made so far, `learning_rate` of the last of them."""

    updates: jax.Array
    learning_rate: jax.Array


def _descend(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Multiplies by minus the scheduled rate, and keeps the rate for the log."""

    def rate_at(updates: jax.Array) -> jax.Array:
        return jnp.asarray(schedule(updates), float)

    def init(params: Any) -> ScheduleState:
        updates = jnp.zeros((), jnp.int32)
        return ScheduleState(updates, rate_at(updates))

    def update(changes: Any, state: ScheduleState, params: Any = None) -> tuple[Any, ScheduleState]:
        rate = rate_at(state.updates)
        changes = jax.tree.map(lambda change: -rate * change, changes)
        return changes, ScheduleState(state.updates + 1, rate)

    return optax.GradientTransformation(init, update)


def learning_rate(opt_state: Any) -> jax.Array:
    """The learning rate of the last update, from the state of `make_optimizer`'s chain."""
    return optax.tree.get(opt_state, "learning_rate")


def _check(config: OptimizerConfig, total_updates: int) -> None:
    if config.name not in ("adamw", "sgd"):
        raise UserError(f"optimizer.name={config.name!r}: choose adamw or sgd")
    if config.schedule not in SCHEDULES:
        raise UserError(
            f"optimizer.schedule={config.schedule!r}: choose one of {', '.join(SCHEDULES)}"
        )
    whole = config.warmup < 1 or config.warmup == int(config.warmup)
    if not 0 <= config.warmup < total_updates or not whole:
        raise UserError(
            f"optimizer.warmup={config.warmup:g} must be a share from 0 up to 1, or a whole number "
            f"below the run's {total_updates} updates"
        )
    if config.clip_norm is not None and config.clip_norm <= 0:
        raise UserError(f"optimizer.clip_norm={config.clip_norm}: positive, or None for none")
    for name in ("learning_rate", "weight_decay", "final_scale", "momentum"):
        if getattr(config, name) < 0:
            raise UserError(f"optimizer.{name}={getattr(config, name)}: must not be negative")
