"""The train loop: one loop for everything; what varies is passed in.

Two counters run through it: `step` counts batches and drives the data
order and the random keys; `updates` counts optimiser updates and drives the schedule, the
intervals and the end of the run. They differ only where the step refused an update.
"""

from __future__ import annotations

import difflib
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import jax

from dlm.core.errors import UserError
from dlm.core.progress import Progress
from dlm.training.checkpoints import Checkpoints
from dlm.training.feed import feed
from dlm.training.log import MetricsLog
from dlm.training.processes import agreed
from dlm.training.step import State, StepMetrics
from dlm.training.tracker import Tracker
from dlm.training.window import Clock, describe, describe_nonfinite, keep_batch, nonfinite_parts

DTYPES = ("float32", "bfloat16")
NONFINITE = ("raise", "skip")
MAX_EMPTY = 1000  # steps of one log line without an update, after which a run is given up
EVALUATED = tuple(
    f"validation/{metric}"
    for metric in (
        *("loss", "token_accuracy", "response_accuracy"),
        *("preference_accuracy", "margin", "choice_accuracy"),
    )
)


@dataclass(frozen=True)
class TrainConfig:
    """The `train` section of a config.

    Attributes:
      steps: optimiser updates of the run; exactly one of `steps` and `epochs` is given.
      epochs: passes over the training data (a fraction is allowed).
      accumulate: micro-batches a step; the result is that of one batch (up to rounding).
      log_every: updates between two log lines.
      eval_every: updates between two evaluations, each followed by a checkpoint; None = at the
        end only.
      save_every: updates between two checkpoints beside those of evaluations; None = none.
      metric: the evaluation figure that names the best checkpoint, restored at the end.
      patience: evaluations without improvement of `metric` before the run stops; None = never.
      nonfinite: at a step whose loss or gradient is not finite, "raise", or "skip" it and count.
        Either way it updates nothing, and its batch is kept in the workdir.
      max_nonfinite: such steps in a row before the run is given up all the same.
      dtype: compute dtype; parameters, moments and losses stay float32.
      trainable: ordered (regex over parameter paths, bool); first match wins.
    """

    steps: int | None = None
    epochs: float | None = None
    accumulate: int = 1
    log_every: int = 20
    eval_every: int | None = None
    save_every: int | None = None
    metric: str = "validation/loss"
    patience: int | None = None
    nonfinite: str = "raise"
    max_nonfinite: int = 10
    dtype: str = "float32"
    trainable: tuple[tuple[str, bool], ...] = ((".*", True),)

    def __post_init__(self) -> None:
        intervals = ("log_every", "eval_every", "save_every", "patience", "max_nonfinite")
        for name in ("steps", "epochs", "accumulate", *intervals):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"train.{name}={value} must be above 0")
        if self.steps is not None and self.epochs is not None:
            problem = "train.steps and train.epochs are both given; unset one, for instance"
            raise UserError(f"{problem} --config.train.epochs=None")
        for name, choices in (("dtype", DTYPES), ("nonfinite", NONFINITE)):
            if getattr(self, name) not in choices:
                given = getattr(self, name)
                raise UserError(f"train.{name}={given!r}: choose one of {', '.join(choices)}")


class Batches(Protocol):
    """What the loop needs of the data: batch(step) is a pure function of the step."""

    def iterate(self, start: int, stop: int | None = None) -> Iterator[Any]:
        """Batches from `start` on."""
        ...


def lower_is_better(metric: str) -> bool:
    """Losses and perplexities fall; everything else is a share or a score and rises."""
    return metric.rsplit("/", 1)[-1] in ("loss", "perplexity")


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a request to stop, read between two steps.

    A second one acts at once, as it did before.
    """
    asked = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(*_: object) -> None:
        asked.append(True)
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        restore()


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; its state is saved and it will resume from there."""


