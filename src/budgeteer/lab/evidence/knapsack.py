"""Knapsack RL (arXiv 2509.25849): more mixed groups and more value than uniform at the same number of rollouts?

128 prompts: 40 % with pass rates from Beta(0.3, 6), 30 % from Beta(2, 2), 30 % from Beta(6, 0.3). Mixed groups and
value are exact expectations under the true rates. Much hangs on this population: pass rates seen as 0 or 1 get two
rollouts.
"""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import knapsack, uniform
from budgeteer.allocate._knapsack import group_value
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import F64, I64, Items
from budgeteer.lab.evidence import ABOVE_ONE, ABOVE_ZERO, Evidence, Region, declare, measured

PROMPTS, ROLLOUTS = 128, 8
BUDGET = f"equal rollouts, {ROLLOUTS} a prompt on average"

DECLARED = declare(
    "simulation",
    claims=(
        "value, oracle",
        "mixed, oracle",
        "value, 8 draws",
        "mixed, 8 draws",
        "value, stale",
        "mixed, stale",
        "value, smoothed",
        "mixed, smoothed",
        "fallback, hard prompts",
        "fallback, all prompts",
    ),
    controls=(
        "mixed, 8 draws, all alike",
        "mixed, oracle, null",
    ),
)


def experiments() -> list[Evidence]:
    """All of Knapsack RL's experiments."""
    return [
        gain("value", "oracle"),
        gain("mixed", "oracle"),
        gain("value", "8 draws"),
        gain("mixed", "8 draws"),
        gain("value", "stale"),
        gain("mixed", "stale"),
        gain("value", "smoothed"),
        gain("mixed", "smoothed"),
        gain("mixed", "8 draws", alike=True),
        gain("mixed", "oracle", alike=True),
        fallback(),
        fallback(hard=False),
    ]


def spread_rates(rng: np.random.Generator) -> F64:
    """Success rates [PROMPTS]: 40 % near 0, 30 % in the middle, 30 % near 1, in random order."""
    low, mid = int(0.4 * PROMPTS), int(0.3 * PROMPTS)
    parts = [rng.beta(0.3, 6.0, low), rng.beta(2.0, 2.0, mid), rng.beta(6.0, 0.3, PROMPTS - low - mid)]
    return np.asarray(rng.permutation(np.concatenate(parts)), dtype=np.float64)


def drifted(rate: F64, rng: np.random.Generator) -> F64:
    """The rates one epoch earlier: logits lower by 0.3 on average, with std 0.5."""
    safe = np.clip(rate, 1e-9, 1 - 1e-9)
    logit = np.log(safe / (1 - safe)) - rng.normal(0.3, 0.5, len(rate))
    return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float64)


def known(rate: F64, how: str, rng: np.random.Generator) -> F64:
    """What the allocator sees of the true rates."""
    if how == "oracle":
        return rate
    right = rng.binomial(8, drifted(rate, rng) if how == "stale" else rate)
    # Smoothing keeps a rate off 0 and 1, so that the values decide about it and not the fallback.
    return np.asarray((right + 0.5) / 9 if how == "smoothed" else right / 8, dtype=np.float64)


def mixed(units: I64, rate: F64) -> F64:
    """Chance that a group of ``units`` rollouts holds a success and a failure."""
    return np.where(units > 0, 1 - rate**units - (1 - rate) ** units, 0.0)


def split(allocator: Allocator, seen: F64, seed: int) -> I64:
    """Units at unit costs, so that rollouts and tokens are the same budget."""
    items = Items(tuple(f"q{i:03d}" for i in range(len(seen))), np.ones(len(seen)), pass_rate=seen)
    budget = ROLLOUTS * len(seen)
    return allocator.allocate(budget, items, allocator.init(items), rng=np.random.default_rng(seed)).units


def gain(
    measure: str, how: str, *, alike: bool = False, allocator: Allocator | None = None, seeds: int = 30
) -> Evidence:
    """Ratio to uniform of the expected number of mixed groups, or of the summed value, under the true rates."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 3])
        rate = np.full(PROMPTS, 0.3) if alike else spread_rates(rng)
        seen = known(rate, how, rng)
        score = group_value if measure == "value" else mixed
        ours, theirs = (split(method, seen, seed) for method in (allocator or knapsack(), uniform()))
        values.append(float(score(ours, rate).sum() / score(theirs, rate).sum()))
    null = alike and how == "oracle"
    region: Region = (0.99, 1.01) if alike else ABOVE_ONE
    of = {
        "oracle": "true pass rates",
        "8 draws": "pass rates from 8 draws",
        "stale": "pass rates from 8 draws of one epoch ago",
        "smoothed": "pass rates (right + 0.5) / 9 from 8 draws",
    }[how]
    measured_name = {"value": "value", "mixed": "expected number of mixed groups"}[measure]
    effect = "is within 1 % of" if alike else "exceeds"
    where = ", when all rates are 0.3" if alike else ""
    return measured(
        f"{measure}, {how}" + (", null" if null else ", all alike" if alike else ""),
        values,
        region,
        claim=f"With {of}{where}, the {measured_name} {effect} uniform's (ratio)",
        baseline="uniform",
        budget=BUDGET,
    )


def fallback(*, hard: bool = True, seeds: int = 30) -> Evidence:
    """Does giving what is left to the prompts that never succeeded pay, on them and on all?

    Half of the prompts succeed at a rate of 0.02, the others as in :func:`spread_rates`; the rates seen are 8 draws.
    """
    values, rows = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 4])
        rate = spread_rates(rng)
        rate[: PROMPTS // 2] = 0.02
        seen = known(rate, "8 draws", rng)
        with_it, without = (mixed(split(knapsack(fallback=flag), seen, seed), rate) for flag in (True, False))
        part = slice(PROMPTS // 2) if hard else slice(None)
        values.append(float(np.mean(with_it[part] - without[part])))
        rows.append((float(with_it[part].mean()), float(without[part].mean())))
    mean = np.mean(rows, axis=0)
    who = "prompts with a pass rate of 0.02" if hard else "all prompts"
    return measured(
        f"fallback, {'hard prompts' if hard else 'all prompts'}",
        values,
        ABOVE_ZERO,
        claim=f"The fallback raises the share of mixed groups among {who} (difference)",
        baseline="no fallback",
        budget=BUDGET,
        details=[{"with": float(mean[0]), "without": float(mean[1])}],
    )
