"""One line: what the method decides.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.allocator import Allocator, stateless
from budgeteer.core.plan import Items, Plan


def cheapest_first(units: int = 4) -> Allocator:
    """Give ``units`` to the cheapest items first, as far as the budget reaches.

    Formula: sort by cost c_i; n_i = units while sum of units * c_j over the items so far <= budget, else 0.
    Helps when items are worth the same; does not when the expensive ones are the informative ones.

    Args:
        units: per item, > 0.

    >>> from budgeteer.core.plan import Items
    >>> items = Items(("a", "b"), np.array([10.0, 1.0]))
    >>> method = cheapest_first()
    >>> method.allocate(20, items, method.init(items), rng=np.random.default_rng(0)).units.tolist()
    [0, 4]
    """

    def allocate(budget: int, items: Items) -> Plan:
        # ties by key, so that the order of the items does not matter
        order = np.lexsort((np.array(items.keys), items.cost))
        fits = np.cumsum(units * items.cost[order]) <= budget
        given = np.zeros(len(items), np.int64)
        given[order[fits]] = units
        return Plan(items.keys, given, float(given @ items.cost))

    return stateless(allocate)
