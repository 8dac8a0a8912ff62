"""What allocators refuse, and that they are right to the ends of float64: budgets, counts, columns, shares."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer import Items, Menu, Plan, chain
from budgeteer.allocate import (
    cap,
    dynamic_sampling,
    elimination,
    floor,
    greedy_marginal,
    knapsack,
    menu_knapsack,
    neyman,
    proportional,
    round_to_budget,
    selective,
    successive_halving,
    thompson,
    uniform,
    variance,
    water_filling,
)
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import MOST


def allocate(allocator, budget, items):
    return allocator.allocate(budget, items, allocator.init(items), rng=np.random.default_rng(0))


def units_of(n, cost=1.0, **columns):
    filled = {name: np.asarray(column) for name, column in columns.items()}
    return Items(tuple("abcdefgh"[:n]), np.full(n, cost), **filled)


# columns


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pass_rate": [1.5, 0.5]}, "pass_rate is 1.5 for 'a'"),
        ({"pass_rate": [math.nan, math.inf]}, "pass_rate is inf for 'b'"),
        ({"pass_rate": [-0.1, 0.5]}, "pass_rate is -0.1 for 'a'; it is a number from 0 to 1, or null"),
        ({"drawn": [8, 8], "right": [8, 9]}, "right is 9 of 8 drawn for 'b'"),
        ({"std": [math.nan, 1.0]}, "std is not finite for 'a'"),
    ],
)
def test_columns_that_mean_nothing_are_refused(columns, message):
    with pytest.raises(InvalidInput, match=message):
        units_of(2, **columns)


@pytest.mark.parametrize("cost", [0.0, -1.0, math.nan, math.inf, 1e-13, 1e19, 5e-324])
def test_costs_that_cannot_be_counted_are_refused(cost):
    with pytest.raises(InvalidInput, match=r"Items\.cost"):
        units_of(2, cost)


def test_rates_that_nobody_has_seen_are_no_rates():
    assert len(units_of(2, pass_rate=[math.nan, math.nan])) == 2


@pytest.mark.parametrize("cost", [10**20, 10**19, 2**63, 10**400, 1e300])
def test_menu_costs_beyond_int64_are_refused_and_never_wrap(cost):
    with pytest.raises(InvalidInput, match="a cost on a menu"):
        Menu.of([[cost, 2]], [[1.0, 2.0]])


# the whole range of float64


magnitudes = st.one_of(
    st.just(0.0),
    st.builds(lambda m, e: math.ldexp(m, e), st.floats(0.5, 1, exclude_max=True), st.integers(-1070, 1020)),
    st.floats(0.1, 10),
)


@settings(max_examples=150, deadline=None)
@given(std=st.lists(magnitudes, min_size=1, max_size=3), extra=st.integers(0, 20), top=st.integers(1, 9))
def test_neyman_is_optimal_whatever_the_magnitude(std, extra, top):
    cost = 3.0
    budget = int(cost) * (len(std) + extra)
    plan = allocate(neyman(max_units=top), budget, units_of(len(std), cost, std=std))

    def removed(units):
        return sum(Fraction(s) ** 2 / n for s, n in zip(std, units, strict=True))

    grid = itertools.product(range(1, top + 1), repeat=len(std))
    best = min(removed(units) for units in grid if 3 * sum(units) <= budget)
    assert removed(plan.units.tolist()) <= best * (1 + Fraction(1, 10**12))
    full = all(n == top or s == 0 for s, n in zip(std, plan.units.tolist(), strict=True))
    assert full or plan.expected_cost > budget - cost  # and what the largest leave over is not wasted
    assert math.isnan(plan.value) or plan.gap >= 0


def test_far_smaller_deviations_share_what_the_large_ones_leave():
    for tiny in (1.0, 1e-200, 1e-320):
        items = units_of(3, std=[1e200, tiny, 2 * tiny])
        assert allocate(neyman(), 62, items).units.tolist() == [32, 10, 20]
    assert allocate(neyman(min_units=2), 5, units_of(3, std=[1e200, 1.0, 2.0])).units.tolist() == [2, 0, 2]
    wide = units_of(4, std=[1.0, 0.3, 1e-9, 2e-9])  # sums over the items lose the small ones' digits
    plan = allocate(neyman(), 32 + 32 + 12, wide)
    assert plan.units.tolist() == [32, 32, 4, 8]
    assert plan.price == pytest.approx((1e-9 / 4) ** 2)


def test_prices_and_values_scale_with_the_deviations():
    rng = np.random.default_rng(0)
    std, cost = rng.gamma(1, 1, 12), rng.uniform(1, 9, 12)
    keys = tuple("abcdefghijkl")
    plain = allocate(neyman(), 400, Items(keys, cost, std=std))
    small = allocate(neyman(), 400, Items(keys, cost, std=std * 2.0**-500))
    assert small.units.tolist() == plain.units.tolist()
    assert (small.price, small.value) == (plain.price * 2.0**-1000, plain.value * 2.0**-1000)
    huge = allocate(neyman(), 400, Items(keys, cost, std=std * 2.0**700))
    assert huge.units.tolist() == plain.units.tolist()
    assert math.isnan(huge.value)  # 2^1400 is no float64


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1e307])
@pytest.mark.parametrize("curve", ["power", "exponential"])
def test_water_filling_and_proportions_do_not_depend_on_the_scale(curve, scale):
    rng = np.random.default_rng(1)
    weight, decay = rng.integers(1, 9, 6) / 8, rng.uniform(0.3, 1.2, 6)
    plain, scaled = (units_of(6, scale=weight * by, decay=decay) for by in (1.0, scale))
    for allocator in (water_filling(curve), proportional("scale")):
        assert allocate(allocator, 60, scaled).units.tolist() == allocate(allocator, 60, plain).units.tolist()


def test_units_that_remove_no_error_any_more_are_not_bought():
    plan = allocate(water_filling("exponential"), 10**9, units_of(2, scale=[1.0, 4.0], decay=[1.0, 1.0]))
    assert plan.units.max() < 800  # exp(-745) is 0
    assert (plan.price, plan.gap) == (0.0, 0.0)


# budgets

FACTORIES = [
    dynamic_sampling, elimination, greedy_marginal, knapsack, menu_knapsack, neyman, proportional, selective,
    successive_halving, thompson, uniform, variance, water_filling,
]  # fmt: skip


@pytest.mark.parametrize("budget", [-1, math.nan, math.inf, 10.5, "10", None, True, MOST + 1, 10**22, 10**400])
@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__)
def test_budgets_that_are_no_whole_number_of_tokens_are_refused(factory, budget):
    columns = {"std": [1.0, 2.0], "pass_rate": [0.3, 0.6], "scale": [1.0, 2.0], "decay": [1.0, 1.0]}
    items = units_of(2, **columns)
    if factory in (greedy_marginal, menu_knapsack):
        items = Items(("a", "b"), menu=Menu.of([[1], [2]], [[1.0], [2.0]]))
    method = factory(target=1) if factory is dynamic_sampling else factory()
    for allocator in (method, chain(method)):
        with pytest.raises(InvalidInput, match="budget is"):
            allocate(allocator, budget, items)


def test_the_largest_budget_is_spent_without_overflow():
    items = units_of(2, 0.5, std=[1.0, 3.0], scale=[1.0, 2.0], decay=[1.0, 1.0], pass_rate=[0.2, 0.6])
    for method in (neyman(), knapsack(), water_filling(), elimination(), selective(), variance()):
        plan = allocate(method, MOST, items)
        assert 0 < plan.expected_cost <= MOST
        assert plan.units.min() >= 0
    for method in (uniform(), proportional()):  # without a limit these buy more than can be counted
        with pytest.raises(InvalidInput, match="buys over"):
            allocate(method, MOST, items)
        assert allocate(method, MOST, units_of(2, 1.0, std=[1.0, 1.0])).units.tolist() == [MOST // 2] * 2


costs = st.one_of(st.floats(0.1, 50), st.integers(1, 400).map(lambda c: c / 10))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), costs), min_size=1, max_size=8), st.integers(0, 500))
def test_rounding_to_a_budget_is_hard_to_the_last_bit(rows, budget):
    items = Items(tuple("abcdefgh"[: len(rows)]), np.array([cost for _, cost in rows]))
    plan = Plan(items.keys, np.array([n for n, _ in rows]), math.nan)
    assert items.spend(round_to_budget()(plan, budget, items).units) <= budget
    weighed = Items(items.keys, items.cost, std=plan.units.astype(float))
    assert allocate(proportional(), budget, weighed).expected_cost <= budget


def test_rounding_to_a_budget_with_fractional_costs():
    # a running sum of what was left let one unit too many in
    items = Items(("a", "b", "c"), np.array([0.6, 2.7, 1.1]))
    assert round_to_budget()(Plan(items.keys, np.array([25, 17, 12]), math.nan), 26, items).expected_cost <= 26
    tenths = units_of(3, 0.1)  # 3 * 0.3 leaves 0.09999999999999998, and yet 0.4 + 0.3 + 0.3 is 1
    assert round_to_budget()(Plan(tenths.keys, np.array([25, 25, 25]), math.nan), 1, tenths).units.tolist() == [4, 3, 3]


@pytest.mark.parametrize("budget", [-1, math.nan, 10**22])
def test_rounding_to_no_budget_is_refused(budget):
    items = units_of(2)
    with pytest.raises(InvalidInput, match="budget is"):
        round_to_budget()(Plan(items.keys, np.array([5, 5]), 10.0), budget, items)


def test_the_bill_of_rounds_with_fractional_costs_is_hard():
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        items = Items(tuple("abcdefgh"), rng.integers(1, 300, 8) / 100)
        budget = int(rng.integers(5, 150))
        method = dynamic_sampling(target=8, group=int(rng.integers(2, 9)))
        assert allocate(method, budget, items).expected_cost <= budget, seed


# counts


@pytest.mark.parametrize("units", [2.5, 2.0, math.nan, math.inf, "2", True, None, -1, 10**19])
@pytest.mark.parametrize(
    "factory",
    [
        floor, cap, neyman, variance, knapsack, selective, elimination,
        lambda units: uniform(float("nan") if units is None else units), lambda units: neyman(1, units),
        lambda units: variance(2, units), lambda units: knapsack(2, units), lambda units: selective(2, units),
        lambda units: water_filling("power", units),
        lambda units: dynamic_sampling(target=2, group=units), lambda units: dynamic_sampling(target=units),
        lambda units: elimination(rounds=units), lambda units: elimination(keep=units),
    ],
)  # fmt: skip
def test_counts_are_whole_numbers(factory, units):
    with pytest.raises(InvalidInput):
        factory(units)


def test_numpy_counts_are_counts():
    assert allocate(uniform(np.int64(2)), 10, units_of(2)).units.tolist() == [2, 2]
    plan = allocate(chain(uniform(), floor(np.int32(3)), cap(2)), np.int64(10), units_of(2))
    assert (plan.units.tolist(), plan.units.dtype) == ([2, 2], np.int64)
