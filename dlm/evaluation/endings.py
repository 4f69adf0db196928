"""Scores of alternative endings: which of them a model finds more probable, and by how much."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dlm.core.mean import Mean
from dlm.data.batch import Batch
from dlm.data.pipeline import Batches
from dlm.data.store import Pieces
from dlm.dialogue.endings import ENDINGS, PREFERRED
from dlm.losses.sequence import segment_log_probs
from dlm.models.decoder import Model

LogProbStep = Callable[[dict, Batch], jax.Array]


def make_log_prob_step(model: Model, *, chunk: int) -> LogProbStep:
    """Builds the compiled (params, batch) -> log probabilities [B, U] of a batch's segments."""

    @jax.jit
    def log_probs(params: dict, batch: Batch) -> jax.Array:
        hidden = model.hidden(params, batch.tokens, batch.positions, batch.segment_ids)
        return segment_log_probs(model.head_kernel(params), hidden, batch, chunk=chunk)

    return log_probs


def piece_log_probs(step: LogProbStep, params: dict, batches: Batches) -> np.ndarray:
    """The log probability of what each piece supervises: [N] float32, in nats.

    Args:
      step: from `make_log_prob_step`.
      params: the model's parameters.
      batches: one unshuffled epoch.
    """
    found = np.full(len(batches.pieces), np.nan, np.float32)
    for number, batch in enumerate(batches.iterate(0, batches.num_steps(0))):
        scores = jax.device_get(step(params, jax.tree.map(jnp.asarray, batch)))
        for row, members in enumerate(batches.row_pieces(number)):
            found[members] = scores[row, : len(members)]
    return found


def ending_means(pieces: Pieces, log_probs: np.ndarray) -> dict[str, Mean]:
    """The figures of a split's groups of endings, in all and by task.

        preference_accuracy         pairs whose chosen ending is the more probable
        margin                      log p(chosen) - log p(rejected), in nats
        choice_accuracy             choices whose right candidate is the most probable (Hits@1)
        choice_accuracy_per_token   the same by log p over the candidate's number of tokens

    Of n endings that are equally probable each counts 1 / n: a model that knows nothing gets the
    chance level. What is not a number never wins.

    Args:
      pieces: of `groups`.
      log_probs: [N], of each piece.
    """
    starts = np.concatenate([[0], np.cumsum(pieces.lengths, dtype=np.int64)])
    learned = np.concatenate([[0], np.cumsum(pieces.arrays["loss_weights"] > 0)])
    tokens = np.diff(learned[starts])
    sums: dict[str, Mean] = {}
    for first, last in zip(pieces.unit_starts[:-1], pieces.unit_starts[1:], strict=True):
        kinds = [ENDINGS[i] for i in pieces.ending[first:last]]
        scores = np.asarray(log_probs[first:last], np.float64)
        (best,) = (place for place, kind in enumerate(kinds) if kind in PREFERRED)
        if "chosen" in kinds:
            (other,) = {0, 1} - {best}
            found = {"preference_accuracy": _hit(scores, best)}
            found["margin"] = float(scores[best] - scores[other])
        else:
            found = {"choice_accuracy": _hit(scores, best)}
            found["choice_accuracy_per_token"] = _hit(scores / tokens[first:last], best)
        task = pieces.task_names[pieces.task_id[first]]
        for scope in ("", f"task:{task}/") if task else ("",):
            for name, value in found.items():
                known = sums.get(scope + name, Mean(0.0, 0.0))
                sums[scope + name] = known.plus(Mean(value, 1.0))
    return sums


def _hit(scores: np.ndarray, place: int) -> float:
    highest = scores == scores.max()  # all False where one is NaN
    return float(highest[place] / max(1, highest.sum()))
