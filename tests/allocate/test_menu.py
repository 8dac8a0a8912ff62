"""Menus: exact allocators against brute force and HiGHS, approximate ones against their certified gaps."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp, minimize
from scipy.sparse import csr_array, vstack

from budgeteer import Items, Menu, Plan
from budgeteer.allocate import (
    budgeted_max_min,
    greedy_marginal,
    menu_knapsack,
    proportional,
    uniform,
    water_filling,
)
from budgeteer.allocate.kit import menu as _menu
from budgeteer.allocate.kit.menu import blocks, hulls, relax
from budgeteer.check import CheckFailed, check_allocator
from budgeteer.core.errors import InvalidInput, MissingExtra


def allocate(allocator, budget, items):
    return allocator.allocate(budget, items, (), rng=np.random.default_rng(0))


def keyed(menu, rng=None):
    names = [f"k{i}" for i in (range(len(menu)) if rng is None else rng.permutation(len(menu)))]
    return Items(tuple(names), menu=menu)


def small(seed):
    """Up to 6 items with up to 5 options: small whole numbers, proportional values, or anything."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 6, rng.integers(1, 7))
    high = [6, 40, 1000, 30][seed % 4]
    cost = [rng.integers(1, high, k) for k in sizes]
    shapes = [
        lambda c: rng.integers(0, 9, len(c)).astype(float),
        lambda c: rng.normal(1, 1, len(c)),
        lambda c: rng.gamma(1, 1, len(c)),
        lambda c: c + 5.0,
    ]
    menu = Menu.of(cost, [shapes[seed % 4](c) for c in cost])
    most = sum(int(c.max()) for c in cost if len(c))
    return keyed(menu, rng), int(rng.integers(0, most + 2))


def brute(menu, budget):
    """Best value of all plans within the budget, one by one."""
    rows = [range(menu.indptr[i], menu.indptr[i + 1]) for i in range(len(menu))]
    best = -math.inf
    for plan in itertools.product(*[[None, *row] for row in rows]):
        taken = [k for k in plan if k is not None]
        if sum(int(menu.cost[k]) for k in taken) <= budget:
            best = max(best, sum(float(menu.value[k]) for k in taken))
    return best


def test_exact_equals_brute_force_and_gaps_are_true_on_a_thousand_instances():
    for seed in range(1000):
        items, budget = small(seed)
        best = brute(items.menu, budget) if len(items.menu.cost) <= 12 else reachable(items.menu, budget)
        exact = allocate(menu_knapsack(exact=True), budget, items)
        assert exact.value == pytest.approx(best, abs=1e-9), seed
        assert exact.gap == 0
        fast = allocate(menu_knapsack(exact=True, compiled=True), budget, items)
        assert (fast.value, fast.gap) == (pytest.approx(best, abs=1e-9), 0), seed
        for allocator in (menu_knapsack(), greedy_marginal(), menu_knapsack(compiled=True)):
            plan = allocate(allocator, budget, items)
            assert plan.expected_cost == items.spend(plan.units) <= budget
            assert plan.value <= best + 1e-9
            assert best <= plan.value + plan.gap + 1e-9, seed
            assert plan.value == pytest.approx(float(items.menu.at(plan.units)[1].sum()))


def reachable(menu, budget):
    """The same by dynamic programming over the tokens that can be spent: an independent oracle for larger menus."""
    best = {0: 0.0}
    for i in range(len(menu)):
        new = dict(best)
        for k in range(menu.indptr[i], menu.indptr[i + 1]):
            for cost, value in best.items():
                spent = cost + int(menu.cost[k])
                if spent <= budget:
                    new[spent] = max(new.get(spent, -math.inf), value + float(menu.value[k]))
        best = new
    return max(best.values())


