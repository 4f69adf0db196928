"""Fine-tunes a GPT on dialogues, and reports what changed.

    python run.py train --config=FILE[:ARG] [--config.a.b=VALUE] [--workdir=DIR]

The workdir (default `runs/NAME`) then holds checkpoints, metrics, predictions and `report.md`. The
same command resumes a run that was stopped.
"""

from __future__ import annotations

import math
import shutil
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
from jax.sharding import Mesh

from dlm.commands.build import Training, build, total_updates, training_batches
from dlm.commands.environment import describe_environment
from dlm.commands.identity import FREE, IDENTITY_FILE, identify
from dlm.commands.measure import Measure
from dlm.commands.reference import REFERENCE, reference_log_probs
from dlm.commands.reporting import write_results
from dlm.commands.setup import Options, Setup, parse_options
from dlm.commands.start import (
    CHECKPOINTS,
    CONFIG_FILE,
    MODEL_FILE,
    TOKENIZER,
    model_config,
    source_digests,
)
from dlm.core.config import flat
from dlm.core.errors import UserError
from dlm.core.files import hold_folder, read_json, write_json
from dlm.corpora.notices import notices
from dlm.data.pipeline import Batches
from dlm.losses.api import reads_reference
from dlm.training import loop
from dlm.training.checkpoints import Checkpoints
from dlm.training.log import MetricsLog
from dlm.training.mesh import make_mesh, shaped
from dlm.training.optimizer import rule_table
from dlm.training.processes import from_first, is_first, joined, on_first
from dlm.training.step import State
from dlm.training.tracker import Tracker

BEFORE = "before.json"
FEW_UPDATES = 50


def run(argv: list[str]) -> int:
    """The verb `train`."""
    options = parse_options(argv)
    if options.rest:
        raise UserError(f"train does not know {options.rest[0]!r}; see python run.py train --help")
    train(options)
    return 0


def train(options: Options) -> dict[str, float]:
    """Trains, measures before and after, and writes the report; returns its figures.

    Raises:
      UserError: the workdir holds the run of another config, or another process works in it.
    """
    with joined(), ExitStack() as held:
        setup = Setup(options)
        # An unknown or unreadable source is refused before anything is written.
        model_config(setup.settings)
        mesh = make_mesh(setup.settings.mesh)
        from_first(lambda: held.enter_context(hold_folder(setup.workdir)))
        held.enter_context(jax.set_mesh(mesh))
        # Of several processes the first alone writes into the workdir; the others read it.
        scratch = held.enter_context(TemporaryDirectory())
        return _train(setup, mesh, setup.workdir if is_first() else Path(scratch))


def _train(setup: Setup, mesh: Mesh, logs: Path) -> dict[str, float]:
    settings = setup.settings
    print("\n".join(notices(setup.corpus)))
    from_first(lambda: claim_workdir(setup))
    batches = training_batches(setup)
    total_updates(setup, batches)  # refused before parameters are made
    shapes = jax.eval_shape(setup.model.init, jax.random.key(0))
    training = build(setup, mesh, batches, shapes)
    print(rule_table(training.trainable, shapes))
    for line in remarks(setup, batches, training.total):
        print(f"note: {line}")
    like = shaped(jax.eval_shape(training.make_state, shapes), training.shardings)

    measure = Measure(setup)
    if reads_reference(setup.loss):
        found = reference_log_probs(setup, mesh, measure, batches.pieces)
        training = replace(training, batches=training.batches.with_reference(found))
    checkpoints = Checkpoints(
        setup.workdir / CHECKPOINTS,
        digests={
            "data": setup.corpus.digest,
            "tokenizer": setup.tokenizer.digest,
            **source_digests(settings.init),
            **setup.frozen.digests(),
        },
        lower_is_better=loop.lower_is_better(settings.train.metric),
    )

    def evaluate(params: dict) -> dict[str, float]:
        return on_first(lambda params: measure.forced(params, "validation"), params)

    with checkpoints:
        tracker = Tracker()
        restored = checkpoints.latest_good()
        if restored is None:
            state = first_state(setup, mesh, training, measure)
        else:
            print(f"resuming {setup.workdir} at step {restored}")
            state = checkpoints.restore(restored, like)
            tracker = Tracker.load(checkpoints.extra(restored))
        with MetricsLog(logs, restored=restored) as log:
            if restored is None:  # a metric that is not there is refused before anything is learned
                figures = evaluate(state.params)
                loop.look_up(figures, settings.train.metric)
                log.write(0, {"updates": 0, **figures})
            state = loop.run(
                partial(training.step, frozen=setup.frozen.params(mesh)),
                state,
                training.batches,
                config=settings.train,
                total_updates=training.total,
                tracker=tracker,
                evaluate=evaluate,
                checkpoints=checkpoints,
                log=log,
                loss=settings.loss.name,
                place=training.place,
            )
        best, params = checkpoints.best_good(), state.params
        if best is not None and best != int(state.step):
            del state, params  # the best ones take their place
            params = checkpoints.restore(best, {"params": like.params}, partial=True)["params"]

    def report(params: dict) -> dict[str, float]:
        before = read_json(setup.workdir / BEFORE)
        after = measure.whole(params, settings.eval.splits)
        after.figures.update(tracker.figures())
        return write_results(setup, setup.workdir, before, after)

    return on_first(report, params)


