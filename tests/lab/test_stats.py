"""Intervals over seeds against worked numbers, scipy and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer.core.errors import InvalidInput
from budgeteer.lab.stats import Paired, mean_ci, paired, paired_shares, t_quantile


def test_worked_paired_interval() -> None:
    # Differences 0.02, 0.04, 0.03: mean 0.03, s = 0.01, t(0.975, 2) = 4.302653, half = 4.302653 * 0.01 / sqrt(3).
    got = paired([0.52, 0.64, 0.43], [0.50, 0.60, 0.40])
    assert got.n == 3
    assert got.mean == pytest.approx(0.03)
    assert got.high - got.mean == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert got.mean - got.low == pytest.approx(got.high - got.mean)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 29, 300, 1e5])
@pytest.mark.parametrize("p", [0.001, 0.05, 0.3, 0.5, 0.6, 0.9, 0.975, 0.995, 0.9999])
def test_t_quantile_against_scipy(p: float, df: float) -> None:
    from scipy import stats

    assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9, abs=1e-9)


def test_interval_against_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 0.1, 7), rng.normal(0.4, 0.1, 7)
    want = stats.ttest_rel(a, b).confidence_interval(0.9)
    got = paired(a, b, level=0.9)
    assert (got.low, got.high) == pytest.approx((want.low, want.high))


@pytest.mark.parametrize(("n", "level"), [(2, 0.95), (3, 0.95), (5, 0.8), (10, 0.95)])
def test_coverage(n: int, level: float) -> None:
    """The share of simulated intervals that hold the truth is the level, within four standard errors."""
    rng, trials = np.random.default_rng(n), 4000
    shared = rng.normal(0.5, 0.2, (trials, n, 1))
    runs = shared + rng.normal([0.03, 0.0], 0.05, (trials, n, 2))
    intervals = [paired(run[:, 0], run[:, 1], level=level) for run in runs]
    covered = np.mean([i.low <= 0.03 <= i.high for i in intervals])
    assert abs(covered - level) < 4 * math.sqrt(level * (1 - level) / trials)


def test_one_seed_has_no_interval() -> None:
    got = paired([0.9], [0.1])
    assert (got.mean, got.n) == (pytest.approx(0.8), 1)
    assert math.isnan(got.low)
    assert math.isnan(got.high)


def test_identical_seeds_give_a_point() -> None:
    assert mean_ci([0.25, 0.25, 0.25]) == Paired(0.25, 0.25, 0.25, 3)


@pytest.mark.parametrize("bad", [[], [0.1, math.nan], [[0.1], [0.2]]])
def test_bad_values(bad: list[float]) -> None:
    with pytest.raises(InvalidInput, match="seed"):
        mean_ci(bad)


def test_bad_level_and_lengths() -> None:
    with pytest.raises(InvalidInput, match="level"):
        mean_ci([1.0, 2.0], level=95)
    with pytest.raises(InvalidInput, match="same seeds"):
        paired([1.0, 2.0], [1.0])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_swapping_sides_mirrors_the_interval(x: list[float]) -> None:
    zeros = [0.0] * len(x)
    left, right = paired(x, zeros), paired(zeros, x)
    assert (left.mean, left.low, left.high) == pytest.approx((-right.mean, -right.high, -right.low))


def test_worked_paired_shares() -> None:
    """Of 10, three are right in the first alone and one in the second alone.

    p = 4/12, q = 2/12, p - q = 1/6; variance (1/2 - 1/36) / 12 = 0.039352, root 0.198373, times 1.959964 = 0.388804.
    """
    a = [True] * 3 + [False] + [True] * 4 + [False] * 2
    b = [False] * 3 + [True] + [True] * 4 + [False] * 2
    got = paired_shares(a, b)
    assert got.mean == pytest.approx(0.2)
    assert (got.low, got.high) == pytest.approx((1 / 6 - 0.388804, 1 / 6 + 0.388804), abs=1e-6)
    back = paired_shares(b, a)
    assert (back.low, back.high) == pytest.approx((-got.high, -got.low))


@pytest.mark.parametrize("n", [10, 20, 40])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.0, 0.0), (0.02, 0.0), (0.1, 0.02), (0.3, 0.3), (0.6, 0.05)])
def test_coverage_of_paired_shares(n: int, only_a: float, only_b: float) -> None:
    """Every count of the two kinds that differ, with its probability: the truth is held in at least 93 % of samples."""
    from scipy import stats

    covered = 0.0
    for f in range(n + 1):
        for g in range(n + 1 - f):
            chance = stats.multinomial.pmf([f, g, n - f - g], n, [only_a, only_b, 1 - only_a - only_b])
            found = paired_shares([True] * f + [False] * (n - f), [False] * f + [True] * g + [False] * (n - f - g))
            covered += chance * (found.low <= only_a - only_b <= found.high)
    assert covered >= 0.93


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_paired_shares_of_other_samples(a: list[bool], b: list[bool]) -> None:
    with pytest.raises(InvalidInput, match="give as many of both"):
        paired_shares(a, b)
