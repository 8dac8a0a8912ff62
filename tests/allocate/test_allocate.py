"""Allocators against numbers worked by hand, brute force, dynamic programming and SciPy."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from budgeteer import Items, Plan, chain
from budgeteer.allocate import (
    cap,
    dynamic_sampling,
    elimination,
    floor,
    knapsack,
    neyman,
    round_to_budget,
    uniform,
    variance,
)
from budgeteer.allocate._knapsack import group_value
from budgeteer.allocate._neyman import neyman_price, neyman_units
from budgeteer.allocate.kit.solve import spend
from budgeteer.core.errors import InvalidInput


def make(cost, **columns):
    cost = np.asarray(cost, dtype=np.float64)
    filled = {name: np.asarray(column) for name, column in columns.items()}
    return Items(tuple("abcdefghijklmnopqrstuvwxyz"[: len(cost)]), cost, **filled)


def units(allocator, budget, items, seed=0):
    return allocator.allocate(budget, items, allocator.init(items), rng=np.random.default_rng(seed)).units.tolist()


# uniform


def test_uniform_gives_extra_units_to_those_that_still_fit():
    items = make([10, 20, 30])
    assert units(uniform(), 60 * 3, items) == [3, 3, 3]
    for seed in range(20):
        got = units(uniform(), 60 + 10, items, seed)
        assert got == [2, 1, 1]  # only the first extra fits, whatever the order
    assert {tuple(units(uniform(), 60 + 30, items, seed)) for seed in range(40)} == {(2, 2, 1), (1, 1, 2)}


def test_uniform_with_units_stops_there_and_stays_within_a_small_budget():
    items = make([10, 20, 30])
    assert units(uniform(4), 10_000, items) == [4, 4, 4]
    assert sum(units(uniform(4), 25, items)) == 1


# neyman


def removed(std, n):
    return float(np.sum(np.asarray(std) ** 2 / np.asarray(n)))


def test_neyman_by_hand():
    # s / sqrt(L) = 1, 3, 1: continuous n = u * that, 1 * 1 * u + 1 * 3 * u + 4 * 1 * u = 40 -> u = 5.
    items = make([1, 1, 4], std=[1.0, 3.0, 2.0])
    plan = neyman().allocate(40, items, (), rng=np.random.default_rng(0))
    assert plan.units.tolist() == [5, 15, 5]
    assert plan.expected_cost == 40
    assert plan.price == pytest.approx(1 / 25)


def brute(std, cost, budget, low, high):
    best = math.inf
    for n in itertools.product(range(low, high + 1), repeat=len(std)):
        if np.dot(n, cost) <= budget:
            best = min(best, removed(std, n))
    return best


@settings(max_examples=60, deadline=None)
@given(
    std=st.lists(st.floats(0.05, 5), min_size=1, max_size=4),
    low=st.integers(1, 2),
    extra=st.integers(0, 18),
)
def test_neyman_is_optimal_to_the_unit_for_equal_costs(std, low, extra):
    std, cost = np.array(std), np.full(len(std), 3.0)
    budget = 3 * (low * len(std) + extra) + 1
    got, _ = neyman_units(std, cost, budget, low, 8)
    assert spend(got, cost) <= budget
    assert got.min() >= low
    assert removed(std, got) == pytest.approx(brute(std, cost, budget, low, 8), rel=1e-12)


def test_neyman_beats_flooring_the_continuous_solution():
    # Continuous n = 100 and 1.6 each; the hundredth unit of the first is worth less than a second one of the others.
    std, cost = np.array([100.0] + [1.6] * 5), np.ones(6)
    got, price = neyman_units(std, cost, 108, 1, 200)
    assert price == pytest.approx(1.0)
    assert got.tolist() == [98, 2, 2, 2, 2, 2]


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.floats(0.1, 3), st.integers(1, 9)), min_size=2, max_size=4), extra=st.integers(0, 60))
def test_neyman_with_unequal_costs_is_within_one_unit_of_the_optimum(rows, extra):
    std, cost = np.array([r[0] for r in rows]), np.array([float(r[1]) for r in rows])
    budget = int(cost.sum()) + extra
    got, _ = neyman_units(std, cost, budget, 1, 7)
    best = brute(std, cost, budget, 1, 7)
    assert spend(got, cost) <= budget
    assert np.all((got == 7) | (spend(got, cost) + cost > budget))  # nothing that fits is left unbought
    assert best - 1e-12 <= removed(std, got) <= best + float(np.max(std**2 / (got * (got + 1)))) + 1e-12


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(0.2, 3), st.floats(1, 20)), min_size=2, max_size=5), share=st.floats(0.05, 0.95)
)
def test_price_solves_the_continuous_problem(rows, share):
    std, cost = np.array(rows).T
    low, high = 2, 9
    budget = cost.sum() * (low + share * (high - low))
    price = neyman_price(std, cost, budget, low, high)
    n = np.clip(std / np.sqrt(price * cost), low, high)
    assert float(n @ cost) == pytest.approx(budget, rel=1e-9)
    scipy = minimize(
        lambda x: float(np.sum(std**2 / x)),
        np.full(len(std), low + share * (high - low)),
        jac=lambda x: -(std**2) / x**2,
        bounds=[(low, high)] * len(std),
        constraints={"type": "eq", "fun": lambda x: float(x @ cost) - budget, "jac": lambda x: cost},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert removed(std, n) <= scipy.fun * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.floats(0.1, 3), st.integers(1, 9)), min_size=1, max_size=4), extra=st.integers(0, 60))
def test_neyman_certifies_its_gap(rows, extra):
    items = make([float(r[1]) for r in rows], std=[r[0] for r in rows])
    budget = int(items.cost.sum()) + extra
    plan = neyman(max_units=7).allocate(budget, items, (), rng=np.random.default_rng(0))
    best = brute(items.std, items.cost, budget, 1, 7)
    assert -plan.value == pytest.approx(removed(items.std, plan.units), rel=1e-12)
    assert best >= -plan.value - plan.gap - 1e-9
    equal = dataclasses.replace(items, cost=np.full(len(rows), 3.0))
    plan = neyman(max_units=7).allocate(3 * len(rows) + extra, equal, (), rng=np.random.default_rng(0))
    assert plan.gap == pytest.approx(0, abs=1e-9)


def test_neyman_minimum_that_does_not_fit_goes_to_the_densest():
    items = make([10, 10, 10], std=[1.0, 3.0, 2.0])
    assert units(neyman(min_units=2), 45, items) == [0, 2, 2]
    assert units(neyman(), 0, items) == [0, 0, 0]


def test_neyman_does_not_buy_what_removes_no_variance():
    assert units(neyman(), 1000, make([1, 1], std=[0.0, 1.0])) == [1, 32]
    assert units(neyman(), 1000, make([1, 1], std=[0.0, 0.0])) == [1, 1]


def test_neyman_published_rounds_and_trims_the_costliest():
    rng = np.random.default_rng(3)
    items = make(rng.uniform(5, 60, 20), std=rng.gamma(1.0, 1.0, 20))
    budget = int(items.cost.sum() * 4)
    ours = neyman().allocate(budget, items, (), rng=rng)
    theirs = neyman(published=True).allocate(budget, items, (), rng=rng)
    assert theirs.expected_cost <= budget
    assert theirs.price == pytest.approx(ours.price, rel=0.15)
    assert removed(items.std, ours.units) <= removed(items.std, theirs.units)


# knapsack


def exact(rate, total, low, high):
    """Best sum of values by dynamic programming over (prompt, rollouts left)."""
    best = np.full(total + 1, -np.inf)
    best[0] = 0.0
    for p in rate:
        value = group_value(np.arange(high + 1), np.full(high + 1, p))
        best = np.array(
            [
                max((best[t - n] + value[n] for n in range(low, min(high, t) + 1)), default=-np.inf)
                for t in range(total + 1)
            ]
        )
    return float(np.max(best))


@settings(max_examples=30, deadline=None)
@given(rate=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5), extra=st.integers(0, 25))
def test_knapsack_greedy_equals_dynamic_programming(rate, extra):
    total = 2 * len(rate) + extra
    items = make(np.full(len(rate), 7.0), pass_rate=rate)
    got = np.array(units(knapsack(high=12), 7 * total, items))
    assert got.sum() == min(total, 12 * len(rate))
    assert float(group_value(got, np.array(rate)).sum()) == pytest.approx(exact(rate, total, 2, 12), rel=1e-12)


def test_knapsack_unseen_solved_failed():
    items = make([1, 1, 1, 1], pass_rate=[np.nan, 1.0, 0.0, 0.5])
    assert units(knapsack(), 32, items) == [8, 2, 18, 4]  # need at p = .5: ceil(log .1 / log .5) = 4
    assert units(knapsack(fallback=False), 32, items) == [8, 2, 2, 20]
    assert units(knapsack(), 17, make([1, 1], pass_rate=[np.nan, np.nan])) in ([9, 8], [8, 9])


def test_knapsack_on_costly_items_gives_the_least_gain_back():
    items = make([1, 99], pass_rate=[0.97, 0.3])
    got = knapsack().allocate(1000, items, (), rng=np.random.default_rng(0))  # 20 rollouts of 50 tokens on average
    assert got.expected_cost <= 1000


def test_knapsack_per_token_buys_more_value_with_the_same_tokens():
    rng = np.random.default_rng(0)
    items = make(rng.uniform(1, 60, 26), pass_rate=rng.uniform(0.01, 0.99, 26))
    budget = int(6 * items.cost.sum())
    value = [
        float(group_value(np.array(units(knapsack(per_token=flag), budget, items)), items.pass_rate).sum())
        for flag in (False, True)
    ]
    assert value[1] > value[0] * 1.01


def test_knapsack_minimum_that_does_not_fit():
    items = make([10, 10, 10, 10], pass_rate=[1.0, np.nan, 0.0, 0.4])
    assert units(knapsack(), 40, items) == [0, 2, 0, 2]


# variance, elimination, dynamic sampling


def test_variance_ignores_order_of_p_and_one_minus_p():
    items = make([10, 10, 10], pass_rate=[0.1, 0.9, np.nan])
    got = units(variance(), 10 * 22, items)
    assert got == [6, 6, 10]


def test_elimination_rounds():
    items = make([10] * 4, drawn=[0, 8, 32, 8], right=[0, 2, 0, 8])
    assert units(elimination(), 10_000, items) == [8, 0, 0, 8]
    assert units(elimination(exit="pos"), 10_000, items) == [8, 0, 0, 0]
    assert sorted(units(elimination(), 100, items)) == [0, 0, 0, 8]
    assert units(elimination(), 10_000, make([10] * 2)) == [8, 8]


def test_dynamic_sampling_takes_candidates_in_order():
    items = make([10, 10, 50, 10], drawn=[8, 0, 0, 0], right=[4, 0, 0, 0])
    assert units(dynamic_sampling(target=3), 10_000, items) == [0, 8, 8, 0]
    assert units(dynamic_sampling(target=3), 200, items) == [0, 8, 0, 0]  # does not skip to the cheap one
    assert units(dynamic_sampling(target=1), 10_000, items) == [0, 0, 0, 0]


# transforms


def test_transforms_chain():
    items = make([1, 1, 1], std=[0.1, 1.0, 3.0])
    plan = chain(neyman(), floor(3), cap(9), round_to_budget()).allocate(14, items, (), rng=np.random.default_rng(0))
    assert plan.units.tolist() == [3, 3, 8]
    assert plan.expected_cost == 14


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.1, 50)), min_size=1, max_size=8), st.integers(0, 500))
def test_round_to_budget_never_exceeds_and_never_adds(rows, budget):
    items = make([r[1] for r in rows])
    plan = Plan(items.keys, np.array([r[0] for r in rows]), math.nan)
    got = round_to_budget()(plan, budget, items)
    assert spend(got.units, items.cost) <= budget
    assert np.all(got.units <= plan.units)
    if spend(plan.units, items.cost) <= budget:
        assert got is plan


# bad arguments


@pytest.mark.parametrize(
    "factory",
    [
        lambda: uniform(0),
        lambda: neyman(min_units=0),
        lambda: variance(min_units=5, max_units=4),
        lambda: knapsack(low=0),
        lambda: elimination(rounds=0),
        lambda: elimination(exit="maybe"),
        lambda: dynamic_sampling(target=0),
        lambda: floor(-1),
    ],
)
def test_bad_arguments_are_named(factory):
    with pytest.raises(InvalidInput):
        factory()


def test_missing_column_and_negative_budget():
    with pytest.raises(
        InvalidInput,
        match=r"neyman needs the column 'std' of Items .* have only: cost\. To add 'std': put it into every line",
    ):
        units(neyman(), 10, make([1.0]))
    with pytest.raises(InvalidInput, match="budget is -1"):
        units(uniform(), -1, make([1.0]))