def remarks(setup: Setup, batches: Batches, total: int) -> list[str]:
    """The shares of a mixture; what a user may not have meant, though a run is possible."""
    lines = [batches.draws.describe()] if batches.draws else []
    if total < FEW_UPDATES:
        bound = "epochs" if setup.settings.train.steps is None else "steps"
        updates = "1 update" if total == 1 else f"{total} updates"
        lines.append(f"only {updates}: a model learns little by so few; raise train.{bound}")
    if reads_reference(setup.loss) and setup.settings.model.dropout:
        lines.append("with model.dropout the model is not its own reference, even at first; take 0")
    if batches.pieces.counts.supervised.get("call") and not setup.settings.tools:
        lines.append("the dialogues hold calls and `tools` is empty: a conversation executes none")
    return lines


def first_state(setup: Setup, mesh: Mesh, training: Training, measure: Measure) -> State:
    """The state before the first step; what the model can do by then is kept in the workdir."""
    params = setup.initial_params(mesh)

    def keep(params: dict) -> None:
        figures = measure.before(params, setup.settings.eval.splits)
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        write_json(setup.workdir / BEFORE, finite)

    print("measuring the model before its training")
    on_first(keep, params)
    make_state = jax.jit(training.make_state, out_shardings=training.shardings, donate_argnums=0)
    return make_state(params)


def claim_workdir(setup: Setup) -> None:
    """Writes config and identity into the workdir; refuses one that holds another run.

    A workdir without a whole checkpoint holds no run yet: what an earlier start left there goes.
    Tokenizer and shape of the model are made and kept there.

    Raises:
      UserError: names the fields that differ, or the module whose source does.
    """
    identity, known = identify(setup), setup.workdir / IDENTITY_FILE
    workdir, path = setup.workdir, setup.workdir / CONFIG_FILE
    if any((workdir / CHECKPOINTS).glob("*/manifest.json")) and path.exists():
        saved, given = flat(read_json(path)), flat(setup.resolved)
        names = (saved.keys() | given.keys()) - FREE
        names -= {f"loss.args.{name}" for name in setup.frozen_workdirs}  # by their digests
        names = {name for name in names if not name.startswith("mesh.")}
        differing = sorted(name for name in names if saved.get(name) != given.get(name))
        if differing:
            name = differing[0]
            raise UserError(
                f"{workdir} holds another run: {name} was {saved.get(name)!r}, now "
                f"{given.get(name)!r} ({len(differing)} fields differ); use another --workdir"
            )
        for name in ("numerics", "sources"):  # the rest is held against the checkpoints
            if known.exists() and read_json(known)[name] != identity[name]:
                raise UserError(
                    f"{workdir} holds another run: its {name} ({', '.join(identity['sources'])}) "
                    "were changed since; use another --workdir"
                )
        return
    shutil.rmtree(workdir / TOKENIZER, ignore_errors=True)
    for name in (BEFORE, MODEL_FILE, REFERENCE):
        (workdir / name).unlink(missing_ok=True)
    write_json(path, setup.resolved)
    write_json(known, identity)
    write_json(workdir / "environment.json", describe_environment())
    _ = setup.tokenizer, setup.model  # made once, and saved
