"""The train loop: intervals, early stopping, what stops a run, and resuming to the bit."""

from __future__ import annotations

import json
import math
import signal
import threading
import traceback
from dataclasses import asdict, replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax._src.array import ArrayImpl  # where every read of a device's value passes

from dlm.core.errors import UserError
from dlm.core.paths import flatten
from dlm.training import window
from dlm.training.feed import AHEAD
from dlm.training.log import METRICS_FILE, read_metrics
from dlm.training.loop import Interrupted, TrainConfig, interval_end, lower_is_better
from dlm.training.step import make_train_step
from dlm.training.tracker import Tracker
from dlm.training.window import Window
from tests.training.tiny_runs import (
    POISON,
    Killed,
    Numbered,
    Scripted,
    bits,
    fresh_state,
    lines,
    make_step,
    objective,
    optimizer,
    saved_steps,
    train,
    trainable,
)

CONFIG = TrainConfig(log_every=3, eval_every=5)
EMPTY = (0, 4, 6, 7, 12)  # of the runs with empty steps: among them the first and two in a row


class Spy:
    """The step, noting what it was given and what it measured."""

    def __init__(self, accumulate: int = 1) -> None:
        self.step = make_step(accumulate)
        self.measured = []
        self.updates = []
        self.params = []

    def __call__(self, state, batch):
        state, metrics = self.step(state, batch)
        self.measured.append(jax.device_get(metrics))
        self.updates.append(int(state.updates))
        self.params.append(bits_of(state.params))
        return state, metrics


def bits_of(params):
    return {path: np.asarray(leaf).tobytes() for path, leaf in flatten(params).items()}


def test_a_tiny_run_lowers_the_loss(tmp_path):
    config = TrainConfig(log_every=3)
    train(tmp_path, Numbered(cycle=3), config, total=60)
    losses = [row["train/loss"] for row in lines(tmp_path, evaluations=False)]
    assert losses[-1] < 0.75 * losses[0]


def test_a_line_is_the_totals_over_the_counts_of_its_steps(tmp_path):
    """Each `log_every` updates, and at the end of an interval; sums divided by sums."""
    spy, batches = Spy(), Numbered()
    train(tmp_path, batches, replace(CONFIG, eval_every=7), total=10, step=spy)
    rows = lines(tmp_path, evaluations=False)
    assert [row["step"] for row in rows] == [3, 6, 7, 10]
    start = 0
    for row in rows:
        here = spy.measured[start : row["step"]]
        assert row["updates"] == row["step"]
        for name, value in row.items():
            if name in ("train/loss", "train/odd"):
                terms = [metrics.terms[name.removeprefix("train/")] for metrics in here]
                expected = sum(float(t.total) for t in terms) / sum(float(t.count) for t in terms)
                assert value == pytest.approx(expected, rel=1e-12), name
        assert row["train/grad_norm"] == float(here[-1].grad_norm)
        assert row["train/learning_rate"] == float(here[-1].learning_rate)
        start = row["step"]
    assert all({"train/loss", "train/odd"} < row.keys() for row in rows)
    assert {float(m.terms["loss"].count) for m in spy.measured} == {12.0, 5.0}


def test_metrics_are_read_one_step_late(tmp_path, monkeypatch):
    """Step n + 1 is dispatched before step n is read, but for the end of an interval."""
    order, step, add = [], make_step(1), Window.add

    def dispatch(state, batch):
        order.append(f"dispatch {int(batch.dialogue_ids[0, 0]) // 10 + 1}")
        return step(state, batch)

    def read(self, metrics):
        order.append(f"read {1 + sum(entry.startswith('read') for entry in order)}")
        return add(self, metrics)

    monkeypatch.setattr(Window, "add", read)
    train(tmp_path, Numbered(), replace(CONFIG, eval_every=3), total=4, step=dispatch)
    expected = "dispatch 1, dispatch 2, read 1, dispatch 3, read 2, read 3, dispatch 4, read 4"
    assert ", ".join(order) == expected


