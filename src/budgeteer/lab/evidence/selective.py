"""Selective: does skipping prompts by predicted pass rate teach more than serving a third of them alike?

384 candidates with the pass rates of the knapsack experiments, three times as many as the budget serves with 8 rollouts.
What a group teaches is taken to be its chance of being mixed times ``p (1 - p)``, in expectation under the true rates.
"""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import selective, uniform
from budgeteer.allocator import Allocator
from budgeteer.lab.evidence import ABOVE_ONE, Evidence, Region, measured
from budgeteer.lab.evidence.knapsack import mixed, spread_rates
from budgeteer.plan import Items

CANDIDATES, SERVED, UNITS = 384, 128, 8


def experiments() -> list[Evidence]:
    """With true rates, with rates of 8 draws, and where all are alike."""
    return [teaches("true rates"), teaches("8 draws"), teaches("8 draws", alike=True)]


def teaches(how: str, *, alike: bool = False, allocator: Allocator | None = None, seeds: int = 15) -> Evidence:
    """Ratio of what is taught to a random third of the candidates with 8 rollouts each."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 13])
        rate = np.full(CANDIDATES, 0.3) if alike else np.concatenate([spread_rates(rng) for _ in range(3)])
        seen = rate if how == "true rates" else (rng.binomial(8, rate) + 0.5) / 9
        items = Items(tuple(f"q{i:03d}" for i in range(CANDIDATES)), np.ones(CANDIDATES), pass_rate=seen)
        ours = (allocator or selective()).allocate(UNITS * SERVED, items, (), rng=rng).units
        third = np.zeros(CANDIDATES, np.int64)
        few = rng.permutation(CANDIDATES)[:SERVED]
        third[few] = uniform(UNITS).allocate(UNITS * SERVED, items.take(few), (), rng=rng).units
        worth = [float(np.sum(mixed(units, rate) * rate * (1 - rate))) for units in (ours, third)]
        values.append(worth[0] / worth[1])
    # one rollout more or less a group is worth a few per cent, hence the wide null
    region: Region = (0.95, 1.05) if alike else ABOVE_ONE
    effect = "is within 5 % of" if alike else "exceeds"
    where = ", when all rates are 0.3" if alike else ""
    return measured(
        how + (", all alike" if alike else ""),
        values,
        region,
        claim=f"With {how}{where}, what the rollouts teach {effect} that of a random third of the candidates (ratio)",
        baseline=f"uniform, {UNITS} rollouts for {SERVED} of {CANDIDATES}",
        budget="equal rollouts",
    )
