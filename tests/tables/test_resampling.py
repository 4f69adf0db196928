"""Bootstraps: worked numbers, coverage where truth is known, and what is resampled together."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from dlm.tables.resampling import (
    interquartile_mean,
    optimality_gap,
    paired_bootstrap,
    probability_of_improvement,
    ratio,
    stratified_bootstrap,
    stretch,
)
from dlm.tables.statistics import summarise


def counted(values) -> np.ndarray:
    """[S, I] values as totals and counts [S, I, 2]."""
    values = np.asarray(values, np.float64)
    return np.stack([values, np.ones_like(values)], -1)


def test_one_level_is_the_bootstrap_over_items():
    """One seed, d = 1, 0, 1, 0, 0, 0, 1, -1: P(> 0) = .79086, and what equals 0 counts half.

    By all 8^8 resamples P(> 0) + P(= 0) / 2 = .79086095 + P(= 0) / 2, found by convolution.
    """
    d = [1, 0, 1, 0, 0, 0, 1, -1]
    steps = np.bincount(np.add(d, 1)) / 8
    sums = np.array([1.0])
    for _ in range(8):
        sums = np.convolve(sums, steps)
    assert sums[9:].sum() == pytest.approx(0.79086095, abs=5e-9)
    found = paired_bootstrap(counted([d]), counted([[0] * 8]), rounds=20_000)
    assert found.value == pytest.approx(2 / 8)
    assert found.better == pytest.approx(sums[9:].sum() + sums[8] / 2, abs=0.01)
    assert found.low is None  # one seed says nothing of others


def test_a_figure_of_sums_is_divided_once():
    """Of totals 1 of 2 and 9 of 10, the figure is 10 / 12, not the mean of the shares."""
    a = np.array([[[1.0, 2.0], [9.0, 10.0]]])
    b = np.array([[[0.0, 2.0], [0.0, 10.0]]])
    assert paired_bootstrap(a, b, rounds=10).value == pytest.approx(10 / 12)
    assert ratio(np.array([3.0, 4.0])) == 0.75


def test_both_sides_draw_the_same():
    """Two equal systems differ by 0 in every resample (C51: the same indices on both sides)."""
    a = counted(np.random.default_rng(0).random((4, 30)))
    found = paired_bootstrap(a, a, rounds=300)
    assert (found.low, found.value, found.high, found.better) == (0.0, 0.0, 0.0, 0.5)


def test_swapping_the_systems_mirrors_the_interval():
    rng = np.random.default_rng(1)
    a, b = counted(rng.random((5, 20))), counted(rng.random((5, 20)))
    one, other = paired_bootstrap(a, b, rounds=400), paired_bootstrap(b, a, rounds=400)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.better == pytest.approx(1 - other.better)


def covered(items: float, seeds: float, noise: float, simulations: int = 1000) -> float:
    """How often the interval of ten seeds and 40 dialogues holds the true difference, 0.3."""
    rng = np.random.default_rng(5)
    held = 0
    for number in range(simulations):
        effects = rng.normal(0, seeds, (10, 1)) + rng.normal(0, items, (1, 40))
        values = 0.3 + effects + rng.normal(0, noise, (10, 40))
        zeros = np.zeros_like(values)
        found = paired_bootstrap(counted(values), counted(zeros), rounds=500, seed=number)
        held += found.low <= 0.3 <= found.high
    return held / simulations


@pytest.mark.slow
def test_two_level_intervals_cover():
    """95 % intervals hold the truth in 93 to 97 % of simulations, whichever level varies (C51).

    Seeds or dialogues alone, both, and both with the noise of single answers.
    """
    for items, seeds, noise in ((0.0, 1.0, 0.3), (1.0, 0.3, 0.3), (1.0, 0.5, 1.0)):
        assert 0.93 <= covered(items, seeds, noise) <= 0.975


def test_few_seeds_are_stretched_to_the_t_interval():
    """Where seeds alone differ: the t interval of their values, within the noise of the draws."""
    values = stats.norm.ppf((np.arange(10) + 0.5) / 10)
    zeros = counted(np.zeros((10, 1)))
    found = paired_bootstrap(counted(values[:, None]), zeros, rounds=50_000)
    wanted = summarise(values.tolist())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=0.03)
    assert stretch(10_000) == pytest.approx(1.0, abs=1e-3)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="pairs of shapes"):
        paired_bootstrap(counted([[1.0]]), counted([[1.0, 2.0]]))


def test_interquartile_mean():
    scores = np.array([[0.2, 0.9], [0.4, 1.0], [0.6, 0.1], [0.8, 0.5]])
    assert interquartile_mean(scores) == pytest.approx(0.575)
    assert optimality_gap(scores) == pytest.approx(0.4375)
    nine = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert interquartile_mean(nine[None]) == pytest.approx(0.56)


def test_probability_of_improvement():
    assert probability_of_improvement([[3], [5], [7]], [[4], [5], [6]]) == 0.5
    assert probability_of_improvement([[3, 1], [3, 1]], [[2, 2]]) == 0.5


def test_stratified_bootstrap_draws_runs_within_each_task():
    """Of [[1, 3], [2, 5]] there are 16 resamples; their percentiles are 2.09375 and 3.40625."""
    scores = np.array([[1.0, 3.0], [2.0, 5.0]])
    exact = [
        (a + b + c + d) / 4
        for a, b in product((1, 2), repeat=2)
        for c, d in product((3, 5), repeat=2)
    ]
    assert np.quantile(exact, (0.025, 0.975)) == pytest.approx((2.09375, 3.40625))
    found = stratified_bootstrap(scores, lambda x: x.mean((-2, -1)), rounds=20_000)
    assert found.value == 2.75
    assert set(np.quantile(exact, (0.01, 0.99))) <= {2.0375, 3.4625}
    assert (found.low, found.high) == pytest.approx((2.0, 3.5), abs=0.26)


def test_one_run_has_no_interval():
    """Resampling one run in each task would give an interval of width 0 (C52)."""
    found = stratified_bootstrap(np.array([[0.5, 0.7]]), interquartile_mean)
    assert (found.low, found.high) == (None, None)