def highs(menu, budget):
    """The optimum by SciPy's HiGHS."""
    n, m = len(menu), len(menu.cost)
    choose = csr_array((np.ones(m), (np.repeat(np.arange(n), np.diff(menu.indptr)), np.arange(m))), shape=(n, m))
    rows = vstack([choose, csr_array(menu.cost[None, :].astype(float))])
    limit = np.append(np.ones(n), float(budget))
    done = milp(
        -menu.value, constraints=LinearConstraint(rows, -np.inf, limit), bounds=Bounds(0, 1),
        integrality=np.ones(m), options={"mip_rel_gap": 0.0, "time_limit": 20},
    )  # fmt: skip
    assert done.success, done.message
    return -done.fun


@pytest.mark.parametrize("seed", range(6))
def test_exact_equals_highs_on_mid_size_menus(seed):
    rng = np.random.default_rng(seed)
    n, w = 60, 8
    cost = np.sort(rng.integers(1, 300, (n, w)), 1)
    value = np.sort(rng.random((n, w)), 1) if seed % 2 else np.sqrt(cost) * rng.gamma(1, 1, (n, 1))
    menu = Menu.of(cost, np.ascontiguousarray(value))
    budget = int(cost.max(1).sum() * rng.uniform(0.05, 0.6))
    best = highs(menu, budget)
    for compiled in (False, True):
        plan = allocate(menu_knapsack(exact=True, compiled=compiled), budget, keyed(menu))
        assert plan.gap == 0
        # HiGHS takes a plan for optimal within 1e-6 absolute
        assert plan.value == pytest.approx(best, rel=1e-6)
        assert plan.value >= best - 1e-6


def test_worked_example():
    # steps by slope: a to 2 tokens (1.5), b to 3 (1.33), a to 6 (1): 9 tokens and 11 in value; then b to 5 (0.5)
    items = Items(("a", "b"), menu=Menu.of([[2, 6], [3, 5]], [[3.0, 7.0], [4.0, 5.0]]))
    plan = allocate(menu_knapsack(), 9, items)
    assert plan.units.tolist() == [2, 1]
    assert (plan.value, plan.expected_cost, plan.price, plan.gap) == (11.0, 9.0, 0.5, 0.0)


def test_relaxation_is_the_linear_programs():
    rng = np.random.default_rng(1)
    menu = Menu.of(rng.integers(1, 50, (30, 5)), rng.random((30, 5)))
    for budget in (20, 200, 700):
        found = relax(menu, blocks(menu), budget)
        cost, value = menu.at(found.units)
        bound = float(value.sum()) + found.price * (budget - int(cost.sum()))
        choose = csr_array((np.ones(150), (np.repeat(np.arange(30), 5), np.arange(150))), shape=(30, 150))
        rows = vstack([choose, csr_array(menu.cost[None, :].astype(float))])
        limit = np.append(np.ones(30), float(budget))
        line = milp(-menu.value, constraints=LinearConstraint(rows, -np.inf, limit), bounds=Bounds(0, 1))
        assert bound == pytest.approx(-line.fun, rel=1e-9)


def test_sampled_prices_and_blocks_of_many_widths_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    size = rng.integers(0, 20, 6000)
    menu = Menu.of([np.sort(rng.integers(1, 500, k)) for k in size], [np.sort(rng.random(k)) for k in size])
    items = keyed(menu)
    assert len(blocks(menu)) > 3
    budget = int(menu.cost.sum()) // 20
    sampled = allocate(menu_knapsack(exact=True), budget, items)
    monkeypatch.setattr(_menu, "SAMPLED", 10**9)
    monkeypatch.setattr(_menu, "CHUNK", 1000)
    plain = allocate(menu_knapsack(exact=True), budget, items)
    assert sampled.gap == plain.gap == 0
    assert sampled.value == pytest.approx(plain.value, rel=1e-12)
    assert sampled.price == plain.price


