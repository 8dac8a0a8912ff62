"""Buy the next option of whichever item gains most per token: the convex-hull greedy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from budgeteer.allocate.kit.menu import Block, Edges, best_of, blocks, edges, join, relax
from budgeteer.allocate.kit.solve import menu_plan, menu_rule, whole_budget
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import F64, I64, Items, Menu, Plan

BAND = 64
"""About so many steps are looked at first below the price; then eight times as many, until nothing is left over."""


def greedy_marginal() -> Allocator:
    """Steps along every item's upper concave hull, steepest ``(v' - v) / (c' - c)`` first, while they fit.

    When an item's next step does not fit, that item is done and the others go on. Exact when values are concave in
    cost and all steps cost the same (a sample more, a thousand tokens more); otherwise short of the optimum by less
    than the value of the first step that did not fit. ``gap`` certifies how much less.

    When it helps: as a plain rule that is easy to explain and to continue: with a larger budget the same steps come
    first. When not: options are few and large against the budget, or lie under the hull, where it never looks;
    :func:`budgeteer.allocate._menu_knapsack` fills the budget better and is as fast.

    Fox (1966); Sinha and Zoltners (1979) for the hull.

    >>> from budgeteer.core.plan import Menu
    >>> items = Items(("a", "b"), menu=Menu.of([[10, 20, 30], [10, 20]], [[5.0, 8.0, 9.0], [4.0, 6.0]]))
    >>> plan = greedy_marginal().allocate(40, items, (), rng=np.random.default_rng(0))
    >>> plan.units, plan.gap
    (array([2, 2]), 0.0)
    """

    def rule(budget: int, items: Items) -> Plan:
        menu = items.options("greedy-marginal")
        parts = blocks(menu)
        relaxed = relax(menu, parts, whole_budget(menu, budget))
        units, left, price = relaxed.units, relaxed.left, relaxed.price
        gap, ended = price * left, np.zeros(len(items), np.bool_)
        steps, low, width = relaxed.indifferent, price, BAND / len(items)
        while price > 0:
            steps = steps.take(by_slope(steps, items.keys))
            rows = those_that_fit(steps, left)
            passed = np.ones(len(steps.item), np.bool_)
            passed[rows] = False
            ended[steps.item[passed]] = True
            taken = steps.take(rows)
            units[taken.item] = taken.option  # an item's steps are in order: the last one counts
            left -= int(taken.cost.sum())
            gap -= float((taken.slope * taken.cost).sum())
            if low == 0 or left == 0:
                break
            if low < price:
                parts = within(left, parts, menu, units, ended)
            low, width = price * max(1 - width, 0.0), 8 * width
            steps = steps_down_to(low, parts, menu, units, ended)
        return menu_plan(items, units, price, max(gap, 0.0))

    return menu_rule(rule)


def taken_now(block: Block, menu: Menu, units: I64) -> tuple[I64, F64]:
    """Cost and value [r] of the options [n] that a block's items have now."""
    at, some = np.maximum(menu.indptr[block.item] + units[block.item] - 1, 0), units[block.item] > 0
    return np.where(some, menu.cost[at], 0), np.where(some, menu.value[at], 0.0)


def within(left: int, parts: list[Block], menu: Menu, units: I64, ended: NDArray[np.bool_]) -> list[Block]:
    """The items that have not ended and have an option for at most ``left`` tokens more than they have now."""
    reachable = []
    for block in parts:
        more = [np.zeros(0, np.int64)]
        for part, chunk in block.chunks():
            now = taken_now(chunk, menu, units)[0][:, None]
            near = np.any((chunk.cost > now) & (chunk.cost <= now + left), axis=1)
            more.append(part.start + np.flatnonzero(near & ~ended[chunk.item]))
        reachable.append(block.take(np.concatenate(more)))
    return reachable


def steps_down_to(low: float, parts: list[Block], menu: Menu, units: I64, ended: NDArray[np.bool_]) -> Edges:
    """The steps, from the options [n] that items have now, whose slope is above ``low``; not of those that ended."""
    ladders = []
    for block in parts:
        for _, chunk in block.chunks():
            option, stop, _ = best_of(low, chunk)
            rows = np.flatnonzero((option != units[chunk.item]) & ~ended[chunk.item])
            if len(rows):
                some = chunk.take(rows)
                ladders.append(edges(some, *taken_now(some, menu, units), stop[rows]))
    steps = join(ladders)
    return steps.take(np.flatnonzero(steps.slope > 0))


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
    rows, bought = np.arange(len(steps.item)), []
    while len(rows):
        item, cost = steps.item[rows], steps.cost[rows]
        end = np.full(int(item.max()) + 1, len(steps.item))
        large = np.flatnonzero(cost > left)
        np.minimum.at(end, item[large], rows[large])
        rows = rows[rows < end[item]]
        whole = int(np.searchsorted(np.cumsum(steps.cost[rows]), left, side="right"))
        left -= int(steps.cost[rows[:whole]].sum())
        bought.append(rows[:whole])
        rows = rows[whole:]
    return np.concatenate([np.zeros(0, np.int64), *bought])
