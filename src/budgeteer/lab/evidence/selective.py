"""Selective: does skipping prompts by predicted pass rate teach more than serving them alike?

384 candidates with the pass rates of the knapsack experiments and 1,024 rollouts: uniform gives 8 to a random third, or
3 to as many as it can, the smallest group that selective uses. What a group teaches is taken to be its chance of being
mixed times ``p (1 - p)``, in expectation under the true rates: small groups of many prompts do well by this measure.
"""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import selective
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import Items
from budgeteer.lab.evidence import ABOVE_ONE, Evidence, Region, declare, measured
from budgeteer.lab.evidence.knapsack import mixed, spread_rates

CANDIDATES, ROLLOUTS = 384, 1024

DECLARED = declare(
    "simulation",
    claims=(
        "true rates, groups of 8",
        "8 draws, groups of 8",
        "true rates, groups of 3",
        "8 draws, groups of 3",
    ),
    controls=("true rates, groups of 3, all alike",),
)


def experiments() -> list[Evidence]:
    """With true rates, with rates of 8 draws, and where all are alike."""
    return [
        teaches("true rates", 8),
        teaches("8 draws", 8),
        teaches("true rates", 3),
        teaches("8 draws", 3),
        teaches("true rates", 3, alike=True),
    ]


def teaches(
    how: str, group: int, *, alike: bool = False, allocator: Allocator | None = None, seeds: int = 15
) -> Evidence:
    """Ratio of what is taught to that of random candidates with ``group`` rollouts each."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 13])
        rate = np.full(CANDIDATES, 0.3) if alike else np.concatenate([spread_rates(rng) for _ in range(3)])
        seen = rate if how == "true rates" else (rng.binomial(8, rate) + 0.5) / 9
        items = Items(tuple(f"q{i:03d}" for i in range(CANDIDATES)), np.ones(CANDIDATES), pass_rate=seen)
        ours = (allocator or selective()).allocate(ROLLOUTS, items, (), rng=rng).units
        some = np.zeros(CANDIDATES, np.int64)
        some[rng.permutation(CANDIDATES)[: ROLLOUTS // group]] = group
        worth = [float(np.sum(mixed(units, rate) * rate * (1 - rate))) for units in (ours, some)]
        values.append(worth[0] / worth[1])
    region: Region = (0.99, 1.01) if alike else ABOVE_ONE
    effect = "is within 1 % of" if alike else "exceeds"
    where = ", when all rates are 0.3" if alike else ""
    return measured(
        f"{how}, groups of {group}" + (", all alike" if alike else ""),
        values,
        region,
        claim=f"With {how}{where}, what the rollouts teach {effect} that of uniform groups of {group} (ratio)",
        baseline=f"{ROLLOUTS // group} of {CANDIDATES} candidates with {group} rollouts each",
        budget="equal rollouts",
    )
