"""Batches on their way to the devices: the next ones travel while a step runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dlm.training.window import Clock

AHEAD = 2  # batches on the devices beside the one in use: one moves while one waits


def feed(
    batches: Iterable[Any], place: Callable[[Any], Any], clock: Clock
) -> Iterator[tuple[Any, Any]]:
    """Yields each batch twice: as it lies on the host, and on the devices.

    Batches are placed `AHEAD` of the one that is asked for. Placing only starts a transfer, so what
    the clock sees as waiting is the time in which the next batch was not made yet.

    Args:
      batches: host arrays, in the order of the steps.
      place: puts a batch onto the devices.
      clock: told how long was waited.
    """
    source = iter(batches)
    held: deque[tuple[Any, Any]] = deque()
    while True:
        with clock.waiting():
            while len(held) <= AHEAD and (batch := next(source, None)) is not None:
                held.append((batch, place(batch)))
        if not held:
            return
        yield held.popleft()