def test_nothing_but_metrics_leaves_or_enters_unasked(tmp_path, monkeypatch):
    """No host sync: what is read of the devices is the metrics, by `device_get`, one step late.

    What moves to them moves by `device_put`: the transfer guard refuses all else. One compilation
    serves the whole run and the one that goes on from it.
    """
    reads, allowed, get, value = [], [], jax.device_get, ArrayImpl._value

    def device_get(tree):
        allowed.append(True)
        try:
            return get(tree)
        finally:
            allowed.pop()

    def read(array):
        if not allowed and threading.current_thread() is threading.main_thread():
            reads.append("".join(traceback.format_stack(limit=4)))
        return value.fget(array)

    step = make_train_step(objective, optimizer(), trainable=trainable())

    def guarded(state, batch):
        monkeypatch.setattr(ArrayImpl, "_value", property(read))
        return step(state, batch)

    monkeypatch.setattr(jax, "device_get", device_get)
    config = replace(CONFIG, eval_every=None)
    with pytest.raises(Interrupted):
        train(tmp_path, Numbered(stop_at=5), config, total=9, step=guarded, guard="disallow")
    monkeypatch.setattr(ArrayImpl, "_value", value)
    evaluate = Scripted(1.0)
    train(tmp_path, Numbered(), config, total=9, step=guarded, guard="disallow", evaluate=evaluate)
    assert not reads, reads[0]
    assert step._cache_size() == 1


@pytest.mark.parametrize(
    ("every", "total", "expected"),
    [(4, 10, [4, 8, 10]), (4, 8, [4, 8]), (None, 3, [3]), (20, 3, [3]), (1, 2, [1, 2])],
)
def test_evaluation_at_each_interval_and_at_the_end(tmp_path, every, total, expected):
    """Each is logged, saved, and made of the parameters of that very step."""
    spy, seen = Spy(), []

    def evaluate(params):
        seen.append(bits_of(params))
        return {"validation/loss": 1.0 - len(seen), "validation/bleu": 0.25}

    config = replace(CONFIG, eval_every=every)
    state, tracker = train(tmp_path, Numbered(), config, total=total, evaluate=evaluate, step=spy)
    rows = lines(tmp_path, evaluations=True)
    assert [row["step"] for row in rows] == expected
    assert rows[0] == {
        "step": expected[0],
        "updates": expected[0],
        "validation/loss": 0.0,
        "validation/bleu": 0.25,
    }
    assert seen == [spy.params[step - 1] for step in expected]
    assert saved_steps(tmp_path) == expected[-2:]
    assert (int(state.step), int(state.updates)) == (total, total)
    assert (tracker.best, tracker.best_step) == (1.0 - len(expected), total)


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("validation/loss", [3.0, 2.0, 2.0, 2.5, 1.0]),
        ("validation/perplexity", [math.inf, 2.0, math.nan, 2.5, 1.0]),
        ("validation/task:a/loss", [math.nan, 2.0, 2.5, 2.0, 1.0]),
        ("validation/response_accuracy", [0.2, 0.4, 0.4, 0.1, 1.0]),
    ],
)
def test_early_stopping(tmp_path, metric, values):
    """Two evaluations in a row that are no better end the run; the best one is kept."""
    config = TrainConfig(log_every=3, eval_every=2, metric=metric, patience=2)
    evaluate = Scripted(*values, metric=metric)
    state, tracker = train(tmp_path, Numbered(), config, total=100, evaluate=evaluate)
    assert evaluate.values == [1.0]
    assert int(state.step) == 8
    assert (tracker.best, tracker.best_step, tracker.bad) == (values[1], 4, 2)
    assert saved_steps(tmp_path) == [4, 6, 8]
    before = lines(tmp_path)
    again, _ = train(tmp_path, Numbered(), config, total=100, evaluate=evaluate)
    assert bits(again) == bits(state)
    assert lines(tmp_path) == before


def test_an_improvement_restores_patience(tmp_path):
    config = TrainConfig(eval_every=1, patience=2)
    evaluate = Scripted(3.0, 4.0, 2.0, 2.0, 1.0, 1.5, 1.5, 0.0)
    state, tracker = train(tmp_path, Numbered(), config, total=100, evaluate=evaluate)
    assert (int(state.step), tracker.best_step) == (7, 5)


