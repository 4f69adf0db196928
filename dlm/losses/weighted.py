"""A weighted sum of token losses on one forward pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dlm.core.mean import Mean
from dlm.losses.api import (
    Aux,
    Losses,
    Parts,
    asks_for_previous,
    covers,
    reads_previous,
    supervised_weights,
    told_apart,
)


def _covered_by_any(targets: jax.Array, *, terms: Losses) -> jax.Array:
    one = jnp.ones(targets.shape)
    covered = [supervised_weights(term.loss, targets, one) > 0 for term in terms]
    return jnp.any(jnp.stack(covered), axis=0)


def _any_reads_previous(*, terms: Losses) -> bool:
    return any(asks_for_previous(term.loss) for term in terms)


@reads_previous(_any_reads_previous)
@covers(_covered_by_any)
def weighted(logits: jax.Array, targets: jax.Array, aux: Aux, *, terms: Losses) -> Parts:
    """Computes a weighted sum of token losses.

        loss_i = sum_k w_k l_k,i      over the terms k that speak about target i

    The logits are made once. The mean is over the targets that any term speaks about, so with terms
    of different targets the loss is sum_k w_k T_k / C with one C; each `term:NAME/loss` is a mean
    over the targets of its own, T_k / C_k, unweighted by w_k.

    Args:
      logits: [N, V] any float type.
      targets: [N] int32 in [0, V).
      aux: what the terms read.
      terms: in `loss.args` `{name: weight}`, or `{name: {"weight": w, hyper-parameter: value}}`.

    Returns:
      Losses [N], and each term's own by its name.
    """
    parts = {}
    for term in terms:
        losses = told_apart(term.loss(logits, targets, aux)).losses
        covered = supervised_weights(term.loss, targets, jnp.ones_like(losses))
        parts[term.name] = Mean(jnp.where(covered > 0, losses, 0), covered)
    total = jnp.sum(jnp.stack([t.weight * parts[t.name].total for t in terms]), axis=0)
    return Parts(total, parts)
