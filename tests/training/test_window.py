"""The logging window: totals and counts over steps, and the clock beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.data.batch import Batch, empty_batch
from dlm.training import window
from dlm.training.step import StepMetrics
from dlm.training.window import Clock, Window, describe


def make_batch(tokens: int, supervised: int, dialogues=(7, -1, 3)) -> Batch:
    """One row of so many tokens in two segments, the last of them supervised."""
    batch = empty_batch(1, 8, len(dialogues))
    batch.segment_ids[0, :tokens] = 2
    batch.segment_ids[0, :1] = 1
    batch.loss_weights[0, tokens - supervised : tokens] = 0.5
    batch.dialogue_ids[:] = dialogues
    return batch


def measure(*, norm=1.0, rate=0.1, empty=False, bad=(), **terms: tuple[float, float]):
    """What a step measures; leaves a, b and c, some with a gradient that is not finite."""
    return StepMetrics(
        terms={name: Mean(np.float32(t), np.float32(c)) for name, (t, c) in terms.items()},
        grad_norm=np.float32(norm),
        learning_rate=np.float32(rate),
        empty=np.bool_(empty),
        nonfinite={path: np.bool_(path in bad) for path in "cab"},
    )


def test_a_line_by_hand():
    """Sums divided by sums, tokens per second of the window, and the last step's norm and rate.

    A term that counted nothing (y) has no mean.
    """
    line = Window()
    assert line.add(measure(loss=(6.0, 2.0), z=(1.0, 4.0), y=(0.0, 0.0)), make_batch(5, 2), 1)
    assert line.add(measure(loss=(2.0, 6.0), norm=3, rate=0.25), make_batch(8, 6), 2)
    line.seconds = 0.5
    assert line.figures() == {
        "train/loss": 1.0,  # not 5/3, the mean of means
        "train/z": 0.25,
        "train/grad_norm": 3.0,
        "train/learning_rate": 0.25,
        "train/tokens_per_second": 26.0,
        "train/supervised_tokens_per_second": 16.0,
    }
    assert all(type(value) is float for value in line.figures().values())


def test_an_empty_step_made_no_update_and_is_counted():
    line = Window()
    assert not line.add(measure(loss=(0, 0), empty=True), make_batch(5, 0), 1)
    assert (line.steps, line.empty, line.tokens) == (1, 1, 5)
    assert "train/loss" not in line.figures()  # a mean of nothing
    assert line.figures()["train/empty_steps"] == 1
    assert line.add(measure(loss=(3, 2)), make_batch(5, 1), 2)
    assert (line.steps, line.empty) == (2, 1)
    assert line.figures()["train/loss"] == 1.5
    assert "train/empty_steps" not in Window().figures()


def test_a_gradient_that_is_not_finite_is_told_in_one_line():
    """The first leaf by name and the dialogues of that batch; the window is as it was."""
    line = Window()
    line.add(measure(loss=(3, 2)), make_batch(5, 1), 1)
    before = asdict(line)
    with pytest.raises(UserError) as caught:
        line.add(measure(loss=(np.nan, 2), bad="cb"), make_batch(5, 1), 2)
    assert str(caught.value) == (
        "step 2: the gradient of b is not finite (2 leaves in all); nothing was updated; lower "
        "optimizer.learning_rate or look at dialogues [3, 7]"
    )
    assert asdict(line) == before


def test_a_window_goes_on_after_it_was_saved():
    whole, cut = Window(), Window()
    for at, (total, count) in enumerate([(0.1, 3.0), (0.2, 1.0), (0.7, 2.0)], 1):
        for line in (whole, cut):
            line.add(measure(loss=(total, count)), make_batch(5, 2), at)
            line.seconds += 0.1
        cut = Window(**json.loads(json.dumps(asdict(cut))))
    assert cut == whole
    assert cut.figures() == whole.figures()


def test_a_clock_leaves_out_what_is_skipped(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(window, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock()
    now[0] += 2
    assert clock.lap() == 2
    now[0] += 50
    clock.skip()
    now[0] += 3
    assert (clock.lap(), clock.lap()) == (3, 0)


def test_an_evaluation_in_one_line():
    figures = {"validation/loss": 1.23456, "validation/bleu": 0.5}
    names = ("validation/loss", "validation/token_accuracy")
    assert describe(1500, figures, names) == "update 1,500: validation/loss 1.2346"
