"""What the allocators share: lifting a rule into an Allocator, and greedy moves of single units."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from budgeteer.core.allocator import Allocator, State, stateless
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, MOST, Items, Menu, Plan, spend, whole

NEAR = 2.0**-46
"""A running sum of fractional costs is off by less than this share of the budget."""


class Found(NamedTuple):
    """What a rule decides: units [n], and the price, value and gap of the Plan where it knows them."""

    units: I64
    price: float = float("nan")
    value: float = float("nan")
    gap: float = float("nan")


Rule = Callable[[int, Items, np.random.Generator], Found]


def scaled(column: F64) -> tuple[F64, int]:
    """The column [n >= 1] times a power of two, and that power: 0, unless its largest entry is beyond 2^-300 to 2^300.

    No digit changes, and sums and squares of the largest entries neither overflow nor get lost.
    """
    power = -math.frexp(float(column.max()))[1]
    return (column, 0) if abs(power) < 300 else (np.ldexp(column, power), power)


def times(number: float, power: int) -> float:
    """``number * 2^power``; NaN where float64 does not hold it."""
    try:
        return math.ldexp(number, power)
    except OverflowError:
        return math.nan


def lift(rule: Rule) -> Allocator:
    """An Allocator without state from a rule that sees its items sorted by key.

    Sorting first makes every rule permutation-equivariant to the last bit, its ties and its random draws included.
    """

    def allocate(budget: int, items: Items, state: State, *, rng: np.random.Generator) -> Plan:
        budget = whole("budget", budget)
        if items.menu is not None:
            raise InvalidInput("this allocator buys units of one cost; for a menu of options use menu-knapsack")
        if not len(items):
            return Plan(items.keys, np.zeros(0, np.int64), 0.0)
        order = np.array(sorted(range(len(items)), key=items.keys.__getitem__))
        solution = rule(budget, items.take(order), rng)
        units = np.zeros(len(items), np.int64)
        units[order] = solution.units
        # A rule's running sum of fractional costs may be off in its last bit; the budget is hard all the same.
        kept = items.within(units, budget)
        if kept is not units:
            solution = Found(kept, solution.price)
        return Plan(
            items.keys, kept, spend(kept, items.cost), price=solution.price, value=solution.value, gap=solution.gap
        )

    return Allocator(lambda items: (), allocate, lambda state, outcomes: state)


def require_countable(budget: float, cost: F64) -> None:
    """Refuse a budget that buys more units of one item than an int64 counts safely."""
    if budget > MOST * float(cost.min()):
        raise InvalidInput(f"a budget of {budget:,} at {cost.min()} a unit buys over {MOST:,} units; check the costs")


def bound_gap(budget: float, cost: F64, given: tuple[I64, F64], best: tuple[I64, F64], price: float) -> float:
    """How far a plan may be from the optimum: the Lagrangian bound at a price, less the plan's value.

    Args:
        budget, cost: tokens; with equal costs the part of the budget that buys no whole unit is left out.
        given: units and values [n] of the plan.
        best: units and values [n] that maximise ``value - price * cost * units`` item by item.
        price: value a token, >= 0.
    """
    if len(cost) and np.all(cost == cost[0]):
        budget = math.floor(budget / cost[0]) * float(cost[0])
    left = budget - spend(best[0], cost)
    return max(math.fsum((best[1] - given[1]).tolist()) + price * left, 0.0)


def step_price(slope: F64, cost: F64, room: float) -> float:
    """The value a token of the step that ``room`` tokens end in, steepest first; 0 if they pay all of them.

    Args:
        slope, cost: value a token and tokens of the steps, in arrays of one shape.
        room: tokens.
    """
    order = np.argsort(-slope, axis=None)
    k = int(np.searchsorted(np.cumsum(cost.ravel()[order]), room, side="right"))
    return float(slope.ravel()[order[k]]) if k < len(order) else 0.0


def largest_remainder(exact: F64, cost: F64, budget: float, keys: tuple[str, ...]) -> I64:
    """Whole units [n] from exact ones that cost the budget: rounded down, then one more to the largest fractions.

    Equal fractions go by key; what does not fit is skipped.
    """
    units = np.floor(exact).astype(np.int64)
    order = sorted(range(len(units)), key=lambda i: (units[i] - exact[i], keys[i]))
    while spend(units, cost) > budget:  # a whole number that was rounded up to
        units[next(i for i in order[::-1] if units[i])] -= 1
    left, near, refused = budget - spend(units, cost), NEAR * budget, math.inf
    for i, price in zip(order, cost[order].tolist(), strict=True):
        if units[i] < exact[i] and price <= left + near and price < refused:
            units[i] += 1
            if price > left - near and spend(units, cost) > budget:  # what is left is rounded: here it decides
                units[i], refused = units[i] - 1, price
            else:
                left -= price
    return units


def whole_budget(menu: Menu, budget: int) -> int:
    """The budget less what no plan can spend: every plan costs a multiple of the costs' common divisor."""
    divisor = int(np.gcd.reduce(menu.cost[:64])) if len(menu.cost) else 1
    if divisor > 1:  # rare, so the rest is only looked at then
        divisor = int(np.gcd.reduce(menu.cost))
    return budget - budget % divisor


def menu_rule(rule: Callable[[int, Items], Plan]) -> Allocator:
    """An Allocator without state from a rule for items with a menu, of which there is at least one."""

    def allocate(budget: int, items: Items) -> Plan:
        if not len(items):
            return Plan(items.keys, np.zeros(0, np.int64), 0.0, value=0.0, gap=0.0)
        return rule(budget, items)

    return stateless(allocate)


def menu_plan(items: Items, units: I64, price: float, gap: float, value: float | None = None) -> Plan:
    """The plan of the options taken; its value is the sum of theirs if it is not given."""
    cost, worth = items.options().at(units)
    total = float(worth.sum()) if value is None else value
    return Plan(items.keys, units, float(cost.sum()), price=price, value=total, gap=gap)


def fill(order: I64, each: int, cost: F64, budget: float) -> I64:
    """``each`` units to the items in ``order``, skipping those whose whole share no longer fits."""
    units = np.zeros(len(cost), np.int64)
    left = float(budget)
    for i in order.tolist():
        if each * cost[i] <= left:
            units[i], left = each, left - each * float(cost[i])
    return units


def grow(units: I64, upper: I64, cost: F64, budget: float, gain: Callable[[int, int], float]) -> I64:
    """Add single units, largest ``gain(item, units so far)`` first, while they fit; ties go to the smaller index.

    Exact for unit costs when each item's gain falls with its units; otherwise at most one unit short of it.
    """
    grown, price, top = units.tolist(), cost.tolist(), upper.tolist()
    left = budget - spend(units, cost)
    heap = [(-gain(i, n), i) for i, n in enumerate(grown) if n < top[i]]
    heapq.heapify(heap)
    while heap:
        i = heap[0][1]
        if price[i] > left:
            heapq.heappop(heap)  # what is left only shrinks, so this item is done
            continue
        grown[i] += 1
        left -= price[i]
        if grown[i] < top[i]:
            heapq.heapreplace(heap, (-gain(i, grown[i]), i))
        else:
            heapq.heappop(heap)
    return np.array(grown, np.int64)
