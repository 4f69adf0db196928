"""The logging window: what the steps since the last log line add up to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from dlm.core.errors import UserError
from dlm.training.step import StepMetrics


@dataclass
class Window:
    """Totals and counts over the steps of one log line; plain numbers, saved with a checkpoint.

    Means over a window are sums divided by sums, so steps with more supervised tokens weigh more.

    Attributes:
      steps: steps in the window.
      terms: [total, count] of each term.
      last: `grad_norm` and `learning_rate` of the last step.
      tokens: positions that held a token.
      supervised: positions of weight > 0.
      empty: steps without a supervised token; they made no update.
      seconds: of training, evaluations and stops left out.
    """

    steps: int = 0
    terms: dict[str, list[float]] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    supervised: int = 0
    empty: int = 0
    seconds: float = 0.0

    def add(self, metrics: StepMetrics, batch: Any, step: int) -> bool:
        """Takes in one step, waiting for its metrics; says whether it made an update.

        Args:
          metrics: on the device.
          batch: its batch as host arrays.
          step: its number, for messages.

        Raises:
          UserError: a gradient was not finite; names the step and the first such leaf.
        """
        measured = jax.device_get(metrics)
        bad = sorted(path for path, is_bad in measured.nonfinite.items() if is_bad)
        if bad:
            raise UserError(
                f"step {step}: the gradient of {bad[0]} is not finite ({len(bad)} leaves in all); "
                "nothing was updated; lower optimizer.learning_rate or look at dialogues "
                f"{sorted(set(np.asarray(batch.dialogue_ids).ravel().tolist()) - {-1})[:8]}"
            )
        for name, (total, count) in measured.terms.items():
            sums = self.terms.setdefault(name, [0.0, 0.0])
            sums[0] += float(total)
            sums[1] += float(count)
        self.last = {
            "grad_norm": float(measured.grad_norm),
            "learning_rate": float(measured.learning_rate),
        }
        self.steps += 1
        self.tokens += int(np.count_nonzero(batch.segment_ids))
        self.supervised += int(np.count_nonzero(batch.loss_weights))
        self.empty += bool(measured.empty)
        return not measured.empty

    def figures(self) -> dict[str, float]:
        """The line's figures, named `train/...`; a term that counted nothing is left out."""
        means = {f"train/{n}": total / count for n, (total, count) in self.terms.items() if count}
        seconds = max(self.seconds, 1e-9)
        return {
            **means,
            **{f"train/{name}": value for name, value in self.last.items()},
            **({"train/empty_steps": float(self.empty)} if self.empty else {}),
            "train/tokens_per_second": self.tokens / seconds,
            "train/supervised_tokens_per_second": self.supervised / seconds,
        }


class Clock:
    """Seconds of training, in laps; what is done between `lap` and `skip` does not count."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap or skip."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return seconds

    def skip(self) -> None:
        """Leaves out the time since the last lap."""
        self._last = time.monotonic()


def describe(updates: int, figures: Mapping[str, float], first: Iterable[str]) -> str:
    """One line on an evaluation: the named figures, as far as they are there."""
    shown = [f"{name} {figures[name]:.4f}" for name in first if name in figures]
    return f"update {updates:,}: {', '.join(shown)}"