def test_which_metrics_fall():
    for metric in ("validation/loss", "validation/channel:reply/perplexity", "loss"):
        assert lower_is_better(metric)
    for metric in ("validation/token_accuracy", "validation/bleu", "validation/task:loss/bleu"):
        assert not lower_is_better(metric)


def test_where_intervals_end():
    assert [interval_end(n, 4, 10) for n in (0, 3, 4, 7, 8, 9, 10)] == [4, 4, 8, 8, 10, 10, 10]
    assert [interval_end(n, None, 10) for n in (0, 9)] == [10, 10]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("validation/los", "'validation/los' is not evaluated; did you mean 'validation/loss'?"),
        ("xyz", "'xyz' is not evaluated; there are validation/loss, validation/bleu"),
    ],
)
def test_an_unknown_metric_is_told_with_the_nearest_name(tmp_path, metric, message):
    config = TrainConfig(metric=metric)
    with pytest.raises(UserError) as caught:
        train(
            tmp_path,
            Numbered(),
            config,
            total=1,
            evaluate=lambda params: {"validation/loss": 1.0, "validation/bleu": 0.5},
        )
    assert str(caught.value) == f"train.metric={message}"


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path):
    """The step, the part and the dialogues are named; no update, no figure and no save of it."""
    spy = Spy()
    with pytest.raises(UserError) as caught:
        train(tmp_path, Numbered(poisoned=[6]), replace(CONFIG, log_every=1), total=20, step=spy)
    message = str(caught.value)
    assert message.startswith("step 7: the loss bigram is not finite (2 parts in all)")
    with np.load(tmp_path / "bad_7.npz") as kept:
        assert kept["tokens"][0, 0] == POISON
    assert message.endswith("dialogues [60, 61, 62, 63]")
    assert "\n" not in message
    assert spy.params[6] == spy.params[5]
    assert spy.updates[5:7] == [6, 6]
    assert [row["step"] for row in lines(tmp_path, evaluations=False)] == [1, 2, 3, 4, 5, 6]
    assert saved_steps(tmp_path) == [5]


def test_a_step_that_is_not_finite_may_be_skipped(tmp_path):
    """It updates nothing, no interval counts it, its batch is kept; too many in a row end it."""
    spy = Spy()
    config = replace(CONFIG, nonfinite="skip", max_nonfinite=3)
    state, _ = train(tmp_path / "two", Numbered(poisoned=[3, 4, 6]), config, total=8, step=spy)
    assert (int(state.step), int(state.updates)) == (11, 8)
    assert spy.params[2] == spy.params[3] == spy.params[4]
    logged = lines(tmp_path / "two", evaluations=False)
    assert sum(row.get("train/nonfinite_steps", 0) for row in logged) == 3
    assert all(row["train/loss"] is not None for row in logged)
    kept = sorted(path.name for path in (tmp_path / "two").glob("bad_*"))
    assert kept == ["bad_4.npz", "bad_5.npz", "bad_7.npz"]
    with pytest.raises(UserError, match=r"step 6: .*; 3 such steps in a row$"):
        train(tmp_path / "three", Numbered(poisoned=[3, 4, 5]), config, total=8)


def test_saves_between_evaluations_change_nothing(tmp_path, uninterrupted):
    """A run killed after a save goes on from it, to the same bits and lines."""
    config = replace(CONFIG, save_every=2)
    with pytest.raises(Killed):
        train(tmp_path, Numbered(empty=EMPTY, kill_at=14), config, total=16)
    assert saved_steps(tmp_path) == [9, 10, 12]
    state, tracker = train(tmp_path, Numbered(empty=EMPTY), config, total=16)
    assert (bits(state), timeless(tracker), lines(tmp_path)) == uninterrupted


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run of 16 updates, some steps of which are empty: its last state, tracker and lines."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    state, tracker = train(workdir, Numbered(empty=EMPTY), CONFIG, total=16)
    return bits(state), timeless(tracker), lines(workdir)


def timeless(tracker: Tracker) -> dict:
    saved = asdict(tracker)
    for counters in (saved, saved["window"]):
        del counters["seconds"], counters["waited"]
    return saved


