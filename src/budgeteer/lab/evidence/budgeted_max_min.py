"""Max-min: how much better off is the worst item, and what does the sum pay for it?

128 items with 8 concave options each (values from a uniform 0.3 to 1 at most, steps of 20 to 200 tokens), and a fifth
of the tokens that all largest options cost. The knapsack maximises the sum of the same values.
"""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import budgeted_max_min, menu_knapsack
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import F64, Items, Menu
from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, declare, measured

ITEMS, OPTIONS = 128, 8
BUDGET = "equal tokens, a fifth of all largest options"

DECLARED = declare(
    "simulation",
    claims=(
        "worst item",
        "sum",
    ),
)


def experiments() -> list[Evidence]:
    """The worst item, and the sum."""
    return [worst(), total()]


def values_of(allocator: Allocator, seed: int) -> F64:
    """The items' values under an allocator."""
    rng = np.random.default_rng([seed, 20])
    share = np.sort(rng.random((ITEMS, OPTIONS)), 1)[:, ::-1]
    value = rng.uniform(0.3, 1.0, (ITEMS, 1)) * np.cumsum(share, 1) / share.sum(1, keepdims=True)
    cost = np.cumsum(rng.integers(20, 200, (ITEMS, OPTIONS)), 1)
    items = Items(tuple(f"q{i:03d}" for i in range(ITEMS)), menu=Menu.of(cost, value))
    plan = allocator.allocate(int(cost[:, -1].sum()) // 5, items, (), rng=rng)
    return items.options().at(plan.units)[1]


def worst(*, allocator: Allocator | None = None, seeds: int = 20) -> Evidence:
    """Difference of the smallest values."""
    ours = allocator or budgeted_max_min()
    values = [float(values_of(ours, s).min() - values_of(menu_knapsack(), s).min()) for s in range(seeds)]
    return measured(
        "worst item",
        values,
        ABOVE_ZERO,
        claim="The smallest value exceeds that of the largest sum (difference)",
        baseline="menu_knapsack",
        budget=BUDGET,
    )


def total(*, allocator: Allocator | None = None, seeds: int = 20) -> Evidence:
    """Ratio of the sums."""
    ours = allocator or budgeted_max_min()
    values = [float(values_of(ours, s).sum() / values_of(menu_knapsack(), s).sum()) for s in range(seeds)]
    return measured(
        "sum",
        values,
        (0.95, 1.0),
        claim="The sum of the values is within 5 % of the largest possible (ratio)",
        baseline="menu_knapsack",
        budget=BUDGET,
    )
