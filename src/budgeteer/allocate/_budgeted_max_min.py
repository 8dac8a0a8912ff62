"""Raise the worst item as far as the budget allows: max-min over the menus."""

from __future__ import annotations

import numpy as np

from budgeteer.allocate.kit.menu import Block, blocks
from budgeteer.allocate.kit.solve import menu_plan, menu_rule
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import F64, I64, Items, Plan


def budgeted_max_min() -> Allocator:
    """``max min_i v_i`` within the budget, over the items that can still rise.

    For a level t, each item takes its cheapest option worth t or more, or its best one if none is. The level is the
    highest of the options' values whose plan the budget pays, found by bisection over the sorted values; so the
    smallest value is the largest possible, and an item that cannot reach the level does not hold the others back.
    What is left, less than the next level costs, stays unspent. ``Plan.value`` is the smallest value; exact, gap 0.

    When it helps: the answer is as good as its weakest part (every file of a change, every claim of a report), or no
    user may be left behind. When not: values add up; then it pays most for those that gain least.

    The bottleneck form of the multiple-choice knapsack; max-min fairness as in Bertsekas and Gallager (1992).

    >>> from budgeteer.core.plan import Menu
    >>> items = Items(("a", "b"), menu=Menu.of([[1, 2, 9], [4, 8]], [[0.5, 0.7, 0.9], [0.4, 0.6]]))
    >>> budgeted_max_min().allocate(10, items, (), rng=np.random.default_rng(0)).units
    array([2, 2])
    """

    def rule(budget: int, items: Items) -> Plan:
        menu = items.options("max-min")
        parts = blocks(menu)
        levels = np.unique(menu.value[menu.value > 0])
        units = np.zeros(len(items), np.int64)
        fit, over = -1, len(levels)
        while over - fit > 1:
            middle = (fit + over) // 2
            tried = reach(parts, float(levels[middle]), len(items))
            if int(menu.at(tried)[0].sum()) <= budget:
                fit, units = middle, tried
            else:
                over = middle
        return menu_plan(items, units, float("nan"), 0.0, float(menu.at(units)[1].min()))

    return menu_rule(rule)


def reach(parts: list[Block], level: float, n: int) -> I64:
    """Each item's cheapest option [n] worth the level, or its own best if that is less; 0 if nothing is worth more."""
    units = np.zeros(n, np.int64)
    for block in parts:
        for _, chunk in block.chunks():
            wanted: F64 = np.minimum(np.maximum(chunk.value.max(1), 0.0), level)
            price = np.where(chunk.value >= wanted[:, None], chunk.cost, np.inf)
            units[chunk.item] = np.where(wanted > 0, price.argmin(1) + 1, 0)
    return units