def test_an_empty_step_is_a_step_and_no_update(uninterrupted):
    """Intervals and lines count updates, and empty steps go into the line that follows them."""
    of_steps = [row for row in uninterrupted[2] if "train/learning_rate" in row]
    assert [(row["step"], row["updates"], row.get("train/empty_steps", 0)) for row in of_steps] == [
        (4, 3, 1),
        (9, 5, 3),
        (12, 8, 0),
        (15, 10, 1),
        (18, 13, 0),
        (20, 15, 0),
        (21, 16, 0),
    ]
    of_evaluations = [row for row in uninterrupted[2] if "validation/loss" in row]
    assert [(row["step"], row["updates"]) for row in of_evaluations] == [
        (9, 5),
        (15, 10),
        (20, 15),
        (21, 16),
    ]


def finish(workdir, **stops):
    """Goes on to the end of the run that `uninterrupted` makes in one go."""
    batches = Numbered(empty=EMPTY, **stops)
    state, tracker = train(workdir, batches, CONFIG, total=16)
    return state, tracker, batches


@pytest.mark.parametrize(
    ("at", "number"),
    [
        ([0], signal.SIGINT),  # an empty step, before the first update
        ([2, 4], signal.SIGTERM),
        ([6, 7], signal.SIGINT),  # empty steps, just before an interval ends
        ([8, 9, 19], signal.SIGTERM),  # an interval's last step, and the first of another
        ([11, 12], signal.SIGINT),  # a line's last step, and the empty one after it
        ([14, 20], signal.SIGTERM),  # an interval's last step, and the very last
    ],
)
def test_a_signal_saves_and_the_run_resumes_to_the_bit(tmp_path, uninterrupted, at, number):
    """Wherever signals come: the same parameters, moments, counters and lines in the end."""
    first = 0
    for stop in at:
        batches = Numbered(empty=EMPTY, stop_at=stop, number=number)
        with pytest.raises(Interrupted):
            train(tmp_path, batches, CONFIG, total=16)
        assert batches.fetched == list(range(first, stop + AHEAD + 1))
        first = stop + 1
        assert first in saved_steps(tmp_path)
    state, tracker, batches = finish(tmp_path)
    assert batches.fetched[0] == first
    assert (bits(state), timeless(tracker), lines(tmp_path)) == uninterrupted


@pytest.mark.parametrize(("at", "saved"), [(3, 0), (8, 0), (14, 9), (19, 15)])
def test_a_killed_run_goes_on_from_its_last_interval(tmp_path, uninterrupted, at, saved):
    """Nothing was saved since then: lines after it are dropped, and made again."""
    with pytest.raises(Killed):
        finish(tmp_path, kill_at=at)
    state, tracker, batches = finish(tmp_path)
    assert batches.fetched[0] == saved
    assert (bits(state), timeless(tracker), lines(tmp_path)) == uninterrupted


def test_a_finished_run_is_left_as_it_is(tmp_path, uninterrupted):
    finish(tmp_path)
    state, tracker, batches = finish(tmp_path)
    assert len(batches.fetched) <= AHEAD + 1
    assert (bits(state), timeless(tracker), lines(tmp_path)) == uninterrupted


def test_a_signal_during_the_last_evaluation_is_not_lost(tmp_path):
    def evaluate(params):
        signal.raise_signal(signal.SIGINT)
        return {"validation/loss": 1.0}

    with pytest.raises(Interrupted):
        train(tmp_path, Numbered(), CONFIG, total=2, evaluate=evaluate)
    state, _ = train(tmp_path, Numbered(), CONFIG, total=2, evaluate=Scripted())
    assert int(state.step) == 2
    assert len(lines(tmp_path, evaluations=True)) == 1


