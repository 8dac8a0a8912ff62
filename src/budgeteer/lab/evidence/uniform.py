"""Uniform: the baseline of all others. When is it as good as an allocation that looks at its items, and when not?

128 prompts with expected tokens of log-std 0.5. "Alike": std / sqrt(tokens) is the same for all, so that uniform is
optimal; "spread": std has a log-std of 0.6 of its own. Neyman's allocation sees std estimated from 4 draws. The
variance is the exact ``sum std^2 / n``.
"""

from __future__ import annotations

import numpy as np

from budgeteer.allocate import neyman, uniform
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import Items
from budgeteer.lab.evidence import BELOW_ONE, Evidence, declare, measured

PROMPTS, UNITS = 128, 8.5

DECLARED = declare(
    "simulation",
    claims=("alike",),
    must_fail=("spread",),
)


def experiments() -> list[Evidence]:
    """Uniform where nothing differs, and where it does."""
    return [against_neyman(alike=True), against_neyman(alike=False)]


def against_neyman(*, alike: bool, allocator: Allocator | None = None, seeds: int = 20) -> Evidence:
    """Ratio of uniform's variance to that of Neyman's allocation on estimated std."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 11])
        cost = 60 * np.exp(0.5 * rng.standard_normal(PROMPTS))
        std = np.sqrt(cost) if alike else np.exp(0.6 * rng.standard_normal(PROMPTS))
        guess = std * np.sqrt(rng.chisquare(3, PROMPTS) / 3)
        items = Items(tuple(f"q{i:03d}" for i in range(PROMPTS)), cost, std=guess)
        budget = int(UNITS * cost.sum())
        plans = [a.allocate(budget, items, (), rng=rng) for a in (allocator or uniform(), neyman())]
        ours, theirs = (float(np.sum(std**2 / plan.units)) for plan in plans)
        values.append(ours / theirs)
    where = "std / sqrt(tokens) is the same for all prompts" if alike else "std and tokens differ between prompts"
    return measured(
        "alike" if alike else "spread",
        values,
        BELOW_ONE,
        claim=f"When {where}, uniform's variance is below that of Neyman's split on std from 4 draws (ratio)",
        baseline="neyman",
        budget=f"equal expected tokens, {UNITS} rollouts a prompt on average",
    )
