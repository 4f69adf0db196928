"""From a loss to an objective: model, head, normaliser, and the terms that are logged."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import or_
from typing import Any

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.data.batch import Batch
from dlm.dialogue.encoding import CHANNEL_NAMES
from dlm.losses.api import (
    NORMALISERS,
    SUPPLIED,
    Aux,
    Context,
    TokenLoss,
    asks_for_previous,
    level,
    loss_name,
    supervised_weights,
)
from dlm.losses.head import Other, linear_total
from dlm.losses.sequence import sequence_terms
from dlm.losses.sweep import TokenScores
from dlm.models.decoder import Model
from dlm.models.vocabulary import Kernel

_MORE = 2**31 - 1  # dropout folds its keys with the numbers of its sites, which are far below
Terms = dict[str, Mean]
Scopes = list[tuple[str, Sequence[str], jax.Array]]  # kind, its names, and the id of each target
Objective = Callable[[Any, Batch, Context], Terms]


def make_objective(
    loss_fn: Callable[..., Any],
    model: Model,
    *,
    normaliser: str = "token",
    chunk: int = 0,
    train: bool,
    tasks: Sequence[str] = (),
) -> Objective:
    """Makes the objective of a bound loss: `(params, batch, context) -> {term: Mean}`.

    A token loss gives, with w_i the weight of target i and l_i its loss:

        loss             total = sum_i s_i l_i      count and s_i: see `normalise`
        channel:NAME/loss    the share of that total which falls on the channel, over sum s_i there
        token_accuracy   positions whose target is the argmax, over positions of weight > 0
        channel:NAME/token_accuracy    the same on the channel
        task:NAME/...        both, on the targets of the task's dialogues
        term:NAME/loss       sum_i s_i l_i of what the loss tells apart, over its own sum s_i

    A sequence loss gives the terms of `sequence.sequence_terms`.

    Only `loss` is differentiable. Every count depends on the batch alone, so that a step may add
    the counts of all micro-batches before it differentiates the first.

    Args:
      loss_fn: a loss of any level, its hyper-parameters bound.
      model: gives hidden states and the head's kernel.
      normaliser: what the mean is over, see `normalise`.
      chunk: positions whose logits exist at once.
      train: dropout on, drawn from `context.key`.
      tasks: name of each task id, for terms of their own; read by token losses.

    Raises:
      UserError: an unknown normaliser, a negative chunk, or a normaliser for a sequence loss.
    """
    if normaliser not in NORMALISERS:
        raise UserError(f"loss.normaliser={normaliser!r}: choose one of {', '.join(NORMALISERS)}")
    if chunk < 0:
        raise UserError(f"loss.chunk={chunk}: at least one position, or 0 for the device's own")
    kind = level(loss_fn)
    if kind == "objective":
        offered = dict(zip(SUPPLIED, (model, normaliser, chunk, train), strict=True))
        asked = inspect.signature(loss_fn).parameters
        return partial(loss_fn, **{name: offered[name] for name in SUPPLIED if name in asked})
    if kind == "sequence" and normaliser != "token":
        raise UserError(
            f"loss.normaliser={normaliser!r}: loss {loss_name(loss_fn)!r} is one of whole endings "
            "and weighs them itself; leave it at 'token'"
        )

    def objective(params: Any, batch: Batch, context: Context) -> Terms:
        keys = context.key if train else None
        hidden = model.hidden(
            params, batch.tokens, batch.positions, batch.segment_ids, dropout_keys=keys
        )
        kernel = model.head_kernel(params)
        if kind == "sequence":
            return sequence_terms(loss_fn, kernel, hidden, batch, chunk=chunk)
        return token_terms(
            loss_fn, kernel, hidden, batch, normaliser=normaliser, chunk=chunk, tasks=tasks
        )

    return objective


def token_terms(
    loss: TokenLoss,
    kernel: jax.Array | Kernel,
    hidden: jax.Array,
    batch: Batch,
    *,
    normaliser: str,
    chunk: int,
    other: Other | None = None,
    tasks: Sequence[str] = (),
) -> Terms:
    """The terms of a token loss on given hidden states: the building block of objectives.

    Args:
      loss: a bound token loss.
      kernel: [V, D], or in parts.
      hidden: [B, T, D].
      batch: targets and weights.
      normaliser: see `normalise`.
      chunk: positions whose logits exist at once.
      other: makes the logits that the loss reads as `aux.others`; hidden states [B, T, D'].
      tasks: name of each task id, for terms of their own.

    Returns:
      The terms that `make_objective` lists.
    """
    weights = supervised_weights(loss, batch.targets, batch.loss_weights)
    scale, count = normalise(normaliser, weights, batch.segment_ids, batch.turn_ids)
    targets, scale, channels = (x.reshape(-1) for x in (batch.targets, scale, batch.channel_ids))
    previous = earlier_tokens(batch) if asks_for_previous(loss) else None
    places = batch.positions.reshape(-1)
    aux = Aux(weights.reshape(-1), channels, places, previous)
    if other is not None:
        other = other._replace(hidden=_flat(other.hidden))
    total, scores = linear_total(
        loss, kernel, _flat(hidden), targets, scale, aux, chunk=chunk, other=other
    )
    scopes: Scopes = [("channel", CHANNEL_NAMES, channels)]
    if tasks:
        scopes.append(("task", tasks, task_of_targets(batch).reshape(-1)))
    return {"loss": Mean(total, count), **_logged(scores, scale, scopes)}


def task_of_targets(batch: Batch) -> jax.Array:
    """The task id of each target's dialogue: [B, T] int32, -1 on padding."""
    tasks = jnp.take_along_axis(batch.task_ids, jnp.maximum(batch.segment_ids - 1, 0), axis=1)
    return jnp.where(batch.segment_ids > 0, tasks, -1)


def _flat(hidden: jax.Array) -> jax.Array:
    return hidden.reshape(-1, hidden.shape[-1])


def more_keys(keys: jax.Array) -> jax.Array:
    """Keys [B] for what an objective draws beside the dropout of `context.key`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, _MORE)


def earlier_tokens(batch: Batch) -> jax.Array:
    """What stands before each target in its segment: [B * T, T] int32, -1 elsewhere.

    The target of position t is the next token, so tokens up to t itself are before it.
    """
    length = batch.tokens.shape[1]
    before = jnp.arange(length) <= jnp.arange(length)[:, None]
    same = batch.segment_ids[:, :, None] == batch.segment_ids[:, None, :]
    return jnp.where(same & before, batch.tokens[:, None, :], -1).reshape(-1, length)


def _logged(scores: TokenScores, scale: jax.Array, scopes: Scopes) -> Terms:
    def means(name: str, values: jax.Array, weights: jax.Array) -> Terms:
        terms: Terms = {}
        for kind, names, ids in scopes:
            member = ids[:, None] == jnp.arange(len(names))
            totals, counts = (
                jnp.sum(jnp.where(member, x[:, None], 0), 0) for x in (values, weights)
            )
            terms |= {
                f"{kind}:{one}/{name}": Mean(totals[i], counts[i]) for i, one in enumerate(names)
            }
        return terms

    parts = {
        f"term:{name}/loss": Mean(jnp.sum(scale * part.total), jnp.sum(scale * part.count))
        for name, part in scores.parts.items()
    }
    right, there = scores.correct.astype(scale.dtype), (scale > 0).astype(scale.dtype)
    return {
        "token_accuracy": Mean(jnp.sum(right), jnp.sum(there)),
        **parts,
        **means("loss", scale * scores.losses, scale),
        **means("token_accuracy", right, there),
    }


def normalise(
    normaliser: str, weights: jax.Array, segment_ids: jax.Array, turn_ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Folds a normaliser into linear weights: loss = sum_i scale_i l_i / count.

        token      scale = w                     count = sum w
        turn       scale = w / (sum of w over the unit)   count = units with some w > 0
        dialogue   the same, a unit being a segment of a row (a piece of a split dialogue is one)
        sequence   the same, a unit being a stretch of supervised targets (one message's output)
        risk       scale = w                     count = segments with some w > 0

    `risk` is the literature's (1/N) sum_i sum_j over N dialogues; turn, dialogue and sequence are
    means over units of the unit's weighted mean. No unit crosses a row, so counts of rows add.

    Args:
      normaliser: one of `NORMALISERS`.
      weights: [B, T] float32 >= 0.
      segment_ids: [B, T] int32, 0 = padding.
      turn_ids: [B, T] int32, turn of each target.

    Returns:
      scale [B, T] float32 and count, a float32 scalar; both depend on the batch alone.
    """
    if normaliser == "token":
        return weights, jnp.sum(weights)
    fields = {
        "turn": (segment_ids, turn_ids),
        "dialogue": (segment_ids,),
        "sequence": (segment_ids, turn_ids, weights > 0),
        "risk": (segment_ids,),
    }[normaliser]
    mass, units = _unit_mass(weights, fields)
    count = jnp.sum(units > 0, dtype=weights.dtype)
    if normaliser == "risk":
        return weights, count
    return jnp.where(weights > 0, weights / jnp.where(mass > 0, mass, 1), 0), count


def _unit_mass(weights: jax.Array, fields: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Sums weights over the runs of positions that agree in all fields, row by row.

    Returns:
      [B, T], the sum of each position's run; and [B, T], the sums themselves, one a run.
    """
    changes = reduce(or_, (field[:, 1:] != field[:, :-1] for field in fields))
    runs = jnp.pad(jnp.cumsum(changes, axis=1), ((0, 0), (1, 0)))
    sums = jax.vmap(partial(jax.ops.segment_sum, num_segments=weights.shape[1]))(weights, runs)
    return jnp.take_along_axis(sums, runs, axis=1), sums
