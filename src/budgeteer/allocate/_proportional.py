"""Tokens in proportion to a column: the obvious rule, and a baseline for those that optimise."""

from __future__ import annotations

import numpy as np

from budgeteer.allocate.kit.solve import Found, largest_remainder, lift, require_countable, scaled
from budgeteer.core.allocator import Allocator
from budgeteer.core.column import column as declared
from budgeteer.core.plan import Items, spend


def proportional(by: str = "std") -> Allocator:
    """Units ``n_i = B w_i / sum_j w_j c_j``, rounded to the budget by largest remainders.

    w is the column named; for equal costs every item gets the share ``w_i / sum w`` of the budget. With ``by="std"``
    and equal costs it is Neyman's allocation without its bounds. ``Plan.value`` and ``gap`` are NaN: it maximises
    nothing.

    When it helps: weights are shares already (traffic, priorities), or a rule is wanted that everyone can check.
    When not: the weight is a value per unit that falls with every unit: proportion ignores how fast. An item
    with weight 0 or NaN gets nothing.

    Args:
        by: the column of Items that holds the weights; any declared one.

    Raises:
        UnknownName: nobody declared such a column.

    >>> items = Items(("a", "b", "c"), np.ones(3), std=np.array([3.0, 2.0, 2.0]))
    >>> proportional().allocate(10, items, (), rng=np.random.default_rng(0)).units
    array([4, 3, 3])
    """
    declared(by)

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        require_countable(budget, items.cost)
        weight, _ = scaled(np.nan_to_num(items.column(by, "proportional"), nan=0.0))
        total = spend(weight, items.cost)
        if total == 0:
            return Found(np.zeros(len(items), np.int64))
        return Found(largest_remainder(weight * (budget / total), items.cost, budget, items.keys))

    return lift(rule)
