"""Proportional to std: the same as Neyman's allocation when costs are equal, and what it loses when they are not.

128 prompts with known std of log-std 0.6; expected tokens are equal, or of log-std 0.8. The variance is the exact
``sum std^2 / n``, and nobody gets fewer than one rollout.
"""

from __future__ import annotations

import numpy as np

from budgeteer import chain
from budgeteer.allocate import (
    floor,
    neyman,
    proportional,
    round_to_budget,
    uniform,
)
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import Items
from budgeteer.lab.evidence import BELOW_ONE, Evidence, Region, declare, measured

PROMPTS, UNITS = 128, 16

DECLARED = declare(
    "simulation",
    claims=(
        "neyman, equal costs",
        "uniform, spread costs",
    ),
    must_fail=("neyman, spread costs",),
)


def experiments() -> list[Evidence]:
    """Against Neyman's allocation and against uniform."""
    return [
        ratio(neyman(max_units=4096), "neyman", spread=0.0),
        ratio(neyman(max_units=4096), "neyman", spread=0.8),
        ratio(uniform(), "uniform", spread=0.8),
    ]


def ratio(baseline: Allocator, name: str, *, spread: float, ours: Allocator | None = None, seeds: int = 20) -> Evidence:
    """Ratio of the variances."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 16])
        cost = 60 * np.exp(spread * rng.standard_normal(PROMPTS))
        std = np.exp(0.6 * rng.standard_normal(PROMPTS))
        items = Items(tuple(f"q{i:03d}" for i in range(PROMPTS)), cost, std=std)
        allocator = ours or chain(proportional(), floor(1), round_to_budget())
        plans = [a.allocate(int(UNITS * cost.sum()), items, (), rng=rng) for a in (allocator, baseline)]
        variance = [float(np.sum(std**2 / np.maximum(plan.units, 1))) for plan in plans]
        values.append(variance[0] / variance[1])
    region: Region = BELOW_ONE if name == "uniform" else (0.99, 1.01)
    effect = "is below" if name == "uniform" else "is within 1 % of"
    return measured(
        f"{name}, {'equal' if not spread else 'spread'} costs",
        values,
        region,
        claim=f"With {'spread' if spread else 'equal'} costs, the variance {effect} {name}'s (ratio)",
        baseline=name,
        budget=f"equal expected tokens, {UNITS} rollouts a prompt on average",
    )
