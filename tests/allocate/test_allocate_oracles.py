"""Every exact allocator against brute force on a thousand small instances and against HiGHS on mid-size ones.

The objectives and the plans to compare with are written here from the definitions, not taken from the package.
"""

from __future__ import annotations

import importlib
import math
import tracemalloc

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, vstack

from budgeteer import Items, Menu, Plan
from budgeteer.allocate import (
    budgeted_max_min,
    greedy_marginal,
    knapsack,
    menu_knapsack,
    neyman,
    round_to_budget,
    selective,
    variance,
    water_filling,
)
from budgeteer.allocate._knapsack import group_gain
from budgeteer.allocate.kit import falling as _falling
from budgeteer.allocate.kit.solve import grow
from budgeteer.core.plan import spend

INSTANCES, GAPS = 1000, 300
"""Small instances of each exact allocator, and of each certified gap."""
COLUMNS = ("std", "pass_rate", "scale", "decay")


def allocate(allocator, budget, items):
    return allocator.allocate(budget, items, (), rng=np.random.default_rng(0))


def keys(n):
    return tuple(f"k{i:03d}" for i in range(n))


def grid(low, high, n):
    """All plans [m, n] of low to high units an item."""
    return np.stack(np.meshgrid(*[np.arange(low, high + 1)] * n, indexing="ij"), -1).reshape(-1, n)


GRIDS = {(low, high, n): grid(low, high, n) for low, high in ((0, 5), (0, 6), (1, 6), (2, 7)) for n in (1, 2, 3, 4)}

# what is minimised or maximised, from units [..., n]


def neyman_value(items, n):
    return -np.sum(items.std**2 / n, axis=-1)


def variance_value(items, n):
    return -np.sum(items.pass_rate * (1 - items.pass_rate) / n, axis=-1)


def power_value(items, n):
    return -np.sum(items.columns["scale"] / np.asarray(n, float) ** items.columns["decay"], axis=-1)


def exponential_value(items, n):
    return -np.sum(items.columns["scale"] * np.exp(-items.columns["decay"] * n), axis=-1)


def sack_value(items, n):
    p = items.pass_rate
    return np.sum((1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2, axis=-1)


def selective_value(items, n):
    p = items.pass_rate
    return np.sum(np.where(n > 0, 1 - p**n - (1 - p) ** n, 0.0) * p * (1 - p), axis=-1)


UNITS = {
    "neyman": (neyman_value, 1, 6, neyman(1, 6)),
    "variance": (variance_value, 2, 7, variance(2, 7)),
    "power": (power_value, 1, 6, water_filling("power", 6)),
    "exponential": (exponential_value, 0, 6, water_filling("exponential", 6)),
    "knapsack": (sack_value, 2, 7, knapsack(2, 7, fallback=False)),
    "knapsack per token": (sack_value, 2, 7, knapsack(2, 7, per_token=True, fallback=False)),
}


def units_of(rng, n, cost):
    return Items(
        keys(n), cost, std=rng.gamma(1, 1, n), pass_rate=rng.uniform(0.01, 0.99, n),
        scale=rng.gamma(1, 1, n), decay=rng.uniform(0.2, 1.5, n),
    )  # fmt: skip


@pytest.mark.parametrize("name", list(UNITS))
def test_units_of_equal_cost_equal_brute_force(name):
    objective, low, high, allocator = UNITS[name]
    for seed in range(INSTANCES):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 5))
        cost = float(rng.integers(1, 9))
        items = units_of(rng, n, np.full(n, cost))
        if seed % 7 == 0:  # ties
            alike = np.zeros(n, np.int64)
            items = Items(items.keys, items.cost, **{c: items.columns[c][alike] for c in COLUMNS})
        count = int(rng.integers(low * n, high * n + 3))
        budget = int(cost * count) + int(rng.integers(0, cost))
        plans = GRIDS[low, high, n]
        best = objective(items, plans[plans.sum(1) <= count]).max()
        plan = allocate(allocator, budget, items)
        assert plan.units.sum() <= count
        assert low <= plan.units.min() <= plan.units.max() <= high
        assert objective(items, plan.units) == pytest.approx(best, rel=1e-9, abs=1e-12), seed
        assert plan.value == pytest.approx(best, rel=1e-9, abs=1e-12), seed
        assert plan.gap == pytest.approx(0, abs=1e-12), seed


