"""Bootstrap intervals: over dialogues and seeds at once, and over the runs of several tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dlm.tables.statistics import LEVEL

ROUNDS = 10_000
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
Figure = Callable[[np.ndarray], np.ndarray]  # keeps the leading axes, over which it is repeated


@dataclass(frozen=True)
class Interval:
    """A figure with a bootstrap interval at `LEVEL`.

    Attributes:
      value: of all the data.
      low, high: of the interval; None where one seed leaves nothing to tell of others.
      better: share of the resamples in which the figure is above 0, those equal to 0 counting half.
    """

    value: float
    low: float | None
    high: float | None
    better: float


def ratio(sums: np.ndarray) -> np.ndarray:
    """The figure of totals and counts: sums [..., 2] -> total / count [...]."""
    return sums[..., 0] / sums[..., 1]


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    figure: Figure = ratio,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Interval:
    """The difference figure(a) - figure(b), resampled over seeds and dialogues, two levels.

    Each resample draws S seeds and I dialogues with replacement, the same for both systems, and
    takes the figure of the sums over what was drawn. A figure is a function of sums, so that of a
    corpus (a ratio of sums, BLEU of summed counts) is resampled as exactly as a mean.

    Percentiles over few seeds are too narrow. A seed drawn m times therefore weighs 1 + k (m - 1),
    k = sqrt(S / (S - 1)) t_{.975, S - 1} / z_{.975}: where seeds alone differ and their values are
    normal, the interval is the t interval; where dialogues alone differ, it is the usual one. Noise
    of single runs on single dialogues is drawn at both levels, which widens it a little. With one
    seed no interval is given.

    Args:
      a: [S, I, K] float64, what each dialogue adds to the K sums in each run of the first system.
      b: the same of the second, the same seeds and dialogues.
      figure: sums [..., K] -> [...].
      rounds: resamples.
      seed: of the draws.

    Raises:
      ValueError: the two differ in shape, or nothing is in them.

    Source: Koehn 2004, EMNLP (paired over items); Owen 2007, arXiv:0712.1111 (rows and columns);
    Hesterberg 2015, arXiv:1411.5279, section 3.3 (why percentiles of few values are too narrow).
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 3 or not a.size:
        raise ValueError(f"pairs of shapes {a.shape} and {b.shape}, not [seeds, dialogues, sums]")
    seeds, items, _ = a.shape
    value = float(figure(a.sum((0, 1))) - figure(b.sum((0, 1))))
    rng = np.random.default_rng(seed)
    times = rng.multinomial(seeds, np.full(seeds, 1 / seeds), rounds)
    weights = 1 + stretch(seeds) * (times - 1) if seeds > 1 else np.ones((rounds, 1))
    differences = np.empty(rounds)
    for start in range(0, rounds, 500):
        stop = min(start + 500, rounds)
        drawn = rng.multinomial(items, np.full(items, 1 / items), stop - start).astype(np.float64)
        sums = (
            np.einsum("rs,ri,sik->rk", weights[start:stop], drawn, x, optimize=True) for x in (a, b)
        )
        first, second = map(figure, sums)
        differences[start:stop] = first - second
    return _interval(value, differences, alone=seeds == 1)


def stretch(n: int) -> float:
    """By how much deviations of n drawn values widen so that their percentiles are those of t."""
    t = stats.t.ppf(TAILS[1], n - 1)
    return float(np.sqrt(n / (n - 1)) * t / stats.norm.ppf(TAILS[1]))


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of runs and tasks, a quarter (rounded down) cut at each side.

    Args:
      scores: [..., runs, tasks].

    Source: Agarwal et al. 2021, NeurIPS, arXiv:2108.13264 (as are the two figures below).
    """
    flat = scores.reshape(*scores.shape[:-2], -1)
    return stats.trim_mean(flat, 0.25, axis=-1)


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """How far scores [..., runs, tasks] fall short: target - mean of min(score, target)."""
    return target - np.minimum(scores, target).mean((-2, -1))


def probability_of_improvement(a: np.ndarray, b: np.ndarray) -> float:
    """P(A > B) + P(A = B) / 2 over all pairs of runs, averaged over tasks.

    Args:
      a: [runs, tasks] scores of one system.
      b: the same of the other; it may have other runs.
    """
    pairs = np.asarray(a)[:, None] - np.asarray(b)[None]
    return float(np.mean((pairs > 0) + (pairs == 0) / 2))


def stratified_bootstrap(
    scores: np.ndarray, figure: Figure, *, rounds: int = ROUNDS, seed: int = 0
) -> Interval:
    """A figure of runs by tasks, its interval from runs drawn with replacement in each task apart.

    Args:
      scores: [runs, tasks].
      figure: one of the above: [..., runs, tasks] -> [...].
      rounds: resamples.
      seed: of the draws.
    """
    scores = np.asarray(scores, np.float64)
    runs, tasks = scores.shape
    drawn = np.random.default_rng(seed).integers(0, runs, (rounds, runs, tasks))
    values = figure(scores[drawn, np.arange(tasks)])
    return _interval(float(figure(scores)), values, alone=runs == 1)


def _interval(value: float, drawn: np.ndarray, *, alone: bool) -> Interval:
    """The interval of a figure from its resampled values; none where one run stands alone."""
    better = float(np.mean(drawn > 0) + np.mean(drawn == 0) / 2)
    if alone:
        return Interval(value, None, None, better)
    low, high = np.quantile(drawn, TAILS)
    return Interval(value, float(low), float(high), better)
