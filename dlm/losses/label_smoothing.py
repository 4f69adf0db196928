"""Cross-entropy against a target that is not quite certain."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError
from dlm.losses.api import Aux
from dlm.losses.cross_entropy import cross_entropy
from dlm.models.vocabulary import is_hidden

CONVENTIONS = ("all", "others")


def label_smoothing(
    logits: jax.Array, targets: jax.Array, aux: Aux, *, epsilon: float = 0.1, over: str = "all"
) -> jax.Array:
    """Computes the cross-entropy against a smoothed target distribution q.

    With K the tokens that may be written (hidden ones are in no sum):

        loss_i = -sum_k q_i[k] log p_i[k]         d loss_i / d z_i[k] = p_i[k] - q_i[k]

    Two conventions stand in the literature; they give the same family of losses, each with another
    meaning of epsilon:

        over="all"      q[k] = (1 - epsilon) 1[k = y] + epsilon / K     (Szegedy et al.; optax)
        over="others"   q[y] = 1 - epsilon, q[k] = epsilon / (K - 1)    (fairseq)

    Args:
      logits: [N, V] any float type; computed in at least float32.
      targets: [N] int32 in [0, V).
      aux: not used.
      epsilon: mass taken from the target, in 0..1.
      over: whom it is given to.

    Returns:
      [N] float32 (float64 for float64 logits), in nats. Its lowest value is q's entropy, not 0.

    Raises:
      UserError: epsilon beyond 0..1, or another convention.

    Example:
      >>> loss = label_smoothing(jnp.array([[2.0, 1.0, 0.0]]), jnp.array([0]), None, epsilon=0.1)
      >>> print(f"{loss[0]:.4f}")
      0.5076

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    if not 0 <= epsilon <= 1:
        raise UserError(f"loss.args.epsilon={epsilon} must be from 0 to 1")
    if over not in CONVENTIONS:
        raise UserError(f"loss.args.over={over!r}: choose one of {', '.join(CONVENTIONS)}")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    certain = cross_entropy(logits, targets, aux)
    hidden = is_hidden(logits)
    number = jnp.sum(~hidden, axis=-1)
    # log p_k - log p_y = z_k - z_y: differences of logits, so no large sum is taken from another.
    target_logits = jnp.take_along_axis(logits, targets[:, None], axis=-1)
    lower = jnp.sum(jnp.where(hidden, 0, target_logits - logits), axis=-1)
    mass = number if over == "all" else jnp.maximum(number - 1, 1)
    return certain + epsilon * lower / mass