@pytest.mark.parametrize("seed", range(8))
def test_compiled_plans_are_the_same(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    n, sampled = int(rng.integers(300, 3000)), bool(seed % 2)
    monkeypatch.setattr(_menu, "SAMPLED", 256 if sampled else 10**9)
    size = rng.integers(0, 90 if seed < 2 else 20, n)
    menu = Menu.of([rng.integers(1, 500, k) for k in size], [rng.gamma(1, 1, k) for k in size])
    items = keyed(menu, rng)
    for share in (0.0, 0.001, 0.05, 0.3, 0.999, 2.0):
        budget = int(menu.cost.sum() * share / 6)
        for exact in (False, True):
            plain = allocate(menu_knapsack(exact), budget, items)
            fast = allocate(menu_knapsack(exact, compiled=True), budget, items)
            assert fast.price == pytest.approx(plain.price, rel=1e-12)
            assert fast.expected_cost == items.spend(fast.units) <= budget
            assert fast.value == pytest.approx(float(menu.at(fast.units)[1].sum()), rel=1e-12)
            assert fast.value + fast.gap >= plain.value - 1e-9
            assert plain.value + plain.gap >= fast.value - 1e-9
            if exact:
                assert (fast.gap, plain.gap) == (0, 0)
                assert fast.value == pytest.approx(plain.value, rel=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_plans_do_not_depend_on_the_order_of_items_that_tie(compiled):
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 40))
        cost, value = rng.integers(1, 6, (n, 3)), rng.integers(1, 5, (n, 3)).astype(float)
        items = Items(tuple(f"k{i:02d}" for i in range(n)), menu=Menu.of(cost, value))
        order = rng.permutation(n)
        budget = int(rng.integers(1, 3 * n))
        for exact in (False, True):
            allocator = menu_knapsack(exact, compiled)
            plan, moved = allocate(allocator, budget, items), allocate(allocator, budget, items.take(order))
            assert plan.units[order].tolist() == moved.units.tolist(), (seed, exact)


@pytest.mark.parametrize("exact", [False, True])
def test_compiled_keeps_the_rules_of_allocators(exact):
    check_allocator(menu_knapsack(exact, compiled=True), menu=True)


def test_compiled_takes_columns_that_are_views_or_read_only():
    rng = np.random.default_rng(9)
    cost, value = np.sort(rng.integers(1, 90, 80)), np.sort(rng.random(80))
    plain = Items(tuple("abcdefgh"), menu=Menu(cost[::2].copy(), value[::2].copy(), np.arange(9) * 5))
    cost.flags.writeable = False
    view = Items(plain.keys, menu=Menu(cost[::2], value[::2], np.arange(9) * 5))
    one, two = (allocate(menu_knapsack(compiled=True), 150, items) for items in (plain, view))
    assert one.units.tolist() == two.units.tolist()


def test_without_numba_compiled_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "budgeteer.allocate.kit.compiled", None)
    with pytest.raises(MissingExtra, match=r"budgeteer\[fast\]"):
        menu_knapsack(compiled=True)


def test_large_menus_are_certified_and_closed():
    rng = np.random.default_rng(3)
    menu = Menu.of(np.sort(rng.integers(1, 1000, (20_000, 8)), 1), np.sort(rng.random((20_000, 8)), 1))
    items = keyed(menu)
    plan = allocate(menu_knapsack(), 2_000_000, items)
    assert plan.gap <= 1e-6 * plan.value
    exact = allocate(menu_knapsack(exact=True), 2_000_000, items)
    assert exact.gap == 0
    assert plan.value <= exact.value <= plan.value + plan.gap + 1e-9


def test_ties_by_the_thousand_go_by_key():
    n = 5000
    menu = Menu.of(np.tile([3, 6], (n, 1)), np.tile([2.0, 4.0], (n, 1)))
    order = np.random.default_rng(4).permutation(n)
    items = Items(tuple(f"k{i:05d}" for i in range(n)), menu=menu)
    compiled = menu_knapsack(compiled=True), menu_knapsack(exact=True, compiled=True)
    for allocator in (menu_knapsack(), menu_knapsack(exact=True), greedy_marginal(), *compiled):
        plan, moved = allocate(allocator, 10_000, items), allocate(allocator, 10_000, items.take(order))
        assert plan.expected_cost == 9999
        assert plan.gap == 0
        assert plan.units[order].tolist() == moved.units.tolist()


