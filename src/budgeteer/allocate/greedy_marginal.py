"""Buy the next option of whichever item gains most per token: the convex-hull greedy."""

from __future__ import annotations

import numpy as np

from budgeteer.allocate._menu import Edges, blocks, hulls
from budgeteer.allocate._solve import menu_plan, menu_rule, whole_budget
from budgeteer.allocator import Allocator
from budgeteer.plan import I64, Items, Plan


def greedy_marginal() -> Allocator:
    """Steps along every item's upper concave hull, steepest ``(v' - v) / (c' - c)`` first, while they fit.

    When an item's next step does not fit, that item is done and the others go on. Exact when values are concave in
    cost and all steps cost the same (a sample more, a thousand tokens more); otherwise short of the optimum by less
    than the value of the first step that did not fit. ``gap`` certifies how much less.

    When it helps: as a plain rule that is easy to explain and to continue: with a larger budget the same steps come
    first. When not: options are few and large against the budget, or lie under the hull, where it never looks;
    :func:`budgeteer.allocate.menu_knapsack` fills the budget better and is as fast.

    Fox (1966); Sinha and Zoltners (1979) for the hull.

    >>> from budgeteer.plan import Menu
    >>> items = Items(("a", "b"), menu=Menu.of([[10, 20, 30], [10, 20]], [[5.0, 8.0, 9.0], [4.0, 6.0]]))
    >>> plan = greedy_marginal().allocate(40, items, (), rng=np.random.default_rng(0))
    >>> plan.units, plan.gap
    (array([2, 2]), 0.0)
    """

    def rule(budget: int, items: Items) -> Plan:
        menu = items.options()
        budget = whole_budget(menu, budget)
        steps = hulls(blocks(menu))
        steps = steps.take(by_slope(steps, items.keys))
        whole = int(np.searchsorted(np.cumsum(steps.cost), budget, side="right"))
        left = budget - int(steps.cost[:whole].sum())
        price = float(steps.slope[whole]) if whole < len(steps.slope) else 0.0
        rest = steps.take(np.arange(whole, len(steps.item)))
        taken = rest.take(those_that_fit(rest, left))
        units = np.zeros(len(items), np.int64)
        for some in (steps.take(np.arange(whole)), taken):
            units[some.item] = some.option  # an item's steps are in order: the last one counts
        gap = price * left - float((taken.slope * taken.cost).sum())
        return menu_plan(items, units, price, max(gap, 0.0))

    return menu_rule(rule)


def by_slope(steps: Edges, keys: tuple[str, ...]) -> I64:
    """The order of the steps by falling slope; equal slopes by key, and within an item as they come."""
    order = np.argsort(-steps.slope, kind="stable")
    slope = steps.slope[order]
    if np.any(slope[1:] == slope[:-1]):
        rank = np.empty(len(keys), np.int64)
        rank[np.array(sorted(range(len(keys)), key=keys.__getitem__))] = np.arange(len(keys))
        order = np.lexsort((rank[steps.item], -steps.slope))
    return order


def those_that_fit(steps: Edges, left: int) -> I64:
    """Rows of the steps, in their order, that fit what is left; an item ends at its first step that does not."""
    rows, found = np.arange(len(steps.item)), []
    while len(rows):
        item, cost = steps.item[rows], steps.cost[rows]
        end = np.full(int(item.max()) + 1, len(steps.item))
        large = np.flatnonzero(cost > left)
        np.minimum.at(end, item[large], rows[large])
        rows = rows[rows < end[item]]
        whole = int(np.searchsorted(np.cumsum(steps.cost[rows]), left, side="right"))
        left -= int(steps.cost[rows[:whole]].sum())
        found.append(rows[:whole])
        rows = rows[whole:]
    return np.concatenate([np.zeros(0, np.int64), *found])
