"""Successive halving (arXiv 1502.07943): does it find a better item than uniform does with the same units?

32 items, 16 units each on average. Success rates: sparse, the best at 0.6 and the others even from 0.5 down to 0; or
close, all from U(0.4, 0.6). Uniform then takes the largest mean, ties at random. Simple regret is the best rate minus
that of the item chosen.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from budgeteer.allocate import successive_halving, uniform
from budgeteer.core.plan import ENDED, F64, Items, Outcomes
from budgeteer.lab.evidence import BELOW_ZERO, Evidence, declare, measured

ITEMS, UNITS = 32, 16
Rates = Literal["sparse", "close", "alike"]

DECLARED = declare(
    "simulation",
    claims=(
        "simple regret, sparse, 16 units",
        "simple regret, sparse, 4 units",
        "simple regret, close, 16 units",
    ),
    controls=("the first item is chosen, alike",),
)


def experiments() -> list[Evidence]:
    """All of successive halving's experiments."""
    return [simple_regret("sparse"), simple_regret("sparse", units=4), simple_regret("close"), null()]


def rates(kind: Rates, rng: np.random.Generator) -> F64:
    """Success rates [ITEMS] in random order."""
    if kind == "sparse":
        return np.asarray(rng.permutation(np.append(np.linspace(0, 0.5, ITEMS - 1), 0.6)), dtype=np.float64)
    return rng.uniform(0.4, 0.6, ITEMS) if kind == "close" else np.full(ITEMS, 0.3)


def halving(rate: F64, budget: int, rng: np.random.Generator) -> int:
    """The item that is left when the rounds end; raises if they spent more than the budget."""
    items, method = Items(tuple(f"q{i:02d}" for i in range(len(rate))), np.ones(len(rate))), successive_halving()
    state, left = method.init(items), budget
    while (units := method.allocate(left, items, state, rng=rng).units).any():
        left -= int(units.sum())
        rows = np.repeat(np.arange(len(rate)), units)
        reward = (rng.random(len(rows)) < rate[rows]).astype(np.float64)
        keys = tuple(items.keys[i] for i in rows)
        state = method.observe(state, Outcomes(keys, rows * 0, reward, reward * 0, np.full(len(rows), ENDED, np.int8)))
    (winner,) = set(items.keys) - set(state.out)
    if left < 0:
        raise AssertionError(f"spent {budget - left} of {budget}")
    return items.keys.index(winner)


def even(rate: F64, budget: int, rng: np.random.Generator) -> int:
    """The item of the largest mean after uniform units; ties at random."""
    items, method = Items(tuple(f"q{i:02d}" for i in range(len(rate))), np.ones(len(rate))), uniform()
    units = method.allocate(budget, items, method.init(items), rng=rng).units
    mean = rng.binomial(units, rate) / np.maximum(units, 1)
    return int(rng.choice(np.flatnonzero(mean == mean.max())))


def simple_regret(kind: Rates, *, units: int = UNITS, seeds: int = 300) -> Evidence:
    """Simple regret minus that of uniform."""
    values, rows = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 33])
        rate = rates(kind, rng)
        lost = [float(rate.max() - rate[find(rate, units * ITEMS, rng)]) for find in (halving, even)]
        values.append(lost[0] - lost[1])
        rows.append(lost)
    mean = np.mean(rows, axis=0)
    return measured(
        f"simple regret, {kind}, {units} units",
        values,
        BELOW_ZERO,
        claim=f"With {kind} success rates and {units} units an item, simple regret is below uniform's (difference)",
        baseline="uniform, then the largest mean",
        budget="equal units",
        details=[{"halving": float(mean[0]), "uniform": float(mean[1])}],
    )


def null(*, seeds: int = 3000, units: int = 4) -> Evidence:
    """When all are alike, no position and no name is preferred: the first item is left as often as any other."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 34])
        values.append(float(halving(rates("alike", rng), units * ITEMS, rng) == 0))
    return measured(
        "the first item is chosen, alike",
        values,
        (1 / ITEMS - 0.01, 1 / ITEMS + 0.01),
        claim=f"When all success rates are 0.3, the first item is left in 1 / {ITEMS} of all runs, within 0.01 (share)",
        baseline="any other item",
        budget=f"{units} units an item",
    )