def test_signals_are_handled_as_before_once_the_loop_is_left(tmp_path):
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(Interrupted):
        train(tmp_path, Numbered(stop_at=0), CONFIG, total=2)
    assert [signal.getsignal(number) for number in numbers] == before
    train(tmp_path, Numbered(), CONFIG, total=2)
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("every", [1, 2])
def test_an_empty_step_costs_no_patience(tmp_path, every):
    """The parameters have not changed since the last evaluation, so there is none."""
    config = TrainConfig(eval_every=every, patience=2)
    evaluate = Scripted(3.0, 2.0, 1.0)
    batches = Numbered(empty=[2, 3, 4, 5])
    state, tracker = train(tmp_path, batches, config, total=3 * every, evaluate=evaluate)
    assert (int(state.updates), int(state.step)) == (3 * every, 3 * every + 4)
    assert tracker.best_step == int(state.step)


def test_accumulation_changes_no_count_and_no_figure(tmp_path):
    """Micro-batches are no steps: the same lines, evaluations and parameters, up to rounding."""
    runs = {}
    for accumulate in (1, 2):
        spy, workdir = Spy(accumulate), tmp_path / str(accumulate)
        config = replace(CONFIG, accumulate=accumulate)
        state, _ = train(workdir, Numbered(empty=[1]), config, total=6, step=spy)
        runs[accumulate] = state, lines(workdir), spy.updates
    (one, rows, updates), (two, other_rows, other_updates) = runs.values()
    assert updates == other_updates == [1, 1, 2, 3, 4, 5, 6]
    assert [list(row) for row in rows] == [list(row) for row in other_rows]
    for row, other in zip(rows, other_rows, strict=True):
        assert list(other.values()) == pytest.approx(list(row.values()), rel=1e-4)
    for path, leaf in flatten(one.params).items():
        np.testing.assert_allclose(flatten(two.params)[path], leaf, atol=1e-5, err_msg=path)


def test_seconds_are_those_of_training(tmp_path, monkeypatch):
    """A step takes 1 s here, a batch 3 s, an evaluation 100 s: evaluations do not count.

    Two batches more are made than are used, for none knows that the run is over.
    """
    now = [0.0]
    monkeypatch.setattr(window, "time", SimpleNamespace(monotonic=lambda: now[0]))
    batches, make = Numbered(), Numbered.batch

    def batch(self, step):
        now[0] += 3
        return make(self, step)

    monkeypatch.setattr(Numbered, "batch", batch)

    def step(state, batch):
        now[0] += 1
        return make_step(1)(state, batch)

    def evaluate(params):
        now[0] += 100
        return {"validation/loss": 1.0}

    _, tracker = train(tmp_path, batches, CONFIG, total=12, evaluate=evaluate, step=step)
    assert (tracker.seconds, tracker.waited) == (12 + 3 * (12 + AHEAD), 3 * (12 + AHEAD))
    assert tracker.figures()["train/data_wait"] == 42 / 54
    shares = [row.get("train/data_wait") for row in read_metrics(tmp_path / METRICS_FILE)]
    # The first line holds the batches made ahead, and ends one step late.
    assert shares == [18 / 22, 3 / 4, None, 3 / 4, 3 / 4, None, 3 / 4, None]


def test_a_tracker_survives_its_checkpoint():
    tracker = Tracker(seconds=1.5, best=0.1 + 0.2, best_step=7, bad=2)
    tracker.window.terms["loss"] = [1.5, 3.0]
    tracker.window.steps = 1
    assert Tracker.load(json.loads(json.dumps(asdict(tracker)))) == tracker


def test_the_first_state_is_the_same_each_time():
    """What the tests above compare with is no accident of shared arrays."""
    assert bits(fresh_state()) == bits(fresh_state())


def test_the_tracker_adds_up_tokens_over_log_lines():
    tracker = Tracker(seconds=2.0, waited=0.5)
    for tokens, supervised in ((30, 10), (50, 30)):
        tracker.window.tokens, tracker.window.supervised = tokens, supervised
        tracker.close_window()
    assert tracker.window == Window()
    assert tracker.figures() == {
        "train/seconds": 2.0,
        "train/tokens_per_second": 40.0,
        "train/supervised_tokens_per_second": 20.0,
        "train/data_wait": 0.25,
    }


@pytest.mark.parametrize("name", ["steps", "epochs", "accumulate", "log_every", "eval_every"])
def test_intervals_are_positive(name):
    with pytest.raises(UserError, match=rf"train\.{name}=0 must be above 0"):
        TrainConfig(**{name: 0})