@pytest.mark.parametrize("name", [*UNITS, "published", "knapsack with a fallback", "selective"])
def test_gaps_of_units_of_any_cost_are_true(name):
    more = {
        "published": (neyman_value, 1, 6, neyman(1, 6, published=True)),
        "knapsack with a fallback": (sack_value, 2, 7, knapsack(2, 7)),
        "selective": (selective_value, 3, 6, selective(3, 6)),
    }
    objective, low, high, allocator = {**UNITS, **more}[name]
    certified, tight = 0, 0
    for seed in range(GAPS):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 5))
        cost = rng.integers(1, 9, n).astype(float) if seed % 2 else rng.uniform(0.5, 9, n)
        items = units_of(rng, n, cost)
        if seed % 5 == 0:
            items.pass_rate[0] = seed % 2  # nothing to learn there
        budget = math.ceil(cost.sum() * rng.uniform(low, high + 1))
        plans = GRIDS[0, 6, n] if name == "selective" else GRIDS[low, high, n]
        if name == "selective":
            plans = plans[np.all((plans == 0) | (plans >= 3), axis=1)]
        best = objective(items, plans[plans @ cost <= budget]).max()
        plan = allocate(allocator, budget, items)
        assert plan.expected_cost <= budget
        if math.isnan(plan.value):  # not even the least fits, or a bit had to go
            continue
        certified += 1
        tight += plan.gap <= 0.1 * abs(plan.value)
        assert plan.value == pytest.approx(float(objective(items, plan.units)), rel=1e-9, abs=1e-12)
        assert plan.value <= best + 1e-9
        assert best <= plan.value + plan.gap + 1e-9, seed
    assert certified > 0.95 * GAPS
    assert tight > 0.4 * certified  # a bound that says nothing would be true as well


def marginals(objective, items, low, high):
    """Gain [n, high - low] of each unit beyond low."""
    columns = [{c: items.columns[c][[i]] for c in COLUMNS} for i in range(len(items))]
    alone = [Items(items.keys[i : i + 1], items.cost[i : i + 1], **columns[i]) for i in range(len(items))]
    return np.array([np.diff(objective(one, np.arange(low, high + 1)[:, None])) for one in alone])


@pytest.mark.parametrize("name", list(UNITS))
@pytest.mark.parametrize("seed", range(2))
def test_units_of_equal_cost_equal_highs_on_mid_size_instances(name, seed):
    """One binary a unit; gains fall, so that an optimum takes an item's units in order without being told."""
    objective, low, high, allocator = UNITS[name]
    rng = np.random.default_rng(seed)
    n, cost = 60, 7.0
    items = units_of(rng, n, np.full(n, cost))
    count = low * n + int(rng.integers(n, (high - low) * n - n))
    gain = marginals(objective, items, low, high)
    found = milp(
        -gain.ravel(), integrality=np.ones(gain.size), bounds=Bounds(0, 1), options={"mip_rel_gap": 0.0},
        constraints=LinearConstraint(np.full((1, gain.size), cost), -np.inf, cost * (count - low * n) + 1),
    )  # fmt: skip
    assert found.success
    best = float(objective(items, np.full(n, low))) - found.fun
    plan = allocate(allocator, int(cost * count) + 1, items)
    assert plan.value == pytest.approx(best, rel=1e-6)
    assert plan.gap == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", [*UNITS, "selective"])
def test_gaps_of_units_of_unequal_cost_hold_against_highs(name):
    objective, low, high, allocator = {**UNITS, "selective": (selective_value, 0, 6, selective(3, 6))}[name]
    rng = np.random.default_rng(5)
    n = 40
    items = units_of(rng, n, rng.uniform(3, 40, n).round())
    budget = int(items.cost.sum() * 4)
    if name == "selective":  # one option a count of units
        counts = np.array([3, 4, 5, 6])
        p = items.pass_rate[:, None]
        gain, tokens = (1 - p**counts - (1 - p) ** counts) * p * (1 - p), items.cost[:, None] * counts
        once, start = np.kron(np.eye(n), np.ones(len(counts))), 0.0
    else:
        gain = marginals(objective, items, low, high)
        tokens = np.repeat(items.cost[:, None], high - low, axis=1)
        once, start = np.zeros((0, gain.size)), float(objective(items, np.full(n, low)))
        budget = int(items.cost.sum() * (low + 2.5))
    rows = vstack([csr_array(once), csr_array(tokens.reshape(1, -1))])
    limit = np.append(np.ones(len(once)), budget - low * items.cost.sum())
    found = milp(
        -gain.ravel(), integrality=np.ones(gain.size), bounds=Bounds(0, 1),
        constraints=LinearConstraint(rows, -np.inf, limit), options={"mip_rel_gap": 1e-9, "time_limit": 20},
    )  # fmt: skip
    best = start - found.fun
    plan = allocate(allocator, budget, items)
    assert plan.expected_cost <= budget
    assert plan.value <= best + 1e-6 * abs(best)
    assert best <= plan.value + plan.gap + 1e-6 * abs(best)


