"""Response selection: the right one of some candidates, by the model's own log probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dlm.losses.api import SequenceAux
from dlm.losses.sequence import same_group


def candidates(
    log_probs: jax.Array, aux: SequenceAux, *, per_token: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropy of the right candidate among all, on the right one's segment.

    With log pi(c|x) the log probability of candidate c and |c| its supervised tokens:

        s_c = log pi(c|x), or log pi(c|x) / |c| per token
        loss = -log [exp(s_right) / sum_c exp(s_c)]
        d loss / d s_c = softmax(s)_c - 1[c is right]

    Args:
      log_probs: [U] float32, log pi.
      aux: `pair_ids` (the group of candidates), `chosen` (the right one), `lengths`.
      per_token: scores are means over tokens: a long candidate is not worse for its length.

    Returns:
      values [U] in nats, 0 on wrong candidates; weights [U], 1 on the right ones and 0 elsewhere.

    Example:
      >>> aux = SequenceAux(jnp.array([5, 5, 5]), jnp.array([True, False, False]), jnp.ones(3))
      >>> values, weights = candidates(jnp.array([2.0, 1.0, 0.0]), aux)
      >>> print(f"{values[0]:.4f}", weights.tolist())
      0.4076 [1.0, 0.0, 0.0]

    Source: the next-utterance loss of Wolf et al. 2019, arXiv:1901.08149, section 3.2, whose scores
    come from a head of their own; here they are the log probabilities.
    """
    scores = log_probs / jnp.maximum(aux.lengths, 1) if per_token else log_probs
    # Differences first: a loss near 0 stays exact for log probabilities of -1e4.
    ahead = jnp.where(same_group(aux), scores[None, :] - scores[:, None], -jnp.inf)
    values = jax.nn.logsumexp(ahead, axis=-1)
    return jnp.where(aux.chosen, values, 0), jnp.asarray(aux.chosen, log_probs.dtype)
