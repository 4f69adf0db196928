"""What a run trains with, made before its first step and without touching its workdir."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dlm.commands.setup import Setup
from dlm.core.errors import UserError
from dlm.data.batch import Batch
from dlm.data.pipeline import Batches
from dlm.losses.api import compares_pairs, loss_name, reads_reference
from dlm.losses.objective import make_objective
from dlm.models.decoder import scanned_apart
from dlm.training.mesh import make_placer, own_rows, param_shardings, state_shardings
from dlm.training.optimizer import make_optimizer, resolve_trainable
from dlm.training.step import State, TrainStep, init_state, make_train_step


@dataclass(frozen=True)
class Training:
    """The parts of a run's training.

    Attributes:
      batches: the training batches by step, this process's rows of them.
      total: optimiser updates of the whole run.
      trainable: {path: bool} of the parameters.
      step: the compiled train step.
      make_state: parameters -> the state before the first step.
      shardings: where each leaf of the state lies.
      frozen: shapes, and where they lie, of the parameters that the step reads beside the state;
        None = none.
      place: puts a host's batch onto the devices.
    """

    batches: Batches
    total: int
    trainable: Mapping[str, bool]
    step: TrainStep
    make_state: Callable[[Any], State]
    shardings: State
    frozen: Any
    place: Callable[[Batch], Batch]


def build(setup: Setup, mesh: Mesh, batches: Batches, params: Any) -> Training:
    """Makes the parts of a run's training.

    Args:
      setup: of the run.
      mesh: the devices.
      batches: see `training_batches`.
      params: the initial parameters, or their shapes.
    """
    settings = setup.settings
    total = total_updates(setup, batches)
    place = make_placer(mesh, batches.rows)
    trainable = resolve_trainable(settings.train.trainable, params)
    optimizer = make_optimizer(settings.optimizer, total, params)
    loss, model = settings.loss, scanned_apart(setup.model, trainable)
    objective = make_objective(
        setup.loss,
        model,
        normaliser=loss.normaliser,
        chunk=loss.chunk,
        train=True,
        tasks=batches.pieces.task_names if setup.corpus.parts else (),
    )
    key = jax.random.key(settings.seed + 1)
    make_state = partial(init_state, optimizer=optimizer, trainable=trainable, key=key)
    lying = param_shardings(params, mesh, settings.mesh.rules)
    shardings = state_shardings(jax.eval_shape(make_state, params), lying)
    step = make_train_step(
        objective,
        optimizer,
        trainable=trainable,
        accumulate=settings.train.accumulate,
        shardings=shardings,
    )
    batches = batches.only(own_rows(mesh, batches.rows))
    frozen = setup.frozen.shapes(mesh)
    return Training(batches, total, trainable, step, make_state, shardings, frozen, place)


def training_batches(setup: Setup) -> Batches:
    """The shuffled training batches of a run; what a loss reads of a reference is 0 at first.

    Raises:
      UserError: the loss compares two endings, and a dialogue has more.
    """
    pieces = setup.pieces("train", evaluation=False)
    largest = np.diff(pieces.unit_starts)
    if compares_pairs(setup.loss) and largest.max(initial=0) > 2:
        index = int(pieces.dialogue_index[pieces.unit_starts[largest.argmax()]])
        raise UserError(
            f"loss {loss_name(setup.loss)!r} compares two endings, dialogue "
            f"{setup.split('train')[index].id} has {largest.max()}; take loss.name='candidates'"
        )
    batches = setup.batches(pieces, shuffle=True)
    if reads_reference(setup.loss):
        return batches.with_reference(np.zeros(len(pieces), np.float32))
    return batches


def total_updates(setup: Setup, batches: Batches) -> int:
    """Optimiser updates of the run, from `train.steps` or `train.epochs`.

    Raises:
      UserError: neither is given.
    """
    config = setup.settings.train
    if config.steps is not None:
        return config.steps
    if config.epochs is None:
        raise UserError("give train.steps or train.epochs, for instance --config.train.steps=1000")
    return max(1, batches.steps_of(config.epochs))


class Unclaimed(Setup):
    """The parts of a run that has no workdir yet: nothing there is read or written."""

    _claimed = False
