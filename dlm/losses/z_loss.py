"""Cross-entropy that also keeps the softmax's normaliser near 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dlm.losses.api import Aux
from dlm.losses.cross_entropy import cross_entropy


def z_loss(
    logits: jax.Array, targets: jax.Array, aux: Aux, *, coefficient: float = 1e-4
) -> jax.Array:
    """Computes the cross-entropy plus coefficient * (log Z)^2, Z_i = sum_k exp(z_i[k]).

        d loss_i / d z_i[k] = p_i[k] - 1[k = y_i] + 2 coefficient log Z_i p_i[k]

    Cross-entropy does not see a constant added to all logits of a position; this does, so they do
    not drift to where bfloat16 has few digits.

    Args:
      logits: [N, V] any float type; computed in at least float32.
      targets: [N] int32 in [0, V).
      aux: not used.
      coefficient: of the second term.

    Returns:
      [N] float32 (float64 for float64 logits), in nats and coefficient times nats squared.

    Example:
      >>> loss = z_loss(jnp.array([[2.0, 1.0, 0.0]]), jnp.array([0]), None)
      >>> print(f"{loss[0]:.6f}")
      0.408186

    Source: Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, section 5.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_total = jax.nn.logsumexp(logits, axis=-1)
    return cross_entropy(logits, targets, aux) + coefficient * log_total**2