def test_hard_values_leave_an_honest_gap(monkeypatch):
    monkeypatch.setattr(sys.modules["budgeteer.allocate._menu_knapsack"], "STATES", 50)
    rng = np.random.default_rng(5)
    cost = rng.integers(10_000, 20_000, (60, 1))
    items = keyed(Menu.of(cost, cost + 1000.0))  # strongly correlated: the hard case of knapsacks
    best = highs(items.menu, int(cost.sum()) // 2)
    for compiled in (False, True):
        plan = allocate(menu_knapsack(exact=True, compiled=compiled), int(cost.sum()) // 2, items)
        assert plan.gap > 0
        assert best <= plan.value + plan.gap + 1e-3


@pytest.mark.parametrize("extra", [0, 100])
@pytest.mark.parametrize("n", [30, 64])
def test_values_that_follow_costs_are_closed_without_chasing_the_last_bit(n, extra, monkeypatch):
    # with extra = 0, a subset sum, every slope is the same but for rounding: plans that only rounding tells apart
    # are as good, and looking for the best of them took a hundred times as many states
    monkeypatch.setattr(sys.modules["budgeteer.allocate._menu_knapsack"], "STATES", 400_000 if extra else 20_000)
    for seed in range(5):
        rng = np.random.default_rng([seed, n])
        cost = rng.integers(1, 1000, (n, 1))
        items = keyed(Menu.of(cost, (cost + extra) / 1000), rng)
        budget = int(cost.sum()) // 5
        best = reachable(items.menu, budget)
        for compiled in (False, True):
            plan = allocate(menu_knapsack(exact=True, compiled=compiled), budget, items)
            assert (plan.value, plan.gap) == (pytest.approx(best, rel=1e-12), 0), (seed, compiled)


def test_the_compiled_form_fills_a_budget_where_values_are_large_costs():
    for seed in range(5):  # 2^20 states do not hold a million sums; a state and one change more are found
        cost = np.random.default_rng([seed, 200]).integers(100_000, 1_000_000, (200, 1))
        budget = int(cost.sum()) // 5
        plan = allocate(menu_knapsack(exact=True, compiled=True), budget, keyed(Menu.of(cost, cost / 1000)))
        assert (plan.expected_cost, plan.gap) == (budget, 0), seed
        assert plan.value == pytest.approx(budget / 1000, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.floats(0.01, 5), min_size=1, max_size=5), min_size=1, max_size=5),
    budget=st.integers(0, 2000),
)
def test_greedy_is_optimal_for_concave_values_and_equal_steps(rows, budget):
    gains = [sorted(row, reverse=True) for row in rows]
    menu = Menu.of([[100 * (k + 1) for k in range(len(g))] for g in gains], [np.cumsum(g).tolist() for g in gains])
    plan = allocate(greedy_marginal(), budget, keyed(menu))
    assert plan.value == pytest.approx(sum(sorted((g for row in gains for g in row), reverse=True)[: budget // 100]))
    assert plan.gap == pytest.approx(0, abs=1e-12)


def nudged(values, rng):
    """Each value as it is, or the next one above or below that float64 has."""
    return [float(np.nextafter(v, v + rng.integers(-1, 2))) for v in values]


@pytest.mark.parametrize("gains", [[0.01] * 4, [0.1] * 7, [1 / 3] * 5, [5.0, *[0.01] * 6], [1e300] * 3, [1e-300] * 3])
@pytest.mark.parametrize("shuffled", [False, True])
def test_greedy_takes_single_steps_of_equal_gains_whose_sums_are_rounded(gains, shuffled):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        value = nudged(np.cumsum(gains), rng) if seed else np.cumsum(gains).tolist()
        order = rng.permutation(len(gains)) if shuffled else np.arange(len(gains))
        menu = Menu.of([[100 * (int(k) + 1) for k in order]], [[value[k] for k in order]])
        for steps in range(len(gains) + 1):
            plan = allocate(greedy_marginal(), 100 * steps + 99, keyed(menu))
            assert plan.expected_cost == 100 * steps, seed
            assert plan.gap <= 1e-14 * value[-1]


def test_plans_of_gains_that_are_equal_but_for_rounding_equal_brute_force():
    """Greedy is exact for equal steps; the others with any."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 5, rng.integers(1, 4))
        gain = [0.01, 0.1, 1 / 3, 0.7][seed % 4]
        cost = [100 * np.arange(1, k + 1) if seed % 2 else np.cumsum(rng.integers(1, 9, k)) for k in sizes]
        value = [nudged(np.cumsum(np.full(k, gain)), rng) if seed % 2 else nudged(gain * c, rng)
                 for k, c in zip(sizes, cost, strict=True)]  # fmt: skip
        items = keyed(Menu.of(cost, value), rng)
        budget = int(rng.integers(1, sum(int(c[-1]) for c in cost) + 2))
        best = brute(items.menu, budget)
        exact = menu_knapsack(exact=True), menu_knapsack(exact=True, compiled=True)
        for allocator in (*exact, greedy_marginal()) if seed % 2 else exact:
            plan = allocate(allocator, budget, items)
            assert plan.value == pytest.approx(best, rel=1e-12), seed
            assert plan.gap == pytest.approx(0, abs=1e-12)
        plan = allocate(menu_knapsack(), budget, items)
        assert plan.value <= best * (1 + 1e-12) <= (plan.value + plan.gap) * (1 + 2e-12)
        # the smallest value, of items that get the cheapest option worth it
        level = max(
            min(float(items.menu.value[k]) if k is not None else 0.0 for k in plan)
            for plan in itertools.product(*[[None, *range(*items.menu.indptr[i : i + 2])] for i in range(len(items))])
            if sum(int(items.menu.cost[k]) for k in plan if k is not None) <= budget
        )
        least = min(v[-1] for v in value)
        assert allocate(budgeted_max_min(), budget, items).value >= min(level, least)


def test_greedy_spends_all_on_many_items_of_equal_gains():
    n = 6000  # beyond SAMPLED
    rng = np.random.default_rng(0)
    value = np.cumsum(np.full((n, 4), 0.01), 1)
    value = np.nextafter(value, value + rng.integers(-1, 2, value.shape))
    items = keyed(Menu.of(np.tile(100 * np.arange(1, 5), (n, 1)), value))
    for budget in (300, 100 * n + 300, 399 * n):
        for allocator in (greedy_marginal(), menu_knapsack(), menu_knapsack(compiled=True)):
            plan = allocate(allocator, budget, items)
            assert plan.expected_cost == budget // 100 * 100
            assert plan.value == pytest.approx(budget // 100 * 0.01, rel=1e-12)
            assert plan.gap == pytest.approx(0, abs=1e-9)


def test_hulls_keep_options_that_only_rounding_puts_under_them():
    from budgeteer.allocate.kit.compiled import _hull

    for seed in range(200):
        rng = np.random.default_rng(seed)
        k = int(rng.integers(2, 12))
        cost = np.cumsum(rng.integers(1, 300, k))
        gains = np.repeat(rng.gamma(1, 1, 2), k // 2 + 1)[:k]  # two slopes, each of several options
        gains = np.sort(gains)[::-1] * np.diff(cost, prepend=0)
        value = np.array(nudged(np.cumsum(gains), rng))
        order = rng.permutation(k)
        steps = hulls(blocks(Menu.of([cost[order]], [value[order]])))
        assert order[steps.option - 1].tolist() == list(range(k)), seed
        assert np.all(np.diff(steps.slope) <= 0)
        assert steps.slope == pytest.approx(gains / np.diff(cost, prepend=0), rel=1e-10)
        at, slope = np.empty(k, np.int64), np.empty(k)
        size = _hull(cost[order], value[order], 0, k, np.empty(k, np.int64), at, slope)
        assert order[at[:size]].tolist() == list(range(k)), seed
        assert np.all(np.diff(slope) <= 0)
        assert slope == pytest.approx(gains / np.diff(cost, prepend=0), rel=1e-10)


def test_hulls_take_the_more_valuable_of_options_of_one_cost():
    menu = Menu.of([[10, 10, 10, 20]], [[1.0, np.nextafter(1.0, 2), np.nextafter(1.0, 0), 2.0]])
    assert hulls(blocks(menu)).option.tolist() == [2, 4]


def test_hulls_by_hand():
    menu = Menu.of([[1, 2, 3, 4]], [[1.0, 1.2, 2.5, 2.4]])  # the second lies under the hull, the fourth is worse
    steps = hulls(blocks(menu))
    assert steps.option.tolist() == [1, 3]
    assert steps.cost.tolist() == [1, 2]
    assert steps.slope.tolist() == [1.0, 0.75]


def test_greedy_equals_highs_on_mid_size_menus_of_equal_steps():
    rng = np.random.default_rng(8)
    gains = np.sort(rng.random((80, 6)), 1)[:, ::-1]
    menu = Menu.of(np.tile(250 * np.arange(1, 7), (80, 1)), np.cumsum(gains, 1))
    plan = allocate(greedy_marginal(), 30_100, keyed(menu))
    assert plan.value == pytest.approx(highs(menu, 30_100), rel=1e-6)
    assert plan.gap == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_max_min_equals_highs_on_mid_size_menus(seed):
    rng = np.random.default_rng(seed)
    n, w = 40, 6
    cost, value = rng.integers(1, 200, (n, w)), rng.random((n, w))
    budget = int(cost.min(1).sum() * rng.uniform(1.0, 2.5))
    # maximise t with sum_k x_ik <= 1, t - sum_k v_ik x_ik <= 0, sum c x <= budget; t is the last variable
    item = np.repeat(np.arange(n), w)
    choose = np.zeros((n, n * w + 1))
    choose[item, np.arange(n * w)] = 1
    level = np.zeros((n, n * w + 1))
    level[item, np.arange(n * w)] = -value.ravel()
    level[:, -1] = 1
    rows = np.vstack([choose, level, np.append(cost.ravel(), 0)])
    limit = np.concatenate([np.ones(n), np.zeros(n), [budget]])
    goal = np.append(np.zeros(n * w), -1.0)
    done = milp(
        goal, constraints=LinearConstraint(rows, -np.inf, limit), bounds=Bounds(0, 1),
        integrality=np.append(np.ones(n * w), 0), options={"mip_rel_gap": 0.0, "time_limit": 30},
    )  # fmt: skip
    assert done.success, done.message
    plan = allocate(budgeted_max_min(), budget, keyed(Menu.of(cost, value)))
    assert plan.value == pytest.approx(-done.fun, abs=1e-6)


@pytest.mark.parametrize("seeds", [400, pytest.param(2000, marks=pytest.mark.slow)])
def test_max_min_equals_brute_force(seeds):
    tried = 0
    for seed in range(seeds):
        items, budget = small(seed)
        menu = items.menu
        plan = allocate(budgeted_max_min(), budget, items)
        best = -math.inf
        rows = [range(menu.indptr[i], menu.indptr[i + 1]) for i in range(len(menu))]
        if math.prod(len(row) + 1 for row in rows) > 400:
            continue
        tried += 1
        for chosen in itertools.product(*[[None, *row] for row in rows]):
            if sum(int(menu.cost[k]) for k in chosen if k is not None) <= budget:
                best = max(best, min(0.0 if k is None else float(menu.value[k]) for k in chosen))
        assert plan.value == max(best, 0.0)
        assert plan.expected_cost <= budget
    assert tried > seeds / 2


def test_max_min_goes_on_past_an_item_that_cannot_rise():
    items = Items(("low", "high"), menu=Menu.of([[1], [1, 5]], [[0.1], [0.2, 0.9]]))
    assert allocate(budgeted_max_min(), 6, items).units.tolist() == [1, 2]


# units


def test_proportional_by_hand():
    items = Items(("a", "b", "c"), np.array([1.0, 2.0, 1.0]), std=np.array([1.0, 1.0, 0.0]))
    assert allocate(proportional(), 12, items).units.tolist() == [4, 4, 0]
    items = Items(("a", "b", "c"), np.ones(3), std=np.array([5.0, 3.0, 1.0]))  # quotas of 7: 3.89, 2.33, 0.78
    assert allocate(proportional(), 7, items).units.tolist() == [4, 2, 1]


@pytest.mark.parametrize("curve", ["power", "exponential"])
def test_water_filling_equals_brute_force_for_equal_costs_and_keeps_its_gap_otherwise(curve):
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n, low = int(rng.integers(1, 4)), 1 if curve == "power" else 0
        cost = np.full(n, 2.0) if seed % 2 else rng.integers(1, 6, n).astype(float)
        scale, decay = rng.gamma(1, 1, n), rng.uniform(0.2, 1.5, n)
        items = Items(tuple("abc"[:n]), cost, scale=scale, decay=decay)
        budget = int(low * cost.sum()) + int(rng.integers(0, 25))

        def error(units, scale=scale, decay=decay):
            units = np.array(units, float)
            return float(np.sum(scale * (units**-decay if curve == "power" else np.exp(-decay * units))))

        plans = itertools.product(*[range(low, int(budget // c) + 1) for c in cost])
        best = min(error(units) for units in plans if np.dot(units, cost) <= budget)
        plan = allocate(water_filling(curve), budget, items)
        assert -plan.value == pytest.approx(error(plan.units), rel=1e-12)
        assert best >= -plan.value - plan.gap - 1e-12
        if seed % 2:
            assert -plan.value == pytest.approx(best, rel=1e-12)
            assert plan.gap == pytest.approx(0, abs=1e-12)


def test_water_filling_is_near_the_continuous_optimum():
    rng = np.random.default_rng(0)
    scale, decay, cost = rng.gamma(1, 1, 6), rng.uniform(0.3, 1.2, 6), rng.uniform(1, 9, 6)
    items = Items(tuple("abcdef"), cost, scale=scale, decay=decay)
    plan = allocate(water_filling(), 20_000, items)
    start = np.full(6, 20_000 / cost.sum())
    free = minimize(
        lambda x: float(np.sum(scale * np.exp(x) ** -decay)), np.log(start), method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: (20_000 - float(np.exp(x) @ cost)) / 20_000},
        options={"ftol": 1e-15, "maxiter": 1000},
    )  # fmt: skip
    assert -plan.value == pytest.approx(free.fun, rel=1e-5)
    assert plan.units == pytest.approx(np.exp(free.x), rel=0.02)


# what is refused


@pytest.mark.parametrize(
    ("menu", "message"),
    [
        (lambda: Menu.of([[0]], [[1.0]]), "Menu.cost is 0 for option 1 of item number 1"),
        (lambda: Menu.of([[1, -2]], [[1.0, 2.0]]), "Menu.cost is -2 for option 2 of item number 1"),
        (lambda: Menu.of([[1], [3]], [[1.0], [math.nan]]), "Menu.value is not finite for option 1 of item number 2"),
        (lambda: Menu.of([[1], [3]], [[math.inf], [1.0]]), "Menu.value is not finite for option 1 of item number 1"),
        (lambda: Menu.of([[1.5]], [[1.0]]), "a cost on a menu is 1.5"),
        (lambda: Menu.of([[math.nan]], [[1.0]]), "a cost on a menu is nan"),
        (lambda: Menu.of([[1, 2]], [[1.0]]), "item number 1 has 2 costs and 1 values"),
        (lambda: Menu.of([[1]], []), "1 rows of costs and 0 of values"),
        (lambda: Menu.of(np.ones((2, 2), np.int64), np.ones((2, 3))), "shapes must agree"),
        (
            lambda: Menu.of([[1], [7, 2**53]], [[1.0], [1.0, 1.0]]),
            "9,007,199,254,740,992 for option 2 of item number 2; with 2 items a cost is at most 4,503,599,627,370,496",
        ),
        (
            lambda: Menu.of([[3, 1e20]], [[1.0, 1.0]]),
            "option number 2 of all; costs there are whole tokens, 1 to 4,6",
        ),
        (lambda: Menu(np.ones(2, np.int64), np.ones(2), np.array([0, 1])), "does not run from 0 to the 2 options"),
        (lambda: Menu(np.ones(2, np.int64), np.ones(2), np.array([0, 2, 1, 2])), "indptr falls"),
        (lambda: Menu(np.ones(2), np.ones(2), np.array([0, 2])), "give int64, float64, int64"),
        (lambda: Items(("a",), np.ones(1), menu=Menu.of([[1]], [[1.0]])), "both a cost and a menu"),
        (lambda: Items(("a", "b"), menu=Menu.of([[1]], [[1.0]])), "1 items for 2 keys"),
        (lambda: Menu.of([[1]], [[1.0]]).at(np.array([2])), "not on its item's menu"),
    ],
)
def test_bad_menus_say_what_is_wrong(menu, message):
    with pytest.raises(InvalidInput, match=message):
        menu()


def test_the_wrong_kind_of_items_is_refused():
    menu = Items(("a",), menu=Menu.of([[1]], [[1.0]]))
    with pytest.raises(InvalidInput, match="menu-knapsack"):
        allocate(uniform(), 10, menu)
    with pytest.raises(InvalidInput, match=r"Items\.menu"):
        allocate(menu_knapsack(), 10, Items(("a",), np.ones(1)))
    with pytest.raises(InvalidInput, match="budget is -1"):
        allocate(menu_knapsack(), -1, menu)


def test_items_and_menus_can_be_taken_apart():
    menu = Menu.of([[1, 2], [], [7]], [[1.0, 2.0], [], [3.0]])
    part = menu.take(np.array([2, 0]))
    assert part.cost.tolist() == [7, 1, 2]
    assert part.indptr.tolist() == [0, 1, 3]
    assert menu.at(np.array([2, 0, 1]))[1].tolist() == [2.0, 0.0, 3.0]
    empty = Items((), menu=Menu.of([], []))
    assert allocate(menu_knapsack(), 5, empty).value == 0


# checks that have to fail


def test_check_allocator_rejects_false_certificates_and_unknown_options():
    honest = greedy_marginal()

    def lying(budget, items, state, *, rng):
        plan = honest.allocate(budget, items, state, rng=rng)
        units = np.zeros_like(plan.units) if budget > 20 else plan.units
        value = float(items.menu.at(units)[1].sum())
        return Plan(plan.keys, units, items.spend(units), value=value, gap=0.0)

    with pytest.raises(CheckFailed, match="no plan is worth"):
        check_allocator(honest._replace(allocate=lying), menu=True)

    def beyond(budget, items, state, *, rng):
        return Plan(items.keys, np.full(len(items), 9), 0.0)

    with pytest.raises(CheckFailed, match="not on its item's menu"):
        check_allocator(honest._replace(allocate=beyond), menu=True)
