"""One line: the claim, and under which conditions. Becomes src/budgeteer/lab/evidence/NAME.py.

Say what is simulated and how the numbers are drawn, so that a reader can repeat it without reading the code.
"""

from __future__ import annotations

import numpy as np
from allocator import cheapest_first  # in the package: from budgeteer.PART.NAME import NAME

from budgeteer.allocate import uniform
from budgeteer.core.plan import Items
from budgeteer.lab.evidence import ABOVE_ONE, Evidence, declare, measured

ITEMS, BUDGET = 64, 4_000
DECLARED = declare("simulation", claims=["units bought"], controls=["units bought, equal costs"])
"""What each row is; on what it was measured: "simulation", "embedded reasoner" or "real model"."""


def experiments() -> list[Evidence]:
    """All of the method's experiments: the claim, and a control in which there is nothing to gain."""
    return [more_units(spread=1.0), more_units(spread=0.0)]


def more_units(*, spread: float, seeds: int = 20) -> Evidence:
    """Units bought, divided by what uniform buys with the same budget; costs are 40 * exp(spread * normal) tokens."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 1])
        cost = 40 * np.exp(spread * rng.standard_normal(ITEMS))
        items = Items(tuple(f"q{i:02d}" for i in range(ITEMS)), cost)
        units = []
        for allocator in (cheapest_first(), uniform()):
            plan = allocator.allocate(BUDGET, items, allocator.init(items), rng=rng)
            units.append(int(plan.units.sum()))
        values.append(units[0] / units[1])
    control = spread == 0
    return measured(
        "units bought" + (", equal costs" if control else ""),
        values,
        (0.9, 1.1) if control else ABOVE_ONE,
        claim=f"With {'equal' if control else 'spread'} costs, units bought divided by uniform's",
        baseline="uniform",
        budget=f"{BUDGET:,} expected tokens",
    )
