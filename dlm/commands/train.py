"""Fine-tunes a GPT on dialogues, and reports what changed.

    python run.py train --config=FILE[:ARG] [--config.a.b=VALUE] [--workdir=DIR]

The workdir (default `runs/NAME`) then holds checkpoints, metrics, predictions and `report.md`. The
same command resumes a run that was stopped.
"""

from __future__ import annotations

import jax

from dlm.commands.measure import Measure
from dlm.commands.setup import Options, Setup, parse_options
from dlm.core.errors import UserError
from dlm.training.optimizer import (
    make_optimizer,
    resolve_trainable,
)
from dlm.training.step import init_state

BEFORE = "before.json"


def run(argv: list[str]) -> int:
    """The verb `train`."""
    options = parse_options(argv)
    if options.rest:
        raise UserError(f"train does not know {options.rest[0]!r}; see python run.py train --help")
    train(options)
    return 0


def train(options: Options) -> dict[str, float]:
    """Trains, measures before and after, and writes the report; returns its figures."""
    setup = Setup(options)
    claim_workdir(setup)
    pieces = setup.pieces("train", evaluation=False)
    batches = setup.batches(pieces, shuffle=True)
    total = total_updates(setup, batches)

    params = setup.model.init(jax.random.key(setup.settings.seed))
    trainable = resolve_trainable(setup.settings.train.trainable, params)
    optimizer = make_optimizer(setup.settings.optimizer, total, params)
    introduce(setup, pieces, batches, params, trainable, total)

    measure = Measure(setup)
    before = measure_before(setup, measure, params)
    state = init_state(params, optimizer, trainable, jax.random.key(setup.settings.seed + 1))
    with open_checkpoints(setup) as checkpoints:
        state, tracker = resume(checkpoints, state)
        state = train_on(
            setup, measure, batches, optimizer, trainable, total, state, tracker, checkpoints
        )
        state = restore_best(checkpoints, tracker, state)
    after = measure.whole(state.params, setup.settings.eval.splits)
    return write_report(setup, pieces, before, after, tracker)