def run(
    step: Callable[[State, Any], tuple[State, StepMetrics]],
    state: State,
    batches: Batches,
    *,
    config: TrainConfig,
    total_updates: int,
    tracker: Tracker,
    evaluate: Callable[[Any], Mapping[str, float]],
    checkpoints: Checkpoints,
    log: MetricsLog,
    loss: str,
    place: Callable[[Any], Any] = jax.device_put,
) -> State:
    """Trains until `total_updates`, patience or a signal ends it; the loop of every run.

    Evaluation and saving happen each `eval_every` updates and at the end, saving alone each
    `save_every`. The metrics of step n are read after step n + 1 was dispatched, so the device
    never waits for the log; where a decision hangs on them, at the end of an interval, they are
    read at once.

    Args:
      step: the compiled train step; the state is donated to it.
      state: initial or restored.
      batches: training batches by step.
      config: intervals, metric and patience.
      total_updates: optimiser updates of the whole run.
      tracker: new, or restored with the state; kept up to date.
      evaluate: parameters -> figures by name, `config.metric` among them.
      checkpoints: where to save.
      log: where figures go.
      loss: its name, for messages.
      place: puts a batch of host arrays onto the devices.

    Returns:
      The last state; the best one is the checkpoint of `tracker.best_step`.

    Raises:
      Interrupted: SIGINT or SIGTERM came; the state was saved first.
      UserError: a loss or gradient was not finite (see `TrainConfig.nonfinite`), the metric is not
        among the figures, or step after step has nothing to learn.
    """
    steps, updates = int(state.step), int(state.updates)
    evaluate_at = interval_end(updates, config.eval_every, total_updates)
    save_at = interval_end(updates, config.save_every, total_updates)
    lower = lower_is_better(config.metric)
    pending: deque[tuple[StepMetrics, Any, int]] = deque()
    clock = Clock()

    with Progress(total_updates, "training") as progress, stop_signals() as asked:
        asked_to_stop = agreed(asked)
        if updates < total_updates:
            progress.say("making the program of a step")
        for batch, placed in feed(batches.iterate(steps), place, clock):
            patient = config.patience is None or tracker.bad < config.patience
            if updates >= total_updates or not patient:
                break

            # Dispatch this step, then read the one before it.
            state, metrics = step(state, placed)
            steps += 1
            updates += 1  # in hope: a step that made no update is taken back when it is read
            pending.append((metrics, batch, steps))
            stopping = asked_to_stop()
            unread = 0 if stopping or updates >= min(evaluate_at, save_at) else 1
            while len(pending) > unread:
                read, read_batch, at = pending.popleft()
                measured, window = jax.device_get(read), tracker.window
                updates -= not window.add(measured)
                if line := _refused(measured, read_batch, at, config, tracker, log, loss):
                    progress.say(line)
                if window.empty == window.steps >= MAX_EMPTY:
                    raise UserError(
                        f"{MAX_EMPTY} steps in a row had nothing to learn; look at policy, weights "
                        "and loss.args"
                    )
                tracker.add_time(*clock.lap())
                full = window.updates >= config.log_every
                if full or (updates >= evaluate_at and not pending):
                    logged = tracker.close_window()
                    log.write(at, {"updates": updates - len(pending), **logged})
                    progress.update(updates, **shown(logged))
            progress.update(updates)

            # A full interval, every step of it read: evaluate, log, save.
            due = updates >= evaluate_at
            if due:
                figures = evaluate(state.params)
                tracker.note(look_up(figures, config.metric), steps, lower=lower)
                log.write(steps, {"updates": updates, **figures})
                extra = asdict(tracker)
                checkpoints.save(steps, state, extra=extra, metric=figures[config.metric])
                progress.say(describe(updates, figures, EVALUATED))
                evaluate_at = interval_end(updates, config.eval_every, total_updates)
                clock.skip()
            elif stopping or updates >= save_at:
                checkpoints.save(steps, state, extra=asdict(tracker))
            save_at = interval_end(updates, config.save_every, total_updates)
            if stopping:
                raise Interrupted
        if asked_to_stop():  # during the last evaluation
            raise Interrupted
    return state


def _refused(
    metrics: StepMetrics,
    batch: Any,
    step: int,
    config: TrainConfig,
    tracker: Tracker,
    log: MetricsLog,
    loss: str,
) -> str:
    """The line on a step that was not finite, "" where it was; keeps the step's batch.

    Raises:
      UserError: the config says so, or there were too many in a row.
    """
    parts = nonfinite_parts(metrics)
    if not parts:
        tracker.nonfinite = 0
        return ""
    tracker.nonfinite += 1
    path = keep_batch(log.path.parent, batch, step)
    line = describe_nonfinite(parts, batch, step, path, loss)
    if config.nonfinite == "raise":
        raise UserError(line)
    if tracker.nonfinite >= config.max_nonfinite:
        raise UserError(f"{line}; {tracker.nonfinite} such steps in a row")
    return line


def interval_end(updates: int, every: int | None, total: int) -> int:
    """The number of updates at which the interval after `updates` of them ends."""
    return min(total, (updates // every + 1) * every) if every else total


def shown(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures beside the progress bar."""
    names = ("loss", "tokens_per_second", "data_wait")
    return {name: figures[f"train/{name}"] for name in names if f"train/{name}" in figures}


def look_up(figures: Mapping[str, float], metric: str) -> float:
    """The value of `train.metric`.

    Raises:
      UserError: there is no such figure; names the nearest.
    """
    if metric not in figures:
        near = difflib.get_close_matches(metric, figures, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(figures)}"
        raise UserError(f"train.metric={metric!r} is not evaluated; {hint}")
    return figures[metric]
