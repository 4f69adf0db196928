"""Scores a model on a split: every target once, teacher-forced, in batches of one shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dlm.core.progress import Progress
from dlm.data.batch import Batch
from dlm.data.pipeline import Batches
from dlm.data.store import Pieces
from dlm.evaluation.scores import Scores
from dlm.losses.head import token_scores
from dlm.models.decoder import Model

ScoreStep = Callable[[dict, Batch], tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class EvalConfig:
    """The `eval` section of a config.

    Attributes:
      splits: splits of the final report, each scored before and after training.
      at_most: dialogues a split that are scored, its first ones; 0 = all.
      dialogues: dialogues a split whose responses are generated and scored, its first ones.
      scorers: of generated responses: names of files of `dlm/evaluation/scorers`, or
        `package.module:function`; see `dlm.evaluation.scoring`.
      rollouts: dialogues a split replayed live, the model keeping its own history; needs `tools`.
      users: module of simulated users, see `dlm.dialogue.actions.User`; needs `tools`.
      simulations: dialogues a split whose goal such a user pursues, the first that have one.
      samples: dialogues shown side by side with the gold ones in the report.
    """

    splits: tuple[str, ...] = ("validation", "test")
    at_most: int = 0
    dialogues: int = 50
    scorers: tuple[str, ...] = ("exact_match", "bleu")
    rollouts: int = 0
    users: str = ""
    simulations: int = 0
    samples: int = 2


def make_score_step(model: Model, token_loss: Callable, *, chunk: int) -> ScoreStep:
    """Builds the compiled (params, batch) -> (losses, correct), both [B, T], of one batch.

    `losses` are the token losses (nats for cross-entropy, float32) and `correct` whether the target
    is the argmax, at positions of weight > 0; 0 and False elsewhere.
    """

    @jax.jit
    def score(params: dict, batch: Batch) -> tuple[jax.Array, jax.Array]:
        hidden = model.hidden(params, batch.tokens, batch.positions, batch.segment_ids)
        return token_scores(
            token_loss,
            model.head_kernel(params),
            hidden,
            batch.targets,
            batch.loss_weights,
            batch.channel_ids,
            batch.positions,
            chunk=chunk,
        )

    return score


def score_split(
    score_step: ScoreStep,
    params: dict,
    batches: Batches,
    pieces: Pieces,
    progress: Progress | None = None,
) -> Scores:
    """Teacher-forced scores of every piece of a split, summed exactly.

    Args:
      score_step: from `make_score_step`.
      params: the model's parameters.
      batches: one unshuffled epoch over `pieces`.
      pieces: the encoded split.
      progress: told of every batch.
    """
    scores = Scores(pieces.task_names)
    for step, batch in enumerate(batches.iterate(0, batches.num_steps(0))):
        losses, correct = jax.device_get(score_step(params, jax.tree.map(jnp.asarray, batch)))
        for row, members in enumerate(batches.row_pieces(step)):
            start = 0
            for index in members:
                piece = pieces.piece(index)
                stop = start + len(piece.tokens)
                scores.add(
                    piece,
                    losses[row, start:stop],
                    correct[row, start:stop],
                    dialogue=int(pieces.dialogue_index[index]),
                    task=int(pieces.task_id[index]),
                )
                start = stop
        if progress:
            progress.update(step + 1)
    return scores
