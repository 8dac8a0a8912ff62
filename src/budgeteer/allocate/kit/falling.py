"""Units whose worth falls from one to the next: which to buy, for a million items at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from budgeteer.allocate.kit.solve import NEAR
from budgeteer.core.plan import F64, I64, spend

Worth = Callable[[I64, I64], F64]
"""(rows, units) -> worth of one more unit of these items when they have so many; it falls with the units."""
SAMPLE = 4096
"""Steps of which the bracket of the price is read off."""


def rise(
    worth: Worth, low: I64, high: I64, cost: F64, budget: float, *, last_first: bool = False
) -> tuple[I64, float, I64]:
    """Buy single units from ``low`` up, the worthiest first, and stop at the first that no longer fits.

    A bracket of the price is narrowed until few steps are left between its ends; only these are sorted.

    Args:
        worth: see :data:`Worth`.
        low, high: [n] units that are there, and the most.
        cost: [n] of a unit; ``low`` of all fits into the budget.
        last_first: equal worth goes to the later item, not to the earlier one.

    Returns:
        units [n], the worth of the first step that did not fit (0: all did), and units [n] of all that is worth more
        than that.
    """
    below, above = low, high
    room = budget - spend(low, cost)
    while (between := int((above - below).sum())) > 2 * len(low) + SAMPLE:
        rows, units = _steps(below, above, np.linspace(0, between - 1, SAMPLE).astype(np.int64))
        values = worth(rows, units)
        order = np.argsort(-values, kind="stable")
        # each step of the sample stands for as many of its kind
        reached = np.cumsum(cost[rows[order]]) * (between / SAMPLE)
        left = room - float(((below - low) * cost).sum())
        at = int(np.searchsorted(reached, left, side="right"))
        narrowed = False
        for near in (at - SAMPLE // 32, at + SAMPLE // 32):
            if 0 <= near < SAMPLE:
                price = float(values[order[near]])
                units = _reach(worth, below, above, price)
                if float(((units - low) * cost).sum()) <= room:
                    narrowed |= bool(np.any(units != below))
                    below = units
                else:
                    narrowed |= bool(np.any(units != above))
                    above = units
        if not narrowed:
            break
    rows, units = _steps(below, above, np.arange(int((above - below).sum())))
    values = worth(rows, units)
    order = np.argsort(-values, kind="stable") if not last_first else np.lexsort((units, -rows, -values))
    total = spend(below, cost) + np.cumsum(cost[rows[order]])
    k = int(np.searchsorted(total, budget, side="right"))

    def bought(k: int) -> I64:
        return below + np.bincount(rows[order[:k]], minlength=len(low))

    # sums of fractional costs are off in their last bits: near the budget the exact sum decides
    doubtful = NEAR * budget
    while k and total[k - 1] > budget - doubtful and spend(bought(k), cost) > budget:
        k -= 1
    while k < len(order) and total[k] < budget + doubtful and spend(bought(k + 1), cost) <= budget:
        k += 1
    if k == len(order):
        return above, 0.0, above
    price = float(values[order[k]])
    return bought(k), price, below + np.bincount(rows[values > price], minlength=len(low))


def level(units: I64, upper: I64, cost: F64, budget: float) -> I64:
    """Add single units to items that have equally many, round by round in order, as far as each still fits.

    Args:
        units, upper: [n] units that are there, equally many where ``upper`` is above, and the most.
        cost: [n] of a unit.
    """
    grown = units.copy()
    left = budget - spend(units, cost)
    rows = np.flatnonzero(grown < upper)
    while len(rows := rows[(cost[rows] <= left) & (grown[rows] < upper[rows])]):
        each = spend(np.ones(len(rows), np.int64), cost[rows])
        if each <= left:
            rounds = max(1, min(int(left / each), int((upper[rows] - grown[rows]).min())))
            grown[rows] += rounds
            left = budget - spend(grown, cost)
            continue
        fits = []
        for row, price in zip(rows.tolist(), cost[rows].tolist(), strict=True):
            if price <= left:
                fits.append(row)
                left -= price
        rows = np.array(fits, dtype=np.int64)
        grown[rows] += 1
        left = budget - spend(grown, cost)
    return grown


def _reach(worth: Worth, below: I64, above: I64, price: float) -> I64:
    """[n] the units up to which every one is worth more than the price, between two bounds."""
    low, high = below.copy(), above.copy()
    rows = np.flatnonzero(low < high)
    while len(rows):
        middle = (low[rows] + high[rows] + 1) // 2
        more = worth(rows, middle - 1) > price
        low[rows[more]] = middle[more]
        high[rows[~more]] = middle[~more] - 1
        rows = rows[low[rows] < high[rows]]
    return low


def _steps(below: I64, above: I64, at: I64) -> tuple[I64, I64]:
    """(item, units before) of the steps number ``at`` of those between two bounds, item by item."""
    ends: I64 = np.cumsum(above - below)
    rows: I64 = np.searchsorted(ends, at, side="right").astype(np.int64)
    units: I64 = above[rows] - (ends[rows] - at)
    return rows, units
