"""Token unlikelihood: cross-entropy, and a price on writing again what was written."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dlm.losses.api import Aux, reads_previous
from dlm.losses.cross_entropy import cross_entropy

_LEAST = 1e-5  # of 1 - p, as in the authors' code: the price of one token stays below 12 nats


@reads_previous()
def unlikelihood(
    logits: jax.Array, targets: jax.Array, aux: Aux, *, alpha: float = 1.0
) -> jax.Array:
    """Computes the cross-entropy plus the unlikelihood of the earlier tokens of the dialogue.

    With C_i the set of tokens before target i in its segment, whoever said them, without y_i:

        loss_i = -log p_i[y_i] - alpha sum_{c in C_i} log(1 - p_i[c])

    1 - p is held at 1e-5 or above; where it is below, a token has no gradient by this term.

    Args:
      logits: [N, V] any float type; computed in at least float32.
      targets: [N] int32 in [0, V).
      aux: `previous` [N, P] int32, -1 where there is none.
      alpha: weight of the second term.

    Returns:
      [N] float32 (float64 for float64 logits), in nats.

    Source: Welleck et al. 2019, arXiv:1908.04319, equations 4 and 5.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    number, vocabulary = logits.shape
    assert aux.previous is not None
    places = jnp.where(aux.previous < 0, vocabulary, aux.previous)
    rows = jnp.arange(number)[:, None]
    said = jnp.zeros((number, vocabulary), bool).at[rows, places].set(True, mode="drop")
    said = said.at[jnp.arange(number), targets].set(False)
    otherwise = jnp.maximum(1 - jax.nn.softmax(logits, axis=-1), _LEAST)
    price = -jnp.sum(jnp.where(said, jnp.log(otherwise), 0), axis=-1)
    return cross_entropy(logits, targets, aux) + alpha * price
