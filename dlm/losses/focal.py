"""Focal loss: cross-entropy that leaves alone what is known already."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError
from dlm.losses.api import Aux
from dlm.losses.cross_entropy import cross_entropy


def focal(
    logits: jax.Array, targets: jax.Array, aux: Aux, *, gamma: float = 2.0, alpha: float = 1.0
) -> jax.Array:
    """Computes the negative log-likelihood, weighted by how much of the mass is elsewhere.

    With c_i = -log p_i[y_i], the cross-entropy, and p_i = exp(-c_i):

        loss_i = alpha (1 - p_i)^gamma c_i
        d loss_i / d c_i = alpha (1 - p_i)^gamma + alpha gamma (1 - p_i)^(gamma - 1) p_i c_i

    1 - p is made as -expm1(-c), exact where p is nearly 1; there the second term is about
    alpha gamma c^gamma, which is 0 at c = 0 although autodiff would divide by 0 for gamma < 1.

    Args:
      logits: [N, V] any float type; computed in at least float32.
      targets: [N] int32 in [0, V).
      aux: not used.
      gamma: at least 0; 0 is cross-entropy.
      alpha: factor of every loss. The paper's alpha_t is one a class; here classes are tokens.

    Returns:
      [N] float32 (float64 for float64 logits), in nats.

    Raises:
      UserError: gamma is below 0.

    Example:
      >>> loss = focal(jnp.array([[2.0, 1.0, 0.0]]), jnp.array([0]), None, gamma=2.0)
      >>> print(f"{loss[0]:.4f}")
      0.0457

    Source: Lin et al. 2017, arXiv:1708.02002, equation 5.
    """
    if gamma < 0:
        raise UserError(f"loss.args.gamma={gamma} must be at least 0")
    return alpha * _focused(gamma, cross_entropy(logits, targets, aux))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _focused(gamma: float, nats: jax.Array) -> jax.Array:
    return _forward(gamma, nats)[0]


def _forward(gamma: float, nats: jax.Array) -> tuple[jax.Array, jax.Array]:
    return (-jnp.expm1(-nats)) ** gamma * nats, nats


def _backward(gamma: float, nats: jax.Array, cotangents: jax.Array) -> tuple[jax.Array]:
    elsewhere = -jnp.expm1(-nats)
    known = jnp.where(elsewhere > 0, elsewhere, 1)
    bend = jnp.where(elsewhere > 0, gamma * known ** (gamma - 1) * jnp.exp(-nats) * nats, 0)
    return (cotangents * (elsewhere**gamma + bend),)


_focused.defvjp(_forward, _backward)