def test_a_knapsack_with_one_plan_has_no_gap():
    items = Items(keys(2), np.array([3.0, 4.0]), pass_rate=np.array([0.5, 0.2]))
    assert allocate(knapsack(4, 4), 40, items).gap == 0  # there is one plan


# menus


def test_greedy_on_concave_menus_of_equal_steps_equals_brute_force():
    for seed in range(INSTANCES):
        rng = np.random.default_rng(seed)
        n, step = int(rng.integers(1, 5)), int(rng.integers(1, 200))
        gains = [
            np.sort(rng.integers(1, 9, k) / 4 if seed % 3 == 0 else rng.gamma(1, 1, k))[::-1]
            for k in rng.integers(0, 6, n)
        ]
        value = [np.cumsum(g) for g in gains]
        items = Items(keys(n), menu=Menu.of([step * np.arange(1, len(g) + 1) for g in gains], value))
        budget = int(rng.integers(0, step * (sum(map(len, gains)) + 2)))
        plans = GRIDS[0, 5, n]
        plans = plans[(plans <= [len(g) for g in gains]).all(1) & (step * plans.sum(1) <= budget)]
        worth = sum(np.append(0.0, v)[plans[:, i]] for i, v in enumerate(value))
        plan = allocate(greedy_marginal(), budget, items)
        assert plan.expected_cost <= budget
        assert plan.value == pytest.approx(worth.max(), abs=1e-9), seed
        assert plan.gap == pytest.approx(0, abs=1e-9), seed


@pytest.mark.parametrize("seed", range(4))
def test_greedy_on_concave_menus_equals_highs(seed):
    rng = np.random.default_rng(seed)
    gains = np.sort(rng.gamma(1, 1, (80, 6)), axis=1)[:, ::-1]
    budget = int(rng.integers(100, 400)) * 250 // 2
    found = milp(
        -gains.ravel(), integrality=np.ones(gains.size), bounds=Bounds(0, 1), options={"mip_rel_gap": 0.0},
        constraints=LinearConstraint(np.full((1, gains.size), 250.0), -np.inf, budget),
    )  # fmt: skip
    menu = Menu.of(np.tile(250 * np.arange(1, 7), (80, 1)), np.cumsum(gains, axis=1))
    plan = allocate(greedy_marginal(), budget, Items(keys(80), menu=menu))
    assert plan.value == pytest.approx(-found.fun, rel=1e-6)
    assert plan.gap == pytest.approx(0, abs=1e-9)


# largest remainders: of all whole plans of that many units, the nearest in squares to the exact shares


def test_largest_remainders_are_the_nearest_whole_plan():
    cut = 0
    for seed in range(2 * INSTANCES):
        rng = np.random.default_rng(seed)
        n, cost = int(rng.integers(1, 5)), float(rng.integers(1, 9)) / int(rng.integers(1, 3))
        items = Items(keys(n), np.full(n, cost))
        plan = Plan(items.keys, rng.integers(0, 7, n), math.nan)
        budget = int(rng.integers(0, max(1, int(plan.units.sum() * cost)) + 1))
        if plan.units.sum() * cost <= budget:
            continue
        cut += 1
        exact = plan.units * budget / (plan.units.sum() * cost)
        plans = GRIDS[0, 6, n]
        plans = plans[(plans.sum(1) == math.floor(budget / cost)) & (plans <= plan.units).all(1)]
        nearest = ((plans - exact) ** 2).sum(1).min()
        got = round_to_budget()(plan, budget, items)
        assert got.expected_cost <= budget
        assert got.units.sum() == math.floor(budget / cost)
        assert ((got.units - exact) ** 2).sum() == pytest.approx(nearest, abs=1e-9), seed
    assert cut > INSTANCES


def test_largest_remainders_equal_highs_on_a_mid_size_plan():
    rng = np.random.default_rng(3)
    n = 200
    items = Items(keys(n), np.full(n, 3.0))
    plan = Plan(items.keys, rng.integers(0, 40, n), math.nan)
    budget = 3 * int(plan.units.sum()) // 2
    exact = plan.units * budget / (3.0 * plan.units.sum())
    near = np.floor(exact)[:, None] + np.array([-1, 0, 1, 2])  # squares rise away from these
    found = milp(
        ((near - exact[:, None]) ** 2).ravel(), integrality=np.ones(4 * n), bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(csr_array(np.kron(np.eye(n), np.ones(4))), 1, 1),
            LinearConstraint(near.reshape(1, -1), budget // 3, budget // 3),
        ],
    )  # fmt: skip
    got = round_to_budget()(plan, budget, items).units
    assert ((got - exact) ** 2).sum() == pytest.approx(found.fun, rel=1e-6)


