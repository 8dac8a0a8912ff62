"""The rules of allocators."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.check._common import CheckFailed, refuses, same
from budgeteer.core import errors
from budgeteer.core.allocator import Allocator, State, dump_state, load_state
from budgeteer.core.plan import ENDED, I64, LEAST, MOST, Items, Menu, Outcomes, Plan, fault_of

DRAWS = 200
"""Plans per order of the items when an allocator's random draws depend on that order."""


Objective = Callable[[Items, I64], float]
"""``(items, units) -> value`` of a plan."""


def check_allocator(
    allocator: Allocator,
    *,
    seed: int = 0,
    ordered: bool = False,
    menu: bool = False,
    objective: Objective | None = None,
) -> None:
    """Run an allocator on small sets of items and budgets, and raise :class:`CheckFailed` at the first broken rule.

    Rules, all of them before and after ``observe``: the plan is for the given keys, with integer units >= 0 (on a menu:
    numbers of its options); ``expected_cost`` is ``sum(units * cost)`` (on a menu: the costs of the options taken) and
    within the budget; a budget of 0 buys nothing; the same seed gives the same plan; allocating leaves the items and
    the state untouched; a state survives JSON and gives the same plan afterwards; the order of the items does not
    matter: the same units by key, or, if the allocator draws random numbers, the same mean units by key within six
    standard errors over 200 draws.

    A plan's ``value`` is the objective at its units, worked out anew. Who certifies a ``gap`` promises that no plan
    within the budget is worth more than ``value + gap``: so a larger budget never lowers an optimal value (with a gap
    of 0), and on a menu of few items no plan at all is better. Without a gap (NaN) nothing is promised, and a value may
    fall.

    A budget that is negative, NaN or infinite is refused with InvalidInput, and one beyond int64 is refused or kept, as
    is one that pays for more units than int64 holds (2^62 tokens at 1e-12 a unit).
    Items with costs of 0, or with numbers that are NaN or infinite, are refused before they buy anything (a pass rate
    of NaN was never seen). Items are 0, 1, 3 identical and 12 mixed ones, and 4 whose columns are 0 or far towards the
    ends of float64, with all columns filled, so an allocator that needs one finds it; on a menu they hold 0 to 5
    options each, some of them equal.

    Args:
        allocator: the allocator to check.
        seed: of the items and of the generators.
        ordered: the order of the items is a preference, as in dynamic sampling; skip the order rule.
        menu: check on items with a menu of options instead of items with a cost a unit.
        objective: what the allocator maximises; None: the sum of the chosen options' values on a menu, and nothing
            elsewhere, where a plan that certifies a gap then fails.
    """
    make = _menus if menu else _items
    if menu and objective is None:
        objective = _sum_of_values
    for items in (make(0, seed), make(1, seed), make(3, seed, ties=True), make(12, seed), _ends(make(4, seed))):
        state = allocator.init(items)
        whole = math.ceil(float(items.cost.sum())) if items.menu is None else int(items.menu.cost.sum()) // 2
        seen = allocator.observe(copy.deepcopy(state), _outcomes(items, seed))
        for kept in (state, seen):
            worth = -math.inf
            for budget in sorted({0, 1, whole // 8, whole // 2, whole, 7 * whole + 3, 1000 * whole}):
                plan = _check_plan(allocator, budget, items, kept, seed)
                _check_value(plan, worth, items, budget, objective)
                worth = worth if math.isnan(plan.value) else max(worth, plan.value)
                if not ordered and kept is state:
                    _check_order(allocator, budget, items, kept, plan, seed)
            _check_json(allocator, 3 * whole, items, kept, seed)
    for items in (make(0, seed), make(3, seed, ties=True)):
        _check_budgets(allocator, items, allocator.init(items), seed)
    _check_refusals(allocator, make(3, seed, ties=True), seed)


def _items(n: int, seed: int, ties: bool = False) -> Items:
    rng = np.random.default_rng([seed, n])
    drawn = rng.integers(0, 3, n) * 8
    rate = rng.choice([0.0, 0.02, 0.3, 0.5, 0.9, 1.0, np.nan], n)
    items = Items(
        tuple(f"item{i:02d}" for i in rng.permutation(n)),
        cost=rng.uniform(3.0, 90.0, n),
        std=rng.gamma(1.0, 1.0, n),
        pass_rate=rate,
        visits=rng.integers(0, 4, n),
        drawn=drawn,
        right=np.asarray(rng.binomial(drawn, np.nan_to_num(rate, nan=0.5)), dtype=np.int64),
        scale=rng.gamma(1.0, 1.0, n),
        decay=rng.uniform(0.3, 2.0, n),
        threshold=rng.uniform(0.0, 9.0, n),
    )
    if not ties:
        return items
    alike = {name: np.repeat(values[:1], n) for name, values in items.columns.items()}
    return Items(items.keys, columns=alike)


def _menus(n: int, seed: int, ties: bool = False) -> Items:
    """Items with menus; on every other menu, costs and values are small whole numbers, so that sums tie."""
    rng = np.random.default_rng([seed, n, 4])
    size = rng.integers(1, 6, n) if ties or n == 1 else rng.integers(0, 6, n)
    cost, value = [], []
    for i, k in enumerate(size.tolist()):
        coarse = i % 2 == 0
        cost.append(rng.integers(1, 5 if coarse else 90, k))
        value.append(rng.integers(0, 4, k).astype(np.float64) if coarse else rng.gamma(1.0, 1.0, k))
    if ties and n:
        cost, value = [cost[0]] * n, [value[0]] * n
    return Items(tuple(f"item{i:02d}" for i in rng.permutation(n)), menu=Menu.of(cost, value))


def _ends(items: Items) -> Items:
    """The same items with columns of zeros, and of the smallest and largest numbers."""
    if items.menu is not None:
        value = np.where(np.arange(len(items.menu.value)) % 2, 0.0, items.menu.value * 2.0**-1000)
        return dataclasses.replace(items, menu=Menu(items.menu.cost, value, items.menu.indptr))
    ends = np.array([0.0, 2.0**-1000, 1.0, 2.0**500])
    rate, count = np.array([0.0, 1.0, np.nan, 2.0**-60]), np.zeros(4, np.int64)
    return items.with_columns(
        std=ends,
        scale=ends[::-1].copy(),
        decay=ends,
        threshold=ends,
        pass_rate=rate,
        visits=count,
        drawn=count,
        right=count,
    )


def _sum_of_values(items: Items, units: I64) -> float:
    return float(items.options().at(units)[1].sum())


def _check_value(plan: Plan, worth: float, items: Items, budget: int, objective: Objective | None) -> None:
    """``worth``: the largest value of the plans for smaller budgets, which this one could have kept."""
    where = f"(budget {budget:,}, {len(items)} items)"
    if math.isnan(plan.value):
        if not math.isnan(plan.gap):
            raise CheckFailed(f"Plan.gap is {plan.gap} of a value that is NaN {where}")
        return
    if objective is not None and len(items):
        true = objective(items, plan.units)
        if not math.isclose(plan.value, true, rel_tol=1e-9, abs_tol=1e-300):
            raise CheckFailed(f"Plan.value is {plan.value:.9g}, but the plan's units are worth {true:.9g} {where}")
    if math.isnan(plan.gap):
        return
    if objective is None and len(items):
        raise CheckFailed(f"Plan.gap is {plan.gap:.3g}, but of which value? Give check_allocator the objective {where}")
    if plan.gap < 0:
        raise CheckFailed(f"Plan.gap is {plan.gap}; it is how much more a plan can be worth, 0 or more {where}")
    if plan.value + plan.gap < worth - 1e-9 * abs(worth):
        raise CheckFailed(
            f"Plan.value {plan.value:.6g} with a gap of {plan.gap:.3g} says that no plan is worth {worth:.6g}, "
            f"but a smaller budget bought one {where}"
        )
    if items.menu is None or objective is None or not 0 < len(items) <= 3:
        return
    for chosen in itertools.product(*(range(size + 1) for size in np.diff(items.menu.indptr).tolist())):
        units = np.array(chosen, np.int64)
        if items.spend(units) <= budget and objective(items, units) > plan.value + plan.gap + 1e-9 * abs(plan.value):
            raise CheckFailed(
                f"Plan.value {plan.value:.6g} with a gap of {plan.gap:.3g} says that no plan is worth "
                f"{objective(items, units):.6g}, but the options {units.tolist()} are {where}"
            )


def _check_budgets(allocator: Allocator, items: Items, state: State, seed: int) -> None:
    """Budgets that are no tokens are refused; one beyond int64 is refused, or kept by a plan that is right."""
    for bad in (-1, math.nan, math.inf, -math.inf):
        rng = np.random.default_rng(seed)
        rule = f"a budget of {bad} for {len(items)} items is refused"
        refuses(errors.InvalidInput, rule, allocator.allocate, bad, items, state, rng=rng)
    _kept_or_refused(allocator, 10**22, items, state, seed)
    if items.menu is None:  # the cheapest units and the largest budget: more units than int64 holds
        _kept_or_refused(allocator, MOST, items.with_columns(cost=np.full(len(items), LEAST)), state, seed)


def _kept_or_refused(allocator: Allocator, budget: int, items: Items, state: State, seed: int) -> None:
    """A plan that is right, or InvalidInput; what an overflow raises by itself says nothing to a user."""
    try:
        with contextlib.suppress(errors.InvalidInput), np.errstate(all="ignore"):
            _check_plan(allocator, budget, items, state, seed)
    except (OverflowError, FloatingPointError) as error:
        raise CheckFailed(
            f"a budget of {budget:,} for {len(items)} items raised {type(error).__name__}: {error}; refuse it with "
            "InvalidInput, or clip the units"
        ) from error


def _check_refusals(allocator: Allocator, items: Items, seed: int) -> None:
    """No plan comes of items with numbers that mean nothing, wherever they are refused."""

    def allocate(bad: Items | Callable[[], Items]) -> Plan:
        given = bad() if callable(bad) else bad
        return allocator.allocate(100, given, allocator.init(given), rng=np.random.default_rng(seed))

    for number in (math.nan, math.inf, -math.inf, 0.0):
        if items.menu is not None:
            cost, value, indptr = items.menu.cost, items.menu.value, items.menu.indptr
            rows = [slice(int(a), int(b)) for a, b in itertools.pairwise(indptr)]
            if number:
                worth = partial(_menu_with, items, cost, np.full(len(value), number), rows)
                refuses(errors.InvalidInput, f"values of {number} on a menu are refused", allocate, worth)
            priced = partial(_menu_with, items, np.full(len(cost), number), value, rows)
            refuses(errors.InvalidInput, f"costs of {number} on a menu are refused", allocate, priced)
            continue
        for name in ("cost", "std", "scale", "decay", "threshold", "pass_rate"):
            if (number == 0 and name != "cost") or (math.isnan(number) and name == "pass_rate"):
                continue
            columns: dict[str, Any] = {name: np.full(len(items), number)}
            rule = f"items whose {name} is {number} are refused"
            refuses(errors.InvalidInput, rule, allocate, partial(items.with_columns, **columns))


def _menu_with(items: Items, cost: NDArray[Any], value: NDArray[np.float64], rows: list[slice]) -> Items:
    menu = Menu.of([cost[row] for row in rows], [value[row] for row in rows])
    return Items(items.keys, menu=menu)


def _outcomes(items: Items, seed: int) -> Outcomes:
    rng = np.random.default_rng([seed, 1])
    keys = tuple(key for key in items.keys for _ in range(4))
    reward = rng.integers(0, 2, len(keys)).astype(np.float64)
    status = np.full(len(keys), ENDED, np.int8)
    return Outcomes(keys, rng.integers(1, 90, len(keys)), reward, rng.normal(size=len(keys)), status)


def _check_plan(allocator: Allocator, budget: int, items: Items, state: State, seed: int) -> Plan:
    before_items, before_state = copy.deepcopy(items), copy.deepcopy(state)
    plan = allocator.allocate(budget, items, state, rng=np.random.default_rng(seed))
    where = f"(budget {budget:,}, {len(items)} items)"
    if not same(items, before_items) or not same(state, before_state):
        raise CheckFailed(f"allocate changed its items or its state in place; return new ones {where}")
    if fault := fault_of(plan, items, budget):
        raise CheckFailed(f"{fault} {where}")
    again = allocator.allocate(budget, items, state, rng=np.random.default_rng(seed))
    if not np.array_equal(plan.units, again.units):
        raise CheckFailed(f"the same seed gave two different plans; draw from the rng argument only {where}")
    return plan


def _check_order(allocator: Allocator, budget: int, items: Items, state: State, plan: Plan, seed: int) -> None:
    order = np.random.default_rng([seed, 2]).permutation(len(items))
    if len(items) < 2:
        return
    shuffled = items.take(order)
    rng = np.random.default_rng(seed)
    start = rng.bit_generator.state
    moved = allocator.allocate(budget, shuffled, state, rng=rng)
    if np.array_equal(moved.units, plan.units[order]):
        return
    where = f"(budget {budget:,}, {len(items)} items)"
    if rng.bit_generator.state == start:
        raise CheckFailed(f"the units of a key change with the order of the items; form groups and ties by key {where}")

    def draws(of: Items) -> NDArray[np.float64]:
        seeds = [np.random.default_rng([seed, 3, k]) for k in range(DRAWS)]
        return np.array(
            [allocator.allocate(budget, of, state, rng=generator).units for generator in seeds], dtype=np.float64
        )

    here, there = draws(items)[:, order], draws(shuffled)
    gap = np.abs(here.mean(axis=0) - there.mean(axis=0))
    noise = np.sqrt((here.var(axis=0) + there.var(axis=0)) / DRAWS)
    # Two rare draws more or less are no evidence, hence the second term.
    if np.any(gap > 6 * noise + 2 / DRAWS):
        bad = shuffled.keys[int(np.argmax(gap - 6 * noise))]
        raise CheckFailed(f"the mean units of {bad!r} change with the order of the items, beyond random draws {where}")


def _check_json(allocator: Allocator, budget: int, items: Items, state: State, seed: int) -> None:
    try:
        text = json.dumps(dump_state(state))
    except TypeError as error:
        raise CheckFailed(f"the state does not go into JSON ({error}); use numbers, strings, tuples, arrays") from error
    back = load_state(state, json.loads(text))
    if not same(back, state):
        raise CheckFailed("a state read back from JSON differs from the one written")
    plans = [allocator.allocate(budget, items, start, rng=np.random.default_rng(seed)) for start in (state, back)]
    if not np.array_equal(plans[0].units, plans[1].units):
        raise CheckFailed("a state read back from JSON gives another plan")
