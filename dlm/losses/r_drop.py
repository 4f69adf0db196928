"""R-Drop: the same text is read twice under dropout, and the two readings are to agree."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.data.batch import Batch
from dlm.losses.api import Aux, Context, Parts
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.divergence import divergence
from dlm.losses.head import Other
from dlm.losses.objective import Terms, more_keys, token_terms
from dlm.models.decoder import Model


def r_drop(
    params: Any,
    batch: Batch,
    context: Context,
    *,
    model: Model,
    normaliser: str,
    chunk: int,
    train: bool,
    alpha: float = 1.0,
) -> Terms:
    """Computes the cross-entropy of two passes, and how far they are apart, over the targets.

    With p and q the softmaxes of the two passes, each with dropout of its own, and target y:

        loss = 1/2 (-log p[y] - log q[y]) + alpha 1/2 (KL(p || q) + KL(q || p))

    The paper adds the two cross-entropies; its authors' code takes their mean, as this does.
    Gradients go through both passes.

    Args:
      params: of the model.
      batch: what is read twice.
      context: `key` draws the dropout of both.
      model: with dropout.
      normaliser: see `objective.normalise`.
      chunk: positions whose logits exist at once.
      train: without training there is one reading, and this is cross-entropy.
      alpha: weight of the divergences, at least 0.

    Returns:
      The terms of `make_objective` (`token_accuracy` is that of the first pass), and
      `term:cross_entropy/loss` and `term:divergence/loss`, in nats.

    Raises:
      UserError: alpha is below 0, or the model has no dropout: nothing would differ.

    Source: Liang et al. 2021, arXiv:2106.14448, equations 2 to 4.
    """
    if alpha < 0:
        raise UserError(f"loss.args.alpha={alpha} must be at least 0")
    if train and not model.config.dropout:
        raise UserError("model.dropout=0: the two passes of r_drop would be one; give it dropout")
    read = (batch.tokens, batch.positions, batch.segment_ids)
    keys = (context.key, more_keys(context.key)) if train else (None, None)
    first, second = (model.hidden(params, *read, dropout_keys=key) for key in keys)
    return token_terms(
        partial(_agreement, alpha=alpha),
        model.head_kernel(params),
        first,
        batch,
        normaliser=normaliser,
        chunk=chunk,
        other=Other(second),
    )


def _agreement(logits: jax.Array, targets: jax.Array, aux: Aux, *, alpha: float) -> Parts:
    assert aux.others is not None
    passes = (logits, aux.others)
    certain = sum(cross_entropy(z, targets, aux) for z in passes) / 2
    apart = (divergence(*passes) + divergence(*passes[::-1])) / 2
    one = jnp.ones_like(apart)
    parts = {"cross_entropy": Mean(certain, one), "divergence": Mean(apart, one)}
    return Parts(certain + alpha * apart, parts)
