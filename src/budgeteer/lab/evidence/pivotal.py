"""Pivotal sampling (arXiv 2407.15285): a fixed total at exact chances, and matching close to the best online method.

Rounding: 50 items with chances U(0, 1) scaled to a sum of 15, costs log-normal (std of log 0.5). Matching: 5
resources, 8 requests that come with chance U(0.2, 1); values exponential or all 1, and 0 for half of the pairs. The
best online method is the exact dynamic program over the sets of free resources. Matching runs 1,000 times an
instance. The discarding step of the paper, on which its proof of 0.678 rests, is not implemented; the ratio is what
is measured.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from budgeteer.allocate import pivotal
from budgeteer.check import best_online
from budgeteer.core.plan import F64
from budgeteer.lab.evidence import ABOVE_ZERO, BELOW_ONE, Evidence, declare, measured
from budgeteer.online import online_matching
from budgeteer.online._online_matching import Proposals

DECLARED = declare(
    "simulation",
    claims=(
        "variance of the cost",
        "marginals",
        "matching, ratio",
        "matching, ratio, equal values",
        "matching against independent proposals",
        "matching against independent proposals, equal values",
        "matching, bound",
    ),
)


def experiments() -> list[Evidence]:
    """All of pivotal sampling's experiments."""
    return [
        variance(),
        marginals(),
        matching_ratio(),
        matching_ratio(unit=True),
        against_independent(),
        against_independent(unit=True),
        below_bound(),
    ]


def chances(rng: np.random.Generator, n: int = 50, total: float = 15.0) -> F64:
    """Chances [n] in [0, 1] with this sum."""
    p = rng.random(n)
    for _ in range(100):
        p = np.minimum(p * total / p.sum(), 1.0)
    return np.asarray(p, dtype=np.float64)


def variance(*, seeds: int = 20, draws: int = 2000) -> Evidence:
    """Variance of the total cost of what is chosen, over that of independent coins."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 61])
        p, cost = chances(rng), rng.lognormal(0, 0.5, 50)
        total = np.array([float(cost[pivotal(p, rng)].sum()) for _ in range(draws)])
        values.append(float(total.var() / (cost**2 @ (p * (1 - p)))))
    return measured(
        "variance of the cost",
        values,
        BELOW_ONE,
        claim="The variance of the chosen items' total cost is below that of independent coins (ratio)",
        baseline="independent coins, exact variance",
        budget="the same chances",
    )


def marginals(*, seeds: int = 20, draws: int = 4000) -> Evidence:
    """Mean over items of the squared standardised gap between share chosen and chance: 1 if marginals are exact."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 62])
        p = chances(rng)
        free = (p > 0.01) & (p < 0.99)
        share = np.mean([pivotal(p, rng) for _ in range(draws)], axis=0)
        values.append(float(np.mean((share - p)[free] ** 2 / (p * (1 - p))[free] * draws)))
    return measured(
        "marginals",
        values,
        (0.8, 1.2),
        claim="Shares of draws in which items are chosen scatter around their chances as a binomial does (mean square,"
        " standardised; 1 = exactly)",
        baseline="binomial variance",
        budget=f"{draws:,} draws a seed",
    )


def instance(seed: int, unit: bool = False) -> tuple[F64, F64]:
    """Values [5, 8] and chances [8]."""
    rng = np.random.default_rng([seed, 63])
    size = np.ones((5, 8)) if unit else rng.exponential(1.0, (5, 8))
    return size * (rng.random((5, 8)) < 0.5), rng.uniform(0.2, 1.0, 8)


def serve(plan: Proposals, chance: F64, rng: np.random.Generator, independent: bool) -> float:
    """Value of one run; ``independent`` lets the resources propose by coins of their own."""
    n, times = plan.value.shape
    free: NDArray[np.bool_] = np.ones(n, dtype=np.bool_)
    total = 0.0
    for t in np.flatnonzero(rng.random(times) < chance).tolist():
        if independent:
            proposed = free & (rng.random(n) < plan.propose[:, t])
            i = int(np.argmax(np.where(proposed, plan.value[:, t], -1.0))) if proposed.any() else -1
        else:
            i = plan.serve(t, free, rng)
        if i >= 0:
            total += float(plan.value[i, t])
            free[i] = False
    return total


def runs(seed: int, independent: bool, unit: bool = False, draws: int = 1000) -> tuple[float, float, float]:
    """Mean value of the runs, value of the best online method, bound of the linear program."""
    value, chance = instance(seed, unit)
    plan, rng = online_matching(value, chance), np.random.default_rng([seed, 64])
    mean = np.mean([serve(plan, chance, rng, independent) for _ in range(draws)])
    return float(mean), best_online(value, chance), plan.bound


def matching_ratio(*, unit: bool = False, seeds: int = 20) -> Evidence:
    """Value over that of the best online method."""
    table = [runs(seed, False, unit) for seed in range(seeds)]
    ratios = [ours / best for ours, best, _ in table]
    return measured(
        "matching, ratio" + ", equal values" * unit,
        ratios,
        (0.678, math.inf),
        claim=f"With {'equal' if unit else 'exponential'} values, matching by pivotal proposals collects more than"
        " 0.678 of the best online method's value (ratio)",
        baseline="exact dynamic program",
        budget="5 resources, each used once",
        details=[{"smallest ratio": min(ratios)}],
    )


def against_independent(*, unit: bool = False, seeds: int = 20) -> Evidence:
    """Ratio to the best online method, minus that of independent proposals."""
    values = []
    for seed in range(seeds):
        (ours, best, _), (theirs, _, _) = runs(seed, False, unit), runs(seed, True, unit)
        values.append((ours - theirs) / best)
    return measured(
        "matching against independent proposals" + ", equal values" * unit,
        values,
        ABOVE_ZERO,
        claim=f"With {'equal' if unit else 'exponential'} values, pivotal proposals collect more than independent ones"
        " (difference of ratios to the best online method)",
        baseline="independent proposals from the same linear program",
        budget="5 resources, each used once",
    )


def below_bound(*, seeds: int = 40) -> Evidence:
    """Is the linear program above every online method? Then it measures methods where no exact one is known."""
    values = []
    for seed in range(seeds):
        value, chance = instance(seed)
        values.append(best_online(value, chance) / online_matching(value, chance).bound)
    return measured(
        "matching, bound",
        values,
        (0.9, 1.0),
        claim="The best online method's value is between 0.9 and 1 of the linear program's bound (ratio)",
        baseline="linear program",
        budget="5 resources, each used once",
        details=[{"largest ratio": max(values)}],
    )
