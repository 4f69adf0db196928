"""Kullback-Leibler divergence of two softmaxes, with its analytic gradient to both."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dlm.models.vocabulary import is_hidden


def divergence(p_logits: jax.Array, q_logits: jax.Array, *, temperature: float = 1.0) -> jax.Array:
    """Computes KL(p || q) at every position.

    With p = softmax(a / T), q = softmax(b / T) over the tokens that both may write (one that is
    hidden in either is in neither) and r_k = log p_k - log q_k:

        KL = sum_k p_k r_k      T d KL / d a_k = p_k (r_k - KL)      T d KL / d b_k = q_k - p_k

    Args:
      p_logits: a, [N, V] any float type; computed in at least float32.
      q_logits: b, likewise.
      temperature: T > 0.

    Returns:
      [N] float32 (float64 where either is float64), in nats.

    Source: Kullback and Leibler 1951; the temperature is that of Hinton et al. 2015, section 2.
    """
    wide = jnp.promote_types(jnp.promote_types(p_logits.dtype, q_logits.dtype), jnp.float32)
    hidden = is_hidden(p_logits) | is_hidden(q_logits)
    least = jnp.finfo(wide).min
    a, b = (
        jnp.where(hidden, least, logits.astype(wide) / temperature)
        for logits in (p_logits, q_logits)
    )
    return _divergence(a, b)


@jax.custom_vjp
def _divergence(a: jax.Array, b: jax.Array) -> jax.Array:
    return _forward(a, b)[0]


_Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _forward(a: jax.Array, b: jax.Array) -> tuple[jax.Array, _Residuals]:
    log_p, log_q = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    p, ratios = jnp.exp(log_p), log_p - log_q
    total = jnp.sum(p * ratios, axis=-1)
    return total, (p, jnp.exp(log_q), ratios, total)


def _backward(residuals: _Residuals, cotangents: jax.Array) -> tuple[jax.Array, jax.Array]:
    p, q, ratios, total = residuals
    c = cotangents[:, None]
    return c * p * (ratios - total[:, None]), c * (q - p)


_divergence.defvjp(_forward, _backward)
