"""CLEAR against all plans, an exact solver of menus, scipy's Lambert W and prices worked from the definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.special import lambertw

from budgeteer.allocate import clear, menu_knapsack
from budgeteer.allocate._clear import lambert_w
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, Menu, Plan

RNG = np.random.default_rng(0)


def plan(threshold: list[float], budget: int, width: float, cost: list[float] | None = None) -> Plan:
    items = Items(
        tuple(f"i{i:02d}" for i in range(len(threshold))),
        np.array(cost or [1.0] * len(threshold)),
        threshold=np.array(threshold),
    )
    return clear(width).allocate(budget, items, (), rng=RNG)


def use(units: int, threshold: float, width: float) -> float:
    x = max(0.0, units - threshold)
    return x / width * math.exp(1 - x / width)


def test_lambert_w_is_scipys() -> None:
    z = np.concatenate([np.geomspace(1e-300, math.e, 300), [0.0]])
    assert lambert_w(z) == pytest.approx(lambertw(z).real, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("seed", range(12))
def test_no_plan_is_better_than_certified_and_few_are_better_at_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    threshold, width, budget = rng.uniform(0, 14, 3).tolist(), float(rng.uniform(3, 9)), int(rng.integers(5, 40))
    found = plan(threshold, budget, width)
    best = max(
        sum(use(n, t, width) for n, t in zip(units, threshold, strict=True))
        for units in itertools.product(range(budget + 1), repeat=3)
        if sum(units) <= budget
    )
    assert found.value == pytest.approx(
        sum(use(int(n), t, width) for n, t in zip(found.units, threshold, strict=True)), abs=1e-12
    )
    assert best - found.value <= found.gap + 1e-9
    assert found.value >= 0.97 * best


@pytest.mark.parametrize(("budget", "share"), [(60, 0.97), (200, 0.99), (600, 0.99), (1500, 0.99)])
def test_as_good_as_an_exact_solver_of_menus(budget: int, share: float) -> None:
    rng = np.random.default_rng(budget)
    threshold, width = rng.uniform(5, 90, 25), 20.0
    cost = [np.arange(1, int(t + width) + 2) for t in threshold]
    value = [np.array([use(int(n), t, width) for n in own]) for own, t in zip(cost, threshold, strict=True)]
    items = Items(tuple(f"i{i:02d}" for i in range(25)), menu=Menu.of(cost, value))
    exact = menu_knapsack(exact=True).allocate(budget, items, (), rng=RNG)
    found = plan(threshold.tolist(), budget, width)
    assert exact.gap == pytest.approx(0, abs=1e-9)
    assert share * exact.value <= found.value <= exact.value + 1e-9
    assert found.value + found.gap >= exact.value - 1e-9


def test_all_that_take_part_have_the_same_marginal_use_and_no_abandoned_one_would_pay() -> None:
    threshold, width = [10.0, 30.0, 35.0, 80.0, 300.0], 50.0
    found = plan(threshold, 200, width)
    x = np.array([n - t for n, t in zip(found.units.tolist(), threshold, strict=True) if n])
    slope = np.exp(1 - x / width) / width * (1 - x / width)
    assert len(x) == 3
    assert np.ptp(slope) < 2 / width**2  # a unit of rounding
    assert found.expected_cost == 200
    surplus = [
        max(use(n, t, width) - found.price * n for n in range(1, 500))
        for n_given, t in zip(found.units.tolist(), threshold, strict=True)
        if not n_given
    ]
    assert max(surplus) < 0.05


def test_dear_units_are_abandoned_first_and_equal_items_enter_one_by_one() -> None:
    assert plan([20.0, 20.0], 50, 20.0, cost=[1.0, 5.0]).units.tolist() == [40, 0]
    found = plan([20.0] * 4, 75, 20.0)
    assert np.count_nonzero(found.units) == 2
    assert found.units.sum() == 75


def test_with_enough_everybody_has_the_whole_surge_and_no_more() -> None:
    found = plan([3.0, 50.0], 10_000, 10.0)
    assert found.units.tolist() == [13, 60]
    assert (found.price, found.gap) == (0.0, pytest.approx(0.0))
    assert found.value == pytest.approx(2.0)


def test_nobody_can_pay_or_wrong_width() -> None:
    assert plan([30.0, 40.0], 30, 5.0).units.tolist() == [0, 0]
    for width in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="units above 0"):
            clear(width)
    with pytest.raises(InvalidInput, match="threshold"):
        clear().allocate(9, Items(("a",), np.ones(1)), (), rng=RNG)
