"""Binary cross-entropy between two named tokens, with its analytic gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError
from dlm.losses.api import Aux, Token, covers


def _is_either(targets: jax.Array, *, positive: Token, negative: Token) -> jax.Array:
    return (targets == positive) | (targets == negative)


@covers(_is_either)
def binary_cross_entropy(
    logits: jax.Array, targets: jax.Array, aux: Aux, *, positive: Token, negative: Token
) -> jax.Array:
    """Computes the binary cross-entropy of one logit, the difference of two tokens' logits.

    With z_i = logits_i[positive] - logits_i[negative], p_i = 1 / (1 + exp(-z_i)) and
    y_i = 1 where the target is `positive`, 0 where it is `negative`:

        loss_i = -[y_i log p_i + (1 - y_i) log(1 - p_i)]
        d loss_i / d theta = -(y_i / p_i - (1 - y_i) / (1 - p_i)) d p_i / d theta,
        d p_i / d z_i = p_i (1 - p_i),   so   d loss_i / d z_i = p_i - y_i

    computed as softplus(-z_i) or softplus(z_i): no p of 0 or 1 is ever divided by. A target that is
    neither token is not a yes-or-no question: it has no loss, no gradient and, through `covers`, no
    weight, so the mean is over the answers alone.

    Args:
      logits: [N, V] any float type; computed in at least float32.
      targets: [N] int32 in [0, V).
      aux: not used.
      positive: the token that stands for yes; by its text in `loss.args`.
      negative: the token that stands for no.

    Returns:
      [N] float32 (float64 for float64 logits), in nats; 0 where the target is neither.

    Raises:
      UserError: the two tokens are one.

    Example:
      >>> logits = jnp.array([[2.0, 1.0, 0.0]])
      >>> loss = binary_cross_entropy(logits, jnp.array([0]), None, positive=0, negative=1)
      >>> print(f"{loss[0]:.4f}")
      0.3133

    Source: Cox 1958; the gradient in p as in Bishop 2006, equation 4.90 and the text after it.
    """
    if positive == negative:
        raise UserError("loss.args: positive and negative are one token; name two")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    losses = _binary(logits[:, positive] - logits[:, negative], targets == positive)
    return jnp.where(_is_either(targets, positive=positive, negative=negative), losses, 0)


@jax.custom_vjp
def _binary(logit: jax.Array, is_positive: jax.Array) -> jax.Array:
    return _forward(logit, is_positive)[0]


def _forward(
    logit: jax.Array, is_positive: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    signed = jnp.where(is_positive, -logit, logit)
    return jax.nn.softplus(signed), (signed, is_positive)


def _backward(
    residuals: tuple[jax.Array, jax.Array], cotangents: jax.Array
) -> tuple[jax.Array, None]:
    signed, is_positive = residuals
    slope = jax.nn.sigmoid(signed)  # 1 - p for y = 1, p for y = 0: exact where p - y would cancel
    return cotangents * jnp.where(is_positive, -slope, slope), None


_binary.defvjp(_forward, _backward)
