"""What a run has been through: the little that survives a stop beside the state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlm.training.window import Window


@dataclass
class Tracker:
    """Counters of a run; saved as JSON with each checkpoint.

    Attributes:
      seconds: of training so far, evaluations left out.
      waited: seconds among them in which the next batch was waited for.
      best: the best value of `train.metric` so far; None before the first evaluation.
      best_step: its step.
      bad: evaluations since then.
      tokens: that the logged steps held.
      supervised: positions of weight > 0 among them.
      nonfinite: steps in a row, up to the last one, that were not finite.
      window: the log line in the making.
    """

    seconds: float = 0.0
    waited: float = 0.0
    best: float | None = None
    best_step: int | None = None
    bad: int = 0
    tokens: int = 0
    supervised: int = 0
    nonfinite: int = 0
    window: Window = field(default_factory=Window)

    @staticmethod
    def load(saved: Mapping[str, Any]) -> Tracker:
        """The tracker that a checkpoint holds as `asdict`."""
        return Tracker(**{**saved, "window": Window(**saved["window"])})

    def close_window(self) -> dict[str, float]:
        """Ends the log line in the making: its figures; the next one begins."""
        window, self.window = self.window, Window()
        self.tokens += window.tokens
        self.supervised += window.supervised
        return window.figures()

    def add_time(self, seconds: float, waited: float) -> None:
        """Takes in the time of a step, and how much of it was spent waiting for data."""
        for one in (self, self.window):
            one.seconds += seconds
            one.waited += waited

    def figures(self) -> dict[str, float]:
        """Duration and speed of the run as far as it is logged, named `train/...`.

        `data_wait` is the share of the time in which the next batch was not there yet.
        """
        seconds = max(self.seconds, 1e-9)
        return {
            "train/seconds": self.seconds,
            "train/tokens_per_second": self.tokens / seconds,
            "train/supervised_tokens_per_second": self.supervised / seconds,
            "train/data_wait": self.waited / seconds,
        }

    def note(self, value: float, step: int, *, lower: bool) -> None:
        """Takes in one evaluation of the metric; NaN or an infinity never is the best."""
        better = self.best is None or (value < self.best if lower else value > self.best)
        if better and math.isfinite(value):
            self.best, self.best_step, self.bad = value, step, 0
        else:
            self.bad += 1