# memory


@pytest.mark.parametrize(
    "allocator", [menu_knapsack(), menu_knapsack(exact=True), greedy_marginal(), budgeted_max_min()], ids=lambda a: None
)
def test_memory_grows_no_faster_than_the_items(allocator):
    peak = {}
    for n in (10_000, 100_000):
        rng = np.random.default_rng(0)
        cost = np.sort(rng.integers(1, 1000, (n, 16)), 1)
        items = Items(tuple(map(str, range(n))), menu=Menu.of(cost, np.sort(rng.random((n, 16)), 1)))
        tracemalloc.start()
        allocate(allocator, 100 * n, items)
        peak[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak[n] < 20 * items.menu.cost.nbytes
    assert peak[100_000] < 12 * peak[10_000]


@pytest.mark.parametrize("allocator", [neyman(), water_filling()], ids=["neyman", "water_filling"])
def test_memory_of_units_grows_no_faster_than_the_items(allocator):
    peak = {}
    for n in (3_000, 12_000):
        items = units_of(np.random.default_rng(0), n, np.random.default_rng(1).uniform(3, 90, n))
        tracemalloc.start()
        allocate(allocator, int(5 * items.cost.sum()), items)
        peak[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak[12_000] < 5 * peak[3_000]


def one_by_one(worth, low, high, cost, budget, last_first):
    """The plain way to :func:`rise`: one step after the other, the worthiest first."""
    order = sorted(
        ((-worth(np.array([i]), np.array([n]))[0], -i if last_first else i, n) for i in range(len(low))
         for n in range(low[i], high[i])),
    )  # fmt: skip
    units, left = low.copy(), budget - spend(low, cost)
    for value, i, _ in order:
        if cost[abs(i)] > left:
            return units, -value
        units[abs(i)] += 1
        left -= cost[abs(i)]
    return units, 0.0


@pytest.mark.parametrize("sample", [16, 4096])
@pytest.mark.parametrize("seed", range(40))
def test_steps_of_falling_worth_are_bought_as_one_by_one(monkeypatch, sample, seed):
    """With a small sample the bracket is narrowed many times, also where many steps are worth the same."""
    monkeypatch.setattr(_falling, "SAMPLE", sample)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    rate = rng.choice([0.0, 0.25, 0.5, 1.0], n) if seed % 2 else rng.random(n)
    cost = rng.integers(1, 9, n).astype(float) if seed % 3 else np.ones(n)
    low, last_first = rng.integers(1, 4, n), seed % 5 == 0
    high = low + rng.integers(0, 60, n)
    budget = spend(low, cost) + float(rng.integers(0, int(spend(high - low, cost)) + 2))

    def worth(rows, units):
        return group_gain(units, rate[rows]) / cost[rows]

    units, price, above = _falling.rise(worth, low, high, cost, budget, last_first=last_first)
    expected, dual = one_by_one(worth, low, high, cost, budget, last_first)
    assert units.tolist() == expected.tolist()
    assert price == pytest.approx(dual, rel=1e-12, abs=1e-300)
    for i in range(n):
        assert above[i] - low[i] == sum(worth(np.array([i]), np.array([m]))[0] > price for m in range(low[i], high[i]))


@pytest.mark.parametrize("seed", range(30))
def test_level_is_the_fewest_first(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    cost = rng.integers(1, 9, n).astype(float) if seed % 2 else np.full(n, 3.0)
    units = np.where(rng.random(n) < 0.7, 2, rng.integers(0, 9, n))
    upper = np.where(units == 2, rng.integers(2, 40, n), units)
    budget = spend(units, cost) + float(rng.integers(0, 200))
    expected = grow(units, upper, cost, budget, lambda i, have: -have)
    assert _falling.level(units, upper, cost, budget).tolist() == expected.tolist()


def test_knapsack_looks_at_a_few_steps_an_item(monkeypatch):
    """Its work grows with the items, not with the steps of all items: 126 an item, sorted and looked at one by one."""
    looked = []

    def counted(units, rate):
        looked.append(np.size(units))
        return original(units, rate)

    module = importlib.import_module("budgeteer.allocate._knapsack")
    original = module.group_gain
    monkeypatch.setattr(module, "group_gain", counted)
    rng = np.random.default_rng(3)
    for n in (2000, 20_000):
        items = Items(keys(n), rng.integers(10, 1000, n).astype(float), pass_rate=rng.random(n))
        looked.clear()
        plan = allocate(knapsack(), int(items.cost.sum() * 8), items)
        assert plan.gap >= 0
        assert len(looked) < 200
        assert sum(looked) < 126 * n + 200 * _falling.SAMPLE
