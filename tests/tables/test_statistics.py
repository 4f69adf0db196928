"""Intervals and tests: worked numbers, and their level on simulated data of known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dlm.tables.statistics import (
    Summary,
    expected_best,
    holm,
    mcnemar,
    minimum_detectable_effect,
    paired,
    permutation,
    summarise,
    wilson,
)

A = [70.1, 70.4, 69.8, 70.9, 70.3]
B = [69.5, 70.1, 69.9, 70.2, 69.6]
HALF = 2.776445 * 0.181659  # t of 4 degrees of freedom, times s / sqrt(5)


def test_t_interval():
    found = summarise(A)
    assert found.n == 5
    assert found.mean == pytest.approx(70.3)
    assert found.deviation == pytest.approx(0.406202, abs=5e-7)
    assert (found.low, found.high) == pytest.approx((69.795634, 70.804366), abs=5e-7)
    assert (found.high - found.low) / 2 == pytest.approx(HALF, abs=1e-6)


def test_one_run_has_no_error_and_no_interval():
    """A single value gets no deviation rather than one of 0 (C52)."""
    assert summarise([0.5]) == Summary(1, 0.5, None, None, None)
    assert paired([0.5], [0.4]).p is None
    with pytest.raises(ValueError, match="no values"):
        summarise([])


def test_wilson():
    assert wilson(87, 100) == pytest.approx((0.790196, 0.922428), abs=5e-7)
    low, high = wilson(100, 100)
    assert low == pytest.approx(100 / (100 + 1.959964**2), abs=1e-6)  # below 1: an honest interval
    assert high == pytest.approx(1.0)


def test_paired():
    found = paired(A, B)
    assert found.difference.mean == pytest.approx(0.44)
    assert found.difference.deviation == pytest.approx(0.343511, abs=5e-7)
    assert found.p == pytest.approx(0.0457373, abs=5e-8)


def test_paired_is_not_the_test_of_independent_runs():
    """The pairing is what makes it significant here: unpaired, p is above 0.05 (C53)."""
    assert stats.ttest_ind(A, B).pvalue > 0.05


def test_equal_differences_have_no_test():
    assert paired([1.0, 2.0], [0.0, 1.0]).p is None


def test_permutation_exact():
    """All 256 sign patterns: 160 reach the observed sum."""
    assert permutation([1, 0, 1, 0, 0, 0, 1, -1]) == 160 / 256
    assert permutation([1, 1, 1]) == 2 / 8


def test_permutation_drawn():
    """The observed is counted in: p is never below 1 / (B + 1) (C53)."""
    strong = [1.0] * 30
    assert permutation(strong, rounds=199) == 1 / 200
    assert permutation([1, -1] * 20, rounds=99) == 1.0  # a sum of 0 is reached by all
    d = np.random.default_rng(1).normal(0.3, 1, 12)
    assert permutation(d, rounds=4095) == pytest.approx(permutation(d), abs=0.03)


def test_mcnemar():
    assert mcnemar(15, 5) == pytest.approx(0.0413894653, abs=5e-11)
    assert mcnemar(3, 1) == 0.625
    assert mcnemar(0, 0) == 1.0


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_expected_best():
    values = [0.80, 0.70, 0.82, 0.74]
    found = [expected_best(values, n) for n in (1, 2, 3, 4)]
    assert found == pytest.approx([0.765, 0.79125, 0.8034375, 0.80976563])
    with pytest.raises(ValueError, match="best of 5 trials, of 4"):
        expected_best(values, 5)


def test_minimum_detectable_effect_is_found_with_its_power():
    """Of simulated ablations with just this effect, 80 % are significant."""
    effect = minimum_detectable_effect(2.0, 6)
    rng = np.random.default_rng(0)
    differences = rng.normal(effect, 2.0, (20_000, 6))
    found = np.mean(stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 20_000))
    assert minimum_detectable_effect(4.0, 6) == pytest.approx(2 * effect)
    with pytest.raises(ValueError, match="1 seeds"):
        minimum_detectable_effect(1.0, 1)


def test_t_intervals_cover():
    """95 % intervals over five seeds hold the truth in 93 to 97 % of simulations (C51)."""
    rng = np.random.default_rng(2)
    found = [summarise(values) for values in rng.normal(3.0, 2.0, (4000, 5)).tolist()]
    assert 0.93 <= np.mean([x.low <= 3.0 <= x.high for x in found]) <= 0.97


def test_tests_keep_their_level():
    """With no effect p < 0.05 in 5 % of ablations, one family of five in 5 % after Holm (C53)."""
    rng = np.random.default_rng(3)
    runs = rng.normal(0.0, 1.0, (400, 5, 2, 8))
    p = np.array([[paired(a, b).p for a, b in family] for family in runs])
    bound = 4 * math.sqrt(0.05 * 0.95 / p.size)
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=bound)
    hit = np.mean([min(holm(family)) < 0.05 for family in p])
    assert hit <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / len(p))
    exact = [permutation(a - b) for a, b in runs[:, 0]]
    assert np.mean(np.array(exact) < 0.05) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=9))
def test_swapping_the_systems_swaps_the_sign_and_keeps_p(pairs):
    """C53: the difference changes its sign, no p-value changes."""
    a, b = zip(*pairs, strict=True)
    one, other = paired(a, b), paired(b, a)
    assert one.difference.mean == -other.difference.mean
    assert one.p == (other.p if other.p is None else pytest.approx(other.p))
    d = np.subtract(a, b)
    assert permutation(d) == permutation(-d)
