"""Dropout whose zeros depend on the row's own key and the site, and on nothing else."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array, lax


def dropout(x: Array, keys: Array, site: int | Array, rate: float) -> Array:
    """Zeroes a share of the elements and scales the rest up.

    The share is n/256 with n = round(256 rate), for one random byte decides each element (four
    draws from each 32-bit word); what stays is multiplied by 256 / (256 - n), so the expectation
    is exactly x.

    Args:
      x: [B, T, D] float.
      keys: [B] typed keys, one a row: a row's zeros are the same in any micro-batch or device.
      site: number of the place in the model; different places draw different zeros.
      rate: in [1/512, 511/512).

    Returns:
      [B, T, D], dtype of x.
    """
    dropped = round(256 * rate)
    size = math.prod(x.shape[1:])

    def draw(key: Array) -> Array:
        return jax.random.bits(jax.random.fold_in(key, site), (-(-size // 4),))

    words = jax.vmap(draw)(keys)
    draws = lax.bitcast_convert_type(words, jnp.uint8).reshape(len(keys), -1)[:, :size]
    kept = draws.reshape(x.shape) >= dropped
    return jnp.where(kept, x * (256 / (256 - dropped)), 0)
