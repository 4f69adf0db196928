"""Softmax cross-entropy with its analytic gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dlm.losses.api import Aux


def cross_entropy(logits: jax.Array, targets: jax.Array, aux: Aux) -> jax.Array:
    """Computes the negative log-likelihood of each target.

    With logits z_i, p_i = softmax(z_i) and target y_i:

        loss_i = -log p_i[y_i] = log sum_k exp(z_i[k] - m_i) - (z_i[y_i] - m_i)
        d loss_i / d z_i[k] = p_i[k] - 1[k = y_i]

    where the maximum m_i = max_k z_i[k] stands on both sides, so that a loss near 0 stays exact for
    logits of 1e4.

    Args:
      logits: [N, V] any float type; computed in at least float32.
      targets: [N] int32 in [0, V).
      aux: not used.

    Returns:
      [N] float32 (float64 for float64 logits), in nats.

    Example:
      >>> loss = cross_entropy(jnp.array([[2.0, 1.0, 0.0]]), jnp.array([0]), None)
      >>> print(f"{loss[0]:.4f}")
      0.4076

    Source: Bridle 1990; the gradient is that of Bishop 2006, equation 4.109.
    """
    return _cross_entropy(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), targets)


@jax.custom_vjp
def _cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return _forward(logits, targets)[0]


_Residuals = tuple[jax.Array, jax.Array, jax.Array]


def _forward(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, _Residuals]:
    peak = jnp.max(logits, axis=-1)
    powers = jnp.exp(logits - peak[:, None])  # kept: the gradient needs no second exponential
    total = jnp.sum(powers, axis=-1)
    target_logits = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return jnp.log(total) - (target_logits - peak), (powers, total, targets)


def _backward(residuals: _Residuals, cotangents: jax.Array) -> tuple[jax.Array, None]:
    powers, total, targets = residuals
    is_target = jnp.arange(powers.shape[-1]) == targets[:, None]
    at_target = jnp.where(is_target, cotangents[:, None], 0)
    return powers * (cotangents / total)[:, None] - at_target, None


_cross_entropy.defvjp(_forward, _backward)
