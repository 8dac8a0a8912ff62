"""Posted prices: no false report pays, by brute force; they are worth what the method behind them is worth, or more."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import pytest

pytest.importorskip("scipy")

from budgeteer.check import best_online
from budgeteer.core.errors import InvalidInput
from budgeteer.online import online_matching
from budgeteer.online.posted_prices import expected, posted_prices, taken

N, TIMES = 3, 4
Sets = tuple[bool, ...]


def types(seed):
    """[T, 2, n] values of a request's two types, and [T, 2] their chances; with what is left no request comes."""
    rng = np.random.default_rng([seed, 31])
    return rng.exponential(1.0, (TIMES, 2, N)) * (rng.random((TIMES, 2, N)) < 0.8), rng.uniform(0.1, 0.5, (TIMES, 2))


def best_of_types(value, chance):
    """(time, free) -> what the best online method expects, by dynamic programming over sets and types."""

    @lru_cache(None)
    def worth(time: int, free: Sets) -> float:
        if time == TIMES:
            return 0.0
        total = (1 - chance[time].sum()) * worth(time + 1, free)
        for v, q in zip(value[time], chance[time], strict=True):
            choices = [worth(time + 1, free)]
            choices += [v[i] + worth(time + 1, without(free, i)) for i in range(N) if free[i]]
            total += q * max(choices)
        return total

    return worth


def without(free: Sets, i: int) -> Sets:
    return (*free[:i], False, *free[i + 1 :])


def welfare(value, chance, rest):
    """What requests that buy at posted prices are worth together, exactly; ``rest`` is (time, free) -> value."""

    @lru_cache(None)
    def worth(time: int, free: Sets) -> float:
        if time == TIMES:
            return 0.0
        prices = posted_prices(lambda left: rest(time + 1, tuple(left.tolist())), np.array(free))
        total = (1 - chance[time].sum()) * worth(time + 1, free)
        for v, q in zip(value[time], chance[time], strict=True):
            i = taken(v, prices)
            total += q * (worth(time + 1, free) if i < 0 else v[i] + worth(time + 1, without(free, i)))
        return total

    return worth(0, (True,) * N)


@pytest.mark.parametrize("seed", range(3))
def test_no_false_report_pays(seed):
    """Every true value and every report on a grid, at the prices of every set of free resources."""
    value, chance = types(seed)
    rest = best_of_types(value, chance)
    grid = [np.array(report) for report in itertools.product((0.0, 0.3, 0.9, 2.5), repeat=N)]
    sold = 0
    for free in itertools.product((True, False), repeat=N):
        prices = posted_prices(lambda left: rest(1, tuple(left.tolist())), np.array(free))
        assert np.all(np.isinf(prices) == ~np.array(free))
        for true in grid:
            said = [taken(report, prices) for report in grid]
            gains = [true[i] - prices[i] if i >= 0 else 0.0 for i in said]
            honest = taken(true, prices)
            own = true[honest] - prices[honest] if honest >= 0 else 0.0
            assert own == max(gains) >= 0
            sold += honest >= 0
    assert sold  # or nothing is tested


@pytest.mark.parametrize("seed", range(3))
def test_prices_of_the_best_method_are_worth_what_it_is_with_several_types(seed):
    value, chance = types(seed)
    best = best_of_types(value, chance)
    assert welfare(value, chance, best) == pytest.approx(best(0, (True,) * N))
    if seed == 0:  # the oracle itself, where both types are one
        one = np.repeat(value[:, :1], 2, axis=1)
        assert best_of_types(one, chance)(0, (True,) * N) == pytest.approx(best_online(one[:, 0].T, chance.sum(1)))


@pytest.mark.parametrize("seed", [1, 2])
def test_prices_of_a_plan_are_worth_at_least_the_plan(seed):
    value, chance = types(seed)
    one, q = value[:, 0].T, chance.sum(1)
    plan = online_matching(one, q)

    @lru_cache(None)
    def rest(time: int, free: Sets) -> float:
        return expected(plan, time, np.array(free), draws=200) if time < TIMES and any(free) else 0.0

    got = welfare(value[:, :1], q[:, None], rest)
    own = expected(plan, 0, np.ones(N, np.bool_), draws=1500, seed=1)
    assert 0.98 * own - 0.05 <= got <= best_online(one, q) + 1e-9
    assert got >= 0.678 * best_online(one, q)


def test_what_a_plan_is_worth_by_hand():
    """One resource: 1 now for certain or 3 with half a chance; the plan waits, which is worth 1.5."""
    plan = online_matching(np.array([[1.0, 3.0]]), np.array([1.0, 0.5]))
    free = np.array([True])
    assert expected(plan, 0, free, draws=800) == pytest.approx(1.5, abs=0.2)
    prices = posted_prices(lambda left: expected(plan, 1, left, draws=800), free)
    assert prices == pytest.approx([1.5], abs=0.2)
    assert (taken(np.array([1.0]), prices), taken(np.array([1.8]), prices)) == (-1, 0)


def test_a_value_that_is_none_is_refused():
    with pytest.raises(InvalidInput, match="finite"):
        posted_prices(lambda free: float("nan"), np.array([True]))
