"""VIP's split (arXiv 2602.01601): is the variance of the mean reward lower than uniform's at equal tokens?

128 prompts with pass rates from Beta(0.6, 0.6), expected tokens of log-std 0.3; the variance is the exact
``sum p (1 - p) / n``. The paper predicts p with a Gaussian process; here p is known, or comes from 8 draws, raw or
smoothed to ``(right + 1) / 10``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from budgeteer.allocate import uniform, variance
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import Items
from budgeteer.lab.evidence import BELOW_ONE, Evidence, declare, measured

PROMPTS, UNITS = 128, 8
Source = Literal["known", "smoothed", "raw"]

DECLARED = declare(
    "simulation",
    claims=(
        "known",
        "smoothed",
        "raw",
    ),
)


def experiments() -> list[Evidence]:
    """With true and with estimated pass rates."""
    return [lower("known"), lower("smoothed"), lower("raw")]


def lower(source: Source, *, allocator: Allocator | None = None, seeds: int = 30) -> Evidence:
    """Ratio of the variance to uniform's."""
    values = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 12])
        rate = rng.beta(0.6, 0.6, PROMPTS)
        right = rng.binomial(8, rate)
        seen = {"known": rate, "smoothed": (right + 1) / 10, "raw": right / 8}[source]
        cost = 60 * np.exp(0.3 * rng.standard_normal(PROMPTS))
        items = Items(tuple(f"q{i:03d}" for i in range(PROMPTS)), cost, pass_rate=seen)
        budget = int(UNITS * cost.sum())
        plans = [a.allocate(budget, items, (), rng=rng) for a in (allocator or variance(), uniform())]
        ours, theirs = (float(np.sum(rate * (1 - rate) / plan.units)) for plan in plans)
        values.append(ours / theirs)
    how = {"known": "true pass rates", "smoothed": "smoothed pass rates of 8 draws", "raw": "raw ones of 8 draws"}
    return measured(
        source,
        values,
        BELOW_ONE,
        claim=f"With {how[source]}, the variance of the mean reward is below uniform's (ratio)",
        baseline="uniform",
        budget=f"equal expected tokens, {UNITS} rollouts a prompt on average",
    )
