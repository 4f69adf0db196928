"""Distillation: a model learns what a teacher, another run, says may come, beside the data."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.data.batch import Batch
from dlm.losses.api import Aux, Context, Frozen, Parts
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.divergence import divergence
from dlm.losses.head import Other
from dlm.losses.objective import Terms, token_terms
from dlm.models.decoder import Model

DIRECTIONS = ("forward", "reverse")


def distillation(
    params: Any,
    batch: Batch,
    context: Context,
    *,
    model: Model,
    normaliser: str,
    chunk: int,
    train: bool,
    teacher: Frozen,
    temperature: float = 1.0,
    alpha: float = 0.5,
    direction: str = "forward",
) -> Terms:
    """Computes a mix of cross-entropy and the divergence from a teacher, over the targets.

    With p = softmax(z / T) of the student's logits z, q = softmax(o / T) of the teacher's o, and
    target y, each supervised position has

        loss = (1 - alpha) (-log softmax(z)[y]) + alpha T^2 KL
        KL = KL(q || p)  forward: the student covers all that the teacher may say
        KL = KL(p || q)  reverse: the student says nothing that the teacher would not

    T^2 keeps the size of the gradient whatever T is. The teacher reads the same gold text, without
    dropout; its logits exist a chunk at a time, and it is never trained. MiniLLM takes the reverse
    divergence over texts that the student writes; here it is over those of the data.

    Args:
      params: of the student.
      batch: what both read.
      context: `frozen["teacher"]` holds the teacher's parameters.
      model: the student.
      normaliser: see `objective.normalise`.
      chunk: positions whose logits exist at once.
      train: whether the student has dropout.
      teacher: the workdir of a finished run with the same tokenizer; its best checkpoint is read.
      temperature: T > 0.
      alpha: share of the divergence, in 0..1.
      direction: "forward" or "reverse".

    Returns:
      The terms of `make_objective`, and `term:cross_entropy/loss` and `term:divergence/loss` (with
      its T^2), in nats.

    Raises:
      UserError: temperature, alpha or direction is none.

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2; reverse: Gu et al. 2023 (MiniLLM),
      arXiv:2306.08543, section 2.
    """
    if temperature <= 0:
        raise UserError(f"loss.args.temperature={temperature} must be above 0")
    if not 0 <= alpha <= 1:
        raise UserError(f"loss.args.alpha={alpha} must be from 0 to 1")
    if direction not in DIRECTIONS:
        raise UserError(f"loss.args.direction={direction!r}: choose one of {', '.join(DIRECTIONS)}")
    read = (batch.tokens, batch.positions, batch.segment_ids)
    hidden = model.hidden(params, *read, dropout_keys=context.key if train else None)
    taught = context.frozen["teacher"]
    other = Other(teacher.hidden(taught, *read), teacher.head_kernel(taught))
    lesson = partial(_lesson, temperature=temperature, alpha=alpha, direction=direction)
    kernel = model.head_kernel(params)
    return token_terms(
        lesson, kernel, hidden, batch, normaliser=normaliser, chunk=chunk, other=other
    )


def _lesson(
    logits: jax.Array,
    targets: jax.Array,
    aux: Aux,
    *,
    temperature: float,
    alpha: float,
    direction: str,
) -> Parts:
    assert aux.others is not None
    pair = (aux.others, logits) if direction == "forward" else (logits, aux.others)
    apart = temperature**2 * divergence(*pair, temperature=temperature)
    certain = cross_entropy(logits, targets, aux)
    one = jnp.ones_like(certain)
    parts = {"cross_entropy": Mean(certain, one), "divergence": Mean(apart, one)}
    return Parts((1 - alpha) * certain + alpha * apart, parts)
