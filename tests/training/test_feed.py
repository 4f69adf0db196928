"""Batches on their way to the devices: order, how far ahead, and what counts as waiting."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest

from dlm.training import window
from dlm.training.feed import AHEAD, feed
from dlm.training.window import Clock


def test_the_next_batches_are_placed_while_one_is_used():
    placed = []

    def place(batch):
        placed.append(batch)
        return f"on the device: {batch}"

    fed = feed(count(3), place, Clock())
    assert next(fed) == (3, "on the device: 3")
    assert placed == [3, 4, 5]
    assert [batch for _, (batch, _) in zip(range(4), fed, strict=False)] == [4, 5, 6, 7]
    assert placed == list(range(3, 7 + AHEAD + 1))


@pytest.mark.parametrize("number", range(AHEAD + 3))
def test_every_batch_comes_once(number):
    assert list(feed(range(number), str, Clock())) == [(i, str(i)) for i in range(number)]


def test_what_is_waited_for_is_the_batch_and_not_its_use(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(window, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow():
        for batch in range(4):
            now[0] += 2
            yield batch

    clock, laps = Clock(), []
    for _ in feed(slow(), str, clock):
        now[0] += 1
        laps.append(clock.lap())
    assert laps == [(7, 6), (3, 2), (1, 0), (1, 0)]
