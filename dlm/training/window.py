"""The logging window: what the steps since the last log line add up to."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlm.core.files import write_atomic
from dlm.training.step import LOSS, StepMetrics

ACCURACY = "token_accuracy"  # a term whose count is a number of tokens


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
      nonfinite: steps whose loss or gradient was not finite; nor did they.
      seconds: of training, evaluations and stops left out.
      waited: seconds among them in which the next batch was waited for.
    """

    steps: int = 0
    terms: dict[str, list[float]] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    supervised: int = 0
    empty: int = 0
    nonfinite: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, metrics: StepMetrics) -> bool:
        """Takes in one step, its metrics on the host; says whether it made an update."""
        self.steps += 1
        self.tokens += int(metrics.tokens)
        self.supervised += int(metrics.supervised)
        if nonfinite_parts(metrics):
            self.nonfinite += 1
            return False
        for name, (total, count) in metrics.terms.items():
            sums = self.terms.setdefault(name, [0.0, 0.0])
            sums[0] += float(total)
            sums[1] += float(count)
        self.last = {
            "grad_norm": float(metrics.grad_norm),
            "learning_rate": float(metrics.learning_rate),
        }
        self.empty += bool(metrics.empty)
        return not metrics.empty

    @property
    def updates(self) -> int:
        """Updates that the steps of this window made."""
        return self.steps - self.empty - self.nonfinite

    def figures(self) -> dict[str, float]:
        """The line's figures, named `train/...`; a term that counted nothing is left out.

        Beside each `token_accuracy` stands what it counted, `supervised_tokens`.
        """
        means = {f"train/{n}": total / count for n, (total, count) in self.terms.items() if count}
        counts = {
            f"train/{name.removesuffix(ACCURACY)}supervised_tokens": count
            for name, (_, count) in self.terms.items()
            if name.endswith(ACCURACY) and count
        }
        seconds = max(self.seconds, 1e-9)
        return {
            **means,
            **counts,
            **{f"train/{name}": value for name, value in self.last.items()},
            **({"train/empty_steps": float(self.empty)} if self.empty else {}),
            **({"train/nonfinite_steps": float(self.nonfinite)} if self.nonfinite else {}),
            "train/tokens_per_second": self.tokens / seconds,
            "train/supervised_tokens_per_second": self.supervised / seconds,
            "train/data_wait": self.waited / seconds,
        }


def nonfinite_parts(metrics: StepMetrics) -> list[str]:
    """What of a step was not finite: "loss", or paths of parameters by their gradients; in order.

    The loss first: where it is not finite, no gradient behind it means anything.
    """
    bad = sorted(path for path, is_bad in metrics.nonfinite.items() if is_bad)
    return sorted(bad, key=lambda path: path != LOSS)


def keep_batch(folder: Path, batch: Any, step: int) -> Path:
    """Writes a batch to `bad_STEP.npz`, to be looked at; returns where."""
    content = io.BytesIO()
    fields = batch._asdict().items()
    arrays: dict[str, Any] = {name: np.asarray(x) for name, x in fields if x is not None}
    np.savez_compressed(content, **arrays)
    path = folder / f"bad_{step}.npz"
    write_atomic(path, content.getvalue())
    return path


def describe_nonfinite(parts: Sequence[str], batch: Any, step: int, path: Path, loss: str) -> str:
    """One line on a step that was refused: what was not finite, its dialogues, and a remedy."""
    what = f"the loss {loss}" if parts[0] == LOSS else f"the gradient of {parts[0]}"
    dialogues = sorted(set(np.asarray(batch.dialogue_ids).ravel().tolist()) - {-1})
    return (
        f"step {step}: {what} is not finite ({len(parts)} parts in all); nothing was updated; its "
        f"batch is in {path}; lower optimizer.learning_rate or look at dialogues {dialogues[:8]}"
    )


class Clock:
    """Seconds of training, in laps; what is done between `lap` and `skip` does not count."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._waited = 0.0

    def lap(self) -> tuple[float, float]:
        """Seconds since the last lap or skip, and those among them that were `waiting`."""
        now = time.monotonic()
        lap = now - self._last, self._waited
        self._last, self._waited = now, 0.0
        return lap

    def skip(self) -> None:
        """Leaves out the time since the last lap."""
        self.lap()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of its block as waiting for data."""
        begun = time.monotonic()
        yield
        self._waited += time.monotonic() - begun


def describe(updates: int, figures: Mapping[str, float], first: Iterable[str]) -> str:
    """One line on an evaluation: the named figures, as far as they are there."""
    shown = [f"{name} {figures[name]:.4f}" for name in first if name in figures]
    return f"update {updates:,}: {', '.join(shown)}"
