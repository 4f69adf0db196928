"""The logging window: totals and counts over steps, and the clock beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np

from dlm.core.mean import Mean
from dlm.data.batch import Batch, empty_batch
from dlm.training import window
from dlm.training.step import LOSS, StepMetrics
from dlm.training.window import (
    Clock,
    Window,
    describe,
    describe_nonfinite,
    keep_batch,
    nonfinite_parts,
)


def make_batch(tokens: int, supervised: int, dialogues=(7, -1, 3)) -> Batch:
    """One row of so many tokens in two segments, the last of them supervised."""
    batch = empty_batch(1, 8, len(dialogues))
    batch.segment_ids[0, :tokens] = 2
    batch.segment_ids[0, :1] = 1
    batch.loss_weights[0, tokens - supervised : tokens] = 0.5
    batch.dialogue_ids[:] = dialogues
    return batch


def measure(
    tokens=5, supervised=1, *, norm=1.0, rate=0.1, empty=False, bad=(), **terms: tuple[float, float]
):
    """What a step measures; leaves a, b and c, some with a gradient that is not finite."""
    return StepMetrics(
        terms={name: Mean(np.float32(t), np.float32(c)) for name, (t, c) in terms.items()},
        grad_norm=np.float32(norm),
        learning_rate=np.float32(rate),
        tokens=np.int32(tokens),
        supervised=np.int32(supervised),
        empty=np.bool_(empty),
        nonfinite={path: np.bool_(path in bad) for path in ("c", "a", "b", LOSS)},
    )


def test_a_line_by_hand():
    """Sums divided by sums, tokens per second of the window, and the last step's norm and rate.

    A term that counted nothing (y) has no mean.
    """
    line = Window()
    assert line.add(measure(5, 2, loss=(6.0, 2.0), z=(1.0, 4.0), y=(0.0, 0.0)))
    assert line.add(measure(8, 6, loss=(2.0, 6.0), norm=3, rate=0.25))
    line.seconds, line.waited = 0.5, 0.125
    assert line.figures() == {
        "train/loss": 1.0,  # not 5/3, the mean of means
        "train/z": 0.25,
        "train/grad_norm": 3.0,
        "train/learning_rate": 0.25,
        "train/tokens_per_second": 26.0,
        "train/supervised_tokens_per_second": 16.0,
        "train/data_wait": 0.25,
    }
    assert all(type(value) is float for value in line.figures().values())


def test_an_accuracy_says_how_many_tokens_it_is_of():
    """Of the window, all together and by channel; a channel without a token is not named."""
    line = Window()
    channels = {"channel:reply/token_accuracy": (1, 2), "channel:state/token_accuracy": (0, 0)}
    for _ in range(2):
        line.add(measure(token_accuracy=(2, 3), **channels))
    tokens = {n: v for n, v in line.figures().items() if n.endswith("supervised_tokens")}
    assert tokens == {
        "train/supervised_tokens": 6.0,
        "train/channel:reply/supervised_tokens": 4.0,
    }
    assert line.figures()["train/channel:reply/token_accuracy"] == 0.5


def test_an_empty_step_made_no_update_and_is_counted():
    line = Window()
    assert not line.add(measure(5, 0, loss=(0, 0), empty=True))
    assert (line.steps, line.empty, line.tokens) == (1, 1, 5)
    assert "train/loss" not in line.figures()  # a mean of nothing
    assert line.figures()["train/empty_steps"] == 1
    assert line.add(measure(5, 1, loss=(3, 2)))
    assert (line.steps, line.empty) == (2, 1)
    assert line.figures()["train/loss"] == 1.5
    assert "train/empty_steps" not in Window().figures()


def test_a_step_that_was_not_finite_enters_no_mean_and_is_counted():
    line = Window()
    line.add(measure(5, 1, loss=(3, 2)))
    assert not line.add(measure(5, 1, loss=(np.nan, 2), bad="cb"))
    assert (line.steps, line.updates, line.nonfinite) == (2, 1, 1)
    assert line.figures()["train/loss"] == 1.5
    assert line.figures()["train/nonfinite_steps"] == 1


def test_what_was_not_finite_is_told_in_one_line(tmp_path):
    """The loss before any gradient, the first leaf by name, the batch, its dialogues."""
    batch = make_batch(5, 1)
    parts = nonfinite_parts(measure(loss=(np.nan, 2), bad="cb"))
    assert parts == ["b", "c"]
    path = keep_batch(tmp_path, batch, 2)
    assert describe_nonfinite(parts, batch, 2, path, "mine") == (
        "step 2: the gradient of b is not finite (2 parts in all); nothing was updated; its batch "
        f"is in {tmp_path}/bad_2.npz; lower optimizer.learning_rate or look at dialogues [3, 7]"
    )
    assert "step 2: the loss mine is not finite (3 parts" in describe_nonfinite(
        nonfinite_parts(measure(loss=(np.nan, 2), bad=("b", "a", LOSS))), batch, 2, path, "mine"
    )
    with np.load(path) as kept:
        assert set(kept) == {name for name, x in batch._asdict().items() if x is not None}
        np.testing.assert_array_equal(kept["tokens"], batch.tokens)


def test_a_window_goes_on_after_it_was_saved():
    whole, cut = Window(), Window()
    for total, count in [(0.1, 3.0), (0.2, 1.0), (0.7, 2.0)]:
        for line in (whole, cut):
            line.add(measure(5, 2, loss=(total, count)))
            line.seconds += 0.1
        cut = Window(**json.loads(json.dumps(asdict(cut))))
    assert cut == whole
    assert cut.figures() == whole.figures()


def test_a_clock_counts_what_is_waited_and_leaves_out_what_is_skipped(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(window, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock()
    now[0] += 2
    with clock.waiting():
        now[0] += 5
    assert clock.lap() == (7, 5)
    now[0] += 50
    clock.skip()
    now[0] += 3
    assert (clock.lap(), clock.lap()) == ((3, 0), (0, 0))


def test_an_evaluation_in_one_line():
    figures = {"validation/loss": 1.23456, "validation/bleu": 0.5}
    names = ("validation/loss", "validation/token_accuracy")
    assert describe(1500, figures, names) == "update 1,500: validation/loss 1.2346"
