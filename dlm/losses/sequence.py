"""The sequence level: losses of whole endings, which share a row with those they are compared to.

    log_probs[u] = sum_t w_t log p(target_t)        over the supervised targets t of segment u
    loss = sum_u weights[u] values[u] / sum_u weights[u]

A sequence loss is not linear in the token losses. Its gradient with respect to `log_probs` is what
weighs them, and is known only once all are there: the head makes the logits of the supervised
positions once for the value and once more for the gradient, chunk by chunk (`head.token_losses`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.data.batch import Batch
from dlm.losses.api import Aux, SequenceAux, compares_pairs, loss_name, reads_reference
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.head import token_losses
from dlm.models.vocabulary import Kernel


def segment_log_probs(
    kernel: jax.Array | Kernel, hidden: jax.Array, batch: Batch, *, chunk: int
) -> jax.Array:
    """Computes the log probability of each segment's supervised targets, times their weights.

    Args:
      kernel: [V, D], or in parts.
      hidden: [B, T, D].
      batch: targets, weights and segments.
      chunk: positions whose logits exist at once.

    Returns:
      [B, U] float32 (float64 for float64 hidden states), in nats; 0 where there is no segment.
    """
    weights, targets, channels, places = (
        jnp.reshape(x, -1)
        for x in (batch.loss_weights, batch.targets, batch.channel_ids, batch.positions)
    )
    flat, aux = hidden.reshape(-1, hidden.shape[-1]), Aux(weights, channels, places)
    losses = token_losses(cross_entropy, kernel, flat, targets, weights, aux, chunk=chunk)
    return -per_segment((weights * losses).reshape(batch.targets.shape), batch)


def per_segment(values: jax.Array, batch: Batch) -> jax.Array:
    """Sums [B, T] values over the segments of each row: [B, U]."""
    segments = batch.dialogue_ids.shape[1]
    add = partial(jax.ops.segment_sum, num_segments=segments + 1)
    return jax.vmap(add)(values, batch.segment_ids)[:, 1:]


def sequence_terms(
    loss: Callable[..., Any],
    kernel: jax.Array | Kernel,
    hidden: jax.Array,
    batch: Batch,
    *,
    chunk: int,
) -> dict[str, Mean]:
    """The terms of a sequence loss on given hidden states.

        loss                   as above
        choice_accuracy        groups whose preferred ending has the highest log probability
        preference_accuracy    the same of a loss of pairs; of equal ones each counts its share
        margin                 log p(chosen) - log p(rejected), for a loss of pairs
        reward_accuracy, reward_margin    these two of log p - reference log p, where that is read

    Args:
      loss: (log_probs [U], aux, *, hyper-parameters) -> values [U], weights [U]; of one row. The
        weights depend on aux alone.
      kernel: [V, D], or in parts.
      hidden: [B, T, D].
      batch: with `pair_ids` and `chosen`.
      chunk: positions whose logits exist at once.

    Raises:
      UserError: the batch holds no endings to compare, or the loss returns other shapes or types.
    """
    name = loss_name(loss)
    if batch.pair_ids is None:
        raise UserError(f"loss {name!r} compares endings, and these batches hold one of each only")
    if reads_reference(loss) and batch.reference_log_probs is None:
        raise UserError(f"loss {name!r} reads reference_log_probs, and these batches have none")
    log_probs = segment_log_probs(kernel, hidden, batch, chunk=chunk)
    reference = batch.reference_log_probs if reads_reference(loss) else None
    lengths = per_segment((batch.loss_weights > 0).astype(log_probs.dtype), batch)
    aux = SequenceAux(batch.pair_ids, batch.chosen, lengths, reference)
    values, weights = jax.vmap(partial(_checked, loss))(log_probs, aux)
    count = jnp.sum(jnp.asarray(batch.chosen, log_probs.dtype))

    def mean(of_row: Callable[..., jax.Array], scores: jax.Array) -> Mean:
        found = jax.vmap(of_row)(jax.lax.stop_gradient(scores), aux)
        return Mean(jnp.sum(jnp.where(aux.chosen, found, 0)), count)

    terms = {"loss": Mean(jnp.sum(weights * values), jnp.sum(weights))}
    if not compares_pairs(loss):
        return {**terms, "choice_accuracy": mean(hits, log_probs)}
    terms |= {"preference_accuracy": mean(hits, log_probs), "margin": mean(margins, log_probs)}
    if reference is not None:
        rewards = log_probs - reference
        terms |= {"reward_accuracy": mean(hits, rewards), "reward_margin": mean(margins, rewards)}
    return terms


def same_group(aux: SequenceAux) -> jax.Array:
    """Whether two segments of a row are endings of one history: [U, U] bool."""
    return aux.pair_ids[:, None] == aux.pair_ids[None, :]


def margins(scores: jax.Array, aux: SequenceAux) -> jax.Array:
    """What each of a pair scores above the other: [U] -> [U], differentiable."""
    other = same_group(aux) & ~jnp.eye(scores.size, dtype=bool)
    return scores - jnp.sum(jnp.where(other, scores[None, :], 0), axis=-1)


def hits(scores: jax.Array, aux: SequenceAux) -> jax.Array:
    """Whether each scores highest in its group, [U]; of n that are equal each gets 1 / n."""
    among = jnp.where(same_group(aux), scores[None, :], -jnp.inf)
    highest = jnp.max(among, axis=-1, keepdims=True)  # NaN where one is: nobody wins
    equal = jnp.sum(among == highest, axis=-1)
    return jnp.where(scores == highest[:, 0], 1 / jnp.maximum(equal, 1), 0).astype(scores.dtype)


def _checked(
    loss: Callable[..., Any], log_probs: jax.Array, aux: SequenceAux
) -> tuple[jax.Array, jax.Array]:
    values, weights = loss(log_probs, aux)
    for what, array in (("values", values), ("weights", weights)):
        if array.shape != log_probs.shape or array.dtype.name not in ("float32", "float64"):
            raise UserError(
                f"loss {loss_name(loss)!r} returned {what} {array.dtype}{list(array.shape)} for "
                f"{log_probs.size} segments; it must return one each, in at least float32"
            )
    return values, weights
