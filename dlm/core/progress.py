"""What a person sees while something long runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

LINE_EVERY_SECONDS = 5.0


class Progress:
    """Shows how far a task is, its latest figures and, where its length is known, the time left.

    On a terminal this is one bar that redraws itself; elsewhere (a log file, CI) a plain line at
    most every five seconds and one at the end. The time left is that of the average pace since the
    first update, which leaves out what came before it, such as compilation.

    Example:
      >>> with Progress(2, "training") as progress:  # doctest: +SKIP
      ...     progress.update(1, loss=2.5)
      ...     progress.update(2, loss=2.25)
      training: step 2/2, loss 2.25, 0:00 left

    Attributes:
      total: units of the whole task; None: not known.
      label: what is going on, in front of every line.
      unit: what is counted, in the singular.
    """

    def __init__(self, total: int | None, label: str, unit: str = "step"):
        self.total, self.label, self.unit = total, label, unit
        self._done = 0
        self._figures: dict[str, float | str] = {}
        self._first: tuple[float, int] | None = None
        self._last_line = float("-inf")
        self._printed: int | None = None
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stdout.isatty():
            self._bar = _bar(self.total, self.label)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._first and self._printed != self._done:
            self._line()

    def update(self, done: int, **figures: float | str) -> None:
        """Says that `done` units are finished and what the latest figures are.

        Figures keep their last value until they are given anew; an underscore in a name is shown
        as a space, and `tokens_per_second` as `tokens/s`.
        """
        now = time.monotonic()
        self._first = self._first or (now, done)
        self._done = done
        self._figures.update(figures)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, text=self._text(now))
        elif now - self._last_line >= LINE_EVERY_SECONDS:
            self._line()

    def say(self, line: str) -> None:
        """Prints a line of text without tearing the bar."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def _line(self) -> None:
        self._last_line, self._printed = time.monotonic(), self._done
        print(f"{self.label}: {self._text(self._last_line)}", flush=True)

    def _text(self, now: float) -> str:
        figures = [f"{_name(name)} {_number(value)}" for name, value in self._figures.items()]
        if self.total is None:
            return ", ".join([f"{self.unit} {self._done:,}", *figures])
        left = self._left(now, self.total)
        return ", ".join([f"{self.unit} {self._done:,}/{self.total:,}", *figures, left])

    def _left(self, now: float, total: int) -> str:
        start, begun = self._first or (now, 0)
        if self._done >= total:
            return "0:00 left"
        if self._done == begun:
            return "?:?? left"
        seconds = round((now - start) / (self._done - begun) * (total - self._done))
        hours, minutes = divmod(seconds // 60, 60)
        clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
        return f"{clock}:{seconds % 60:02} left"


def _name(name: str) -> str:
    return name.replace("_per_second", "/s").replace("_", " ")


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _bar(total: int | None, label: str) -> Any:
    from rich import progress as rich

    bar = rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(bar_width=20),
        rich.TextColumn("{task.fields[text]}", markup=False),
    )
    bar.add_task(label, total=total, text="")
    return bar
