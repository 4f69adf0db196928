"""Intervals and tests over seeds and over paired outcomes.

Seeds answer whether another run would differ, test items whether another test set would; what an
interval varies over stands with it. Shares are in 0..1, p-values two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """A mean over seeds.

    Attributes:
      n: seeds.
      mean: of the values.
      deviation: the sample's, with n - 1; None for one value.
      low, high: the t interval of the mean at `LEVEL`; None for one value.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, sample deviation s and t interval: mean +- t_{.975, n-1} s / sqrt(n).

    Raises:
      ValueError: no values.
    """
    n = len(values)
    if not n:
        raise ValueError("a mean of no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(n, mean, None, None, None)
    deviation = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * deviation / math.sqrt(n)
    return Summary(n, mean, deviation, mean - half, mean + half)


def wilson(right: int, total: int) -> tuple[float, float]:
    """The Wilson interval of a share: honest at 0 and at 1, where the t interval is not.

    Source: Wilson 1927, JASA 22.
    """
    interval = stats.binomtest(right, total).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Paired:
    """Two systems compared over the same seeds.

    Attributes:
      difference: mean of a - b with its t interval.
      p: of the paired t test; None for one seed, and where all differences are one value.
    """

    difference: Summary
    p: float | None


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """The paired t interval and test of a - b, seed by seed.

    Raises:
      ValueError: not as many of one as of the other.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    difference = summarise(differences)
    if difference.n == 1 or not difference.deviation:
        return Paired(difference, None)
    return Paired(difference, float(stats.ttest_1samp(differences, 0.0).pvalue))


def permutation(differences: Sequence[float], *, rounds: int = 9999, seed: int = 0) -> float:
    """The p-value of a sign-flip test of paired differences d_i.

    The share of sign patterns whose |sum| is at least the observed one: all 2^n of them where they
    are no more than `rounds`, else `rounds` drawn ones, the observed counted in: (c + 1) / (B + 1).

    Source: Noreen 1989, Computer-Intensive Methods for Testing Hypotheses (approximate
    randomisation).
    """
    d = np.asarray(differences, np.float64)
    if not len(d):
        raise ValueError("a permutation test of no differences")
    observed = abs(d.sum())
    bound = observed - 1e-9 * np.abs(d).sum()  # sums of the same numbers differ by rounding
    if 2 ** len(d) <= rounds:
        patterns = np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ d) >= bound))
    rng = np.random.default_rng(seed)
    reached = 0
    for start in range(0, rounds, 1000):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (min(1000, rounds - start), len(d)))
        reached += int(np.sum(np.abs(signs @ d) >= bound))
    return (reached + 1) / (rounds + 1)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact p-value of two systems right on the same items.

    Args:
      only_a: items that a alone has right.
      only_b: items that b alone has right.

    Returns:
      The two-sided binomial p of `only_a` in `only_a + only_b` at 1/2; 1 where there are none.

    Source: McNemar 1947, Psychometrika 12.
    """
    discordant = only_a + only_b
    return float(stats.binomtest(only_a, discordant).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the family-wise error: max_{j <= i} min(1, (m - j + 1) p_(j)).

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, (len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted.tolist()


def minimum_detectable_effect(deviation: float, n: int, *, power: float = 0.8) -> float:
    """The least true difference that n paired seeds find with the given probability.

    The effect d at which the two-sided paired t test at 5 % has this power: its statistic follows a
    noncentral t with n - 1 degrees of freedom and noncentrality d sqrt(n) / deviation.

    Args:
      deviation: of the paired differences between seeds, above 0, from earlier runs.
      n: seeds, at least 2.
      power: the probability.

    Raises:
      ValueError: fewer than two seeds, or a deviation of 0.
    """
    if n < 2 or deviation <= 0:
        raise ValueError(f"no effect can be told from {n} seeds with deviation {deviation}")
    bound = stats.t.ppf(0.5 + LEVEL / 2, n - 1)

    def missing(shift: float) -> float:
        found = stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift)
        return float(found) - power

    highest = 2.0
    while missing(highest) < 0:
        highest *= 2
    return float(optimize.brentq(missing, 0.0, highest)) * deviation / math.sqrt(n)


def expected_best(values: Sequence[float], n: int) -> float:
    """The expected best of n trials: E = sum_i v_(i) [(i/N)^n - ((i-1)/N)^n] over N sorted values.

    What a search of n trials would have reported, drawn with replacement from the trials made.

    Raises:
      ValueError: n is not in 1..N.

    Source: Dodge et al. 2019, Show Your Work, EMNLP, arXiv:1909.03004.
    """
    total = len(values)
    if not 1 <= n <= total:
        raise ValueError(f"the best of {n} trials, of {total} made")
    shares = (np.arange(total + 1) / total) ** n
    return float(np.sort(values) @ np.diff(shares))
