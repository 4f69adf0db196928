"""Scheduled sampling: the model learns to go on from what it wrote itself, more and more."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.data.batch import Batch
from dlm.losses.api import Aux, Context
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.head import linear_total
from dlm.losses.objective import Terms, more_keys, token_terms
from dlm.models.decoder import Model

DECAYS = ("inverse_sigmoid", "exponential", "linear")


def scheduled_sampling(
    params: Any,
    batch: Batch,
    context: Context,
    *,
    model: Model,
    normaliser: str,
    chunk: int,
    train: bool,
    k: float,
    decay: str = "inverse_sigmoid",
    slope: float = 0.0,
    least: float = 0.0,
) -> Terms:
    """Computes the cross-entropy after a history of which the model wrote a part.

    A first pass reads the gold text, without dropout, and says the best token after each position.
    A coin a token then decides whether the second pass, which is the one that is learned, reads the
    gold token, with the probability of `gold_share`, or the one of the first pass. Only tokens that
    the model itself has to write (learned targets) are ever replaced; targets stay gold, and no
    gradient goes through the choice.

    Args:
      params: of the model.
      batch: gold text.
      context: `updates` drives the schedule, `key` the coins.
      model: the model.
      normaliser: see `objective.normalise`.
      chunk: positions whose logits exist at once.
      train: without training all is gold, and this is cross-entropy.
      k: see `gold_share`.
      decay: see `gold_share`.
      slope: see `gold_share`.
      least: see `gold_share`.

    Returns:
      The terms of `make_objective` for the second pass, and `replaced`: tokens that the model wrote
      over tokens that it might have written.

    Raises:
      UserError: as `gold_share`.

    Source: Bengio et al. 2015, arXiv:1506.03099, section 2.4; two passes in place of a recurrence:
      Mihaylova and Martins 2019, arXiv:1906.07651, section 3 (argmax).
    """
    share = gold_share(context.updates, k=k, decay=decay, slope=slope, least=least)
    tokens, kernel = batch.tokens, model.head_kernel(params)
    read = (batch.positions, batch.segment_ids)
    asked = replaced = jnp.zeros(tokens.shape, bool)
    if train:
        fixed = jax.lax.stop_gradient(params)
        best = _best_tokens(model, fixed, batch, chunk)
        asked = _after((batch.loss_weights > 0).astype(jnp.int32)) > 0
        asked &= _after(batch.segment_ids) == batch.segment_ids
        draw = jax.vmap(lambda key: jax.random.uniform(key, tokens.shape[1:]))
        replaced = asked & (draw(more_keys(context.key)) >= share)
        tokens = jnp.where(replaced, _after(best), tokens)
    hidden = model.hidden(params, tokens, *read, dropout_keys=context.key if train else None)
    terms = token_terms(cross_entropy, kernel, hidden, batch, normaliser=normaliser, chunk=chunk)
    counts = (jnp.sum(x, dtype=jnp.float32) for x in (replaced, asked))
    return {**terms, "replaced": Mean(*counts)}


def gold_share(
    updates: Any,
    *,
    k: float,
    decay: str = "inverse_sigmoid",
    slope: float = 0.0,
    least: float = 0.0,
) -> jax.Array:
    """The probability that a token read is the gold one, after i updates.

        inverse_sigmoid   k / (k + e^(i / k))          k >= 1
        exponential       k^i                          k < 1
        linear            max(least, k - slope i)      slope > 0

    and never less than `least`.

    Args:
      updates: i, int scalar.
      k: of the formula; for the inverse sigmoid, in updates.
      decay: which of them.
      slope: of the linear one, an update.
      least: in 0..1.

    Returns:
      A float32 scalar in 0..1.

    Raises:
      UserError: an unknown decay, or a k, slope or least that the formula does not take.

    Example:
      >>> print(f"{gold_share(20, k=10.0):.5f}")
      0.57507

    Source: Bengio et al. 2015, arXiv:1506.03099, section 2.4.
    """
    if decay not in DECAYS:
        raise UserError(f"loss.args.decay={decay!r}: choose one of {', '.join(DECAYS)}")
    fits = {"inverse_sigmoid": k >= 1, "exponential": 0 < k < 1, "linear": k > 0 and slope > 0}
    if not fits[decay]:
        raise UserError(f"loss.args.k={k}, slope={slope}: {decay} does not fall with these")
    if not 0 <= least <= 1:
        raise UserError(f"loss.args.least={least} must be from 0 to 1")
    i = jnp.asarray(updates, jnp.float32)
    if decay == "inverse_sigmoid":
        share = jax.nn.sigmoid(jnp.log(k) - i / k)  # e^(i / k) itself would overflow
    else:
        share = jnp.power(k, i) if decay == "exponential" else k - slope * i
    return jnp.clip(share, least, 1.0)


def _best_tokens(model: Model, params: Any, batch: Batch, chunk: int) -> jax.Array:
    """The most likely token after each position of weight > 0: [B, T] int32, 0 elsewhere."""
    hidden = model.hidden(params, batch.tokens, batch.positions, batch.segment_ids)
    flat = hidden.reshape(-1, hidden.shape[-1])
    targets = batch.targets.reshape(-1)
    weights = jnp.asarray(batch.loss_weights).reshape(-1)
    aux, kernel = Aux(weights, targets, targets), model.head_kernel(params)
    _, scores = linear_total(_best, kernel, flat, targets, weights, aux, chunk=chunk)
    return scores.losses.astype(jnp.int32).reshape(batch.tokens.shape)


def _best(logits: jax.Array, targets: jax.Array, aux: Aux) -> jax.Array:
    """Token ids as float32, exact below 2^24: what the head collects of a chunk is a number."""
    return jnp.argmax(logits, axis=-1).astype(jnp.float32)


def _after(array: Any) -> jax.Array:
    """[B, T] moved on by one position, 0 in front."""
    return jnp.pad(jnp.asarray(array)[:, :-1], ((0, 0), (1, 0)))
