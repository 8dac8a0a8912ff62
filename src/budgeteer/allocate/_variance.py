"""Variance-optimal rollouts from predicted success rates (VIP)."""

from __future__ import annotations

import numpy as np

from budgeteer.allocate._neyman import certified, neyman_units
from budgeteer.allocate.kit.solve import Found, lift
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, whole


def variance(min_units: int = 2, max_units: int = 32) -> Allocator:
    """Cost-weighted Neyman allocation with the variance of a binary reward, ``s_q^2 = p_q (1 - p_q)``.

    p is the column ``pass_rate``; an item never seen counts as 0.5, the most uncertain. Units, bounds and price as in
    :func:`budgeteer.allocate._neyman`.

    When it helps: rewards are 0 or 1 and pass rates are predicted well, since then no gradient norm has to be tracked.
    When not: pass rates are raw frequencies of few draws: 0 and 1 leave an item at ``min_units`` for good. Smooth them.

    Paper: VIP, "Adaptive Rollout Allocation for Online Reinforcement Learning with Verifiable Rewards",
    arXiv 2602.01601 (there p comes from a Gaussian process over prompt embeddings).

    Args:
        min_units: least units an item, >= 1.
        max_units: most units an item, >= min_units.

    >>> items = Items(("sure", "even", "new"), cost=np.full(3, 10.0), pass_rate=np.array([0.9, 0.5, np.nan]))
    >>> variance().allocate(240, items, (), rng=np.random.default_rng(0)).units
    array([6, 9, 9])
    """
    if not 1 <= whole("min_units", min_units) <= whole("max_units", max_units):
        raise InvalidInput(f"variance(min_units={min_units}, max_units={max_units}); needs 1 <= min_units <= max_units")

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        rate = np.nan_to_num(items.column("pass_rate", "variance"), nan=0.5)
        std = np.sqrt(rate * (1 - rate))
        units, price = neyman_units(std, items.cost, budget, min_units, max_units)
        return certified(std, items.cost, budget, units, price, min_units, max_units)

    return lift(rule)
