"""Direct preference optimisation: the chosen ending above the rejected one, beside a reference."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dlm.losses.api import SequenceAux, needs
from dlm.losses.sequence import margins


@needs("pairs", "reference")
def dpo(
    log_probs: jax.Array, aux: SequenceAux, *, beta: float = 0.1
) -> tuple[jax.Array, jax.Array]:
    """Computes the DPO loss of each pair, on its chosen segment.

    With w the chosen and l the rejected ending of history x, pi the model and ref the model that
    training began with:

        h = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]
        loss = -log sigmoid(beta h)
        d loss / d log pi(w|x) = -beta sigmoid(-beta h) = -d loss / d log pi(l|x)

    Log probabilities are summed over the ending's tokens. Where the model is the reference, the
    loss is log 2.

    Args:
      log_probs: [U] float32, log pi.
      aux: `reference_log_probs` [U], `pair_ids`, `chosen`.
      beta: how dear it is to leave the reference, above 0.

    Returns:
      values [U] in nats, 0 on rejected segments; weights [U], 1 on chosen segments and 0 elsewhere.

    Example:
      >>> aux = SequenceAux(
      ...     jnp.array([3, 3]), jnp.array([True, False]), None, jnp.array([-11.0, -11.5])
      ... )
      >>> values, weights = dpo(jnp.array([-10.0, -12.0]), aux)
      >>> print(f"{values[0]:.4f}", weights.tolist())
      0.6210 [1.0, 0.0]

    Source: Rafailov et al. 2023, arXiv:2305.18290, equation 7.
    """
    assert aux.reference_log_probs is not None
    h = margins(log_probs - aux.reference_log_probs, aux)
    values = jnp.where(aux.chosen, jax.nn.softplus(-beta * h), 0)
    return values, jnp.asarray(aux.chosen, log_probs.dtype)
