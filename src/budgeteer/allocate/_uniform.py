"""Equal units for everyone: the baseline that every other allocator has to beat at the same budget."""

from __future__ import annotations

import numpy as np

from budgeteer.allocate.kit.solve import Found, lift, require_countable
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, spend, whole


def uniform(units: int | None = None) -> Allocator:
    """The same number of units for all items, as nearly as whole units allow.

    Every item gets ``floor(B / sum(cost))`` units; what is left buys one more unit each for items in a random order,
    skipping those that do not fit. With ``units`` given, no item gets more than that. ``Plan.value`` and
    ``gap`` are NaN: it maximises nothing.

    When it helps: nothing is known about the items, or all are alike; it is the GRPO group.
    When not: costs or informativeness differ, since every unit then buys a different amount.

    Args:
        units: largest number of units an item, >= 1, or None for as many as the budget pays.

    Returns:
        An Allocator; it uses ``rng`` for the order of the extra units, and no column of Items but ``cost``.

    >>> items = Items(("a", "b", "c"), cost=np.array([10.0, 20.0, 30.0]))
    >>> alloc = uniform()
    >>> alloc.allocate(120, items, (), rng=np.random.default_rng(0)).units
    array([2, 2, 2])
    >>> uniform(1).allocate(50, items, (), rng=np.random.default_rng(0)).expected_cost <= 50
    True
    """
    if units is not None and whole("uniform's units", units) < 1:
        raise InvalidInput(f"uniform(units={units}) gives nobody anything; give 1 or more, or None for no limit")

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        if units is None:
            require_countable(budget, items.cost)
        base = int(budget / spend(np.ones(len(items), np.int64), items.cost))
        if units is not None and base >= units:
            return Found(np.full(len(items), units))
        given = np.full(len(items), base)
        left = budget - spend(given, items.cost)
        for i in rng.permutation(len(items)).tolist():
            if items.cost[i] <= left:
                given[i] += 1
                left -= float(items.cost[i])
        return Found(given)

    return lift(rule)
