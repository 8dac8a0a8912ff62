"""Knapsack RL: rollouts where a mixed group, and what it teaches, is most likely to come from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from budgeteer.allocate.kit.falling import level, rise
from budgeteer.allocate.kit.solve import Found, bound_gap, fill, grow, lift
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Items, spend, whole

ALPHA = 0.9
"""A mixed prompt has what it needs once its group is mixed with this probability."""


def group_value(units: F64 | I64, rate: F64) -> F64:
    """``Value(N, p) = (1 - p^N - (1-p)^N) p (1-p)^2``: chance of a gradient times its information gain.

    >>> group_value(np.array([1, 2, 8]), np.array([0.5, 0.5, 0.0]))
    array([0.    , 0.0625, 0.    ])
    """
    return np.asarray((1 - rate**units - (1 - rate) ** units) * rate * (1 - rate) ** 2, dtype=np.float64)


def group_gain(units: Any, rate: Any) -> Any:
    """``Value(N + 1, p) - Value(N, p)``, which falls with N >= 1; numbers or arrays."""
    return rate * (1 - rate) ** 2 * (rate**units * (1 - rate) + (1 - rate) ** units * rate)


def knapsack(low: int = 2, high: int = 128, per_token: bool = False, fallback: bool = True) -> Allocator:
    """Maximise ``sum_i Value(N_i, p_i)`` at a fixed total of rollouts, ``low <= N_i <= high``.

    Value is concave in N, so buying one rollout after the other, largest marginal gain
    ``p (1-p)^2 (p^N (1-p) + (1-p)^N p)`` first, is exact: no dynamic program. p is the column ``pass_rate``, usually
    the success rate of the last visit. Items never seen (NaN) get the uniform share. Items at p = 0 or 1 have value 0
    and get ``low``; once the total covers what the mixed items need (``need = log(0.1) / log(max(p, 1-p))`` rollouts
    for a 90 % chance of a mixed group), the rest is shared evenly by the items at p = 0, or at p = 1 without any.
    If not even ``low`` each fits, ``low`` go to as many as fit: by value per token, then unseen, p = 0, p = 1.

    The tokens of the budget become ``floor(B / mean(cost))`` rollouts; a plan whose rollouts fall on costly items
    gives back those with the smallest gain until its tokens fit. ``per_token`` ranks gain per token instead.

    ``Plan.value`` is the sum above, with p = 0.5 where it was never seen; ``Plan.gap`` is against the Lagrangian bound
    of all plans of ``low`` to ``high`` rollouts within the tokens, so that it shows what counting rollouts, the share
    of the unseen and the fallback leave; 0 for equal costs without these. ``Plan.price`` is the bound's price of a
    token. All are NaN if not even ``low`` each fits.

    When it helps: pass rates spread widely and are known from enough draws. When not: all are alike, or most
    are 0 or 1 from few draws; the fallback then decides most of the budget, not the values.

    Paper: "Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation", arXiv 2509.25849.

    Args:
        low, high: least and most rollouts an item, 1 <= low <= high.
        per_token: count the budget in tokens instead of rollouts.
        fallback: share what is left as above; False gives it to the mixed items up to ``high``.

    >>> items = Items(("a", "b", "c"), cost=np.full(3, 10.0), pass_rate=np.array([0.1, 0.5, 1.0]))
    >>> knapsack(fallback=False).allocate(240, items, (), rng=np.random.default_rng(0)).units
    array([15,  7,  2])
    """
    if not 1 <= whole("low", low) <= whole("high", high):
        raise InvalidInput(f"knapsack(low={low}, high={high}); needs 1 <= low <= high")

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        rate, n = items.column("pass_rate", "knapsack-allocator"), len(items)
        unseen, fails, solved = np.isnan(rate), rate == 0, rate == 1
        mixed = ~(unseen | fails | solved)
        known = np.where(unseen, 0.5, rate)
        price = items.cost if per_token else np.ones(n)
        capacity = budget if per_token else int(budget / (spend(np.ones(n, np.int64), items.cost) / n))
        if spend(np.full(n, low), price) > capacity:
            worth = group_value(np.full(n, float(low)), known) / items.cost
            return Found(fill(np.lexsort((-worth, unseen, fails, solved)), low, items.cost, budget))

        def gain(rows: I64, have: I64) -> F64:
            return np.asarray(group_gain(have, known[rows]) / price[rows])

        def slope(rows: I64, have: I64) -> F64:
            return np.asarray(group_gain(have, known[rows]) / items.cost[rows])

        def gain_of_row(i: int, have: int) -> float:
            return float(group_gain(have, float(known[i]))) / float(price[i])

        share = max(low, min(int(capacity / spend(np.ones(n, np.int64), price)), high))
        units = np.where(unseen, share, low)
        rest = (fails if fails.any() else solved) & fallback
        limit = float(capacity)
        if rest.any() and mixed.any():
            same = np.log(np.maximum(known, 1 - known), where=mixed, out=np.full(n, -1.0))
            with np.errstate(divide="ignore"):  # rates next to 0 or 1 need more than any number
                need = np.ceil(np.abs(np.log(1 - ALPHA) / same))
            wanted = np.where(mixed, np.clip(need, low, high), units).astype(np.int64)
            limit = min(limit, spend(wanted, price))
        top, least = np.where(mixed, high, units), np.full(n, low)
        units, _, _ = rise(gain, units, top, price, limit)
        if per_token:  # what is left may pay for a cheaper one
            fits = price <= limit - spend(units, price)
            units = grow(units, np.where(fits, top, units), price, limit, gain_of_row)
        units = level(units, np.where(rest, high, units), price, capacity)
        units = level(units, np.where(unseen, min(share + 1, high), units), price, capacity)
        if spend(units, items.cost) > budget:
            units, _, _ = rise(gain, least, units, items.cost, budget, last_first=True)
        _, dual, best = rise(slope, least, np.full(n, high), items.cost, budget)
        worth, bound = group_value(units, known), group_value(best, known)
        gap = bound_gap(budget, items.cost, (units, worth), (best, bound), dual)
        return Found(units, dual, math.fsum(worth.tolist()), gap)

    return lift(rule)
