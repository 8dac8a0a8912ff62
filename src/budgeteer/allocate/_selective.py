"""Skip what teaches nothing: rollouts only for items whose group is likely to be mixed, per token."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from budgeteer.allocate.kit.solve import Found, bound_gap, grow, lift, step_price
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, whole


def mixed_value(units: Any, rate: Any) -> Any:
    """``p (1 - p) (1 - p^N - (1 - p)^N)`` of N >= 1 rollouts; numbers or arrays."""
    return rate * (1 - rate) * (1 - rate**units - (1 - rate) ** units)


def mixed_gain(units: Any, rate: Any) -> Any:
    """What one rollout more than N adds to it."""
    return rate * (1 - rate) * (rate**units * (1 - rate) + (1 - rate) ** units * rate)


def selective(low: int = 3, high: int = 16) -> Allocator:
    """Maximise ``sum_i p_i (1 - p_i) (1 - p_i^N_i - (1 - p_i)^N_i)`` in tokens, with N_i = 0 or low <= N_i <= high.

    The value is the chance of a mixed group times the reward's variance: Knapsack RL's value made symmetric, with
    cost in tokens and with the right to skip. The first three rollouts of a group gain ``p (1 - p)`` times the
    variance each on average (a group of one cannot be mixed, then 2pq, then 3pq), after that the gain falls; so
    items enter in blocks of ``low`` by variance^2 per token, and single rollouts follow by marginal gain per token:
    the entry price is the gain that the last rollout elsewhere still has.

    When it helps: more candidates than the budget can serve (oversampled prompts) and a prediction of p before any
    rollout. When not: p is unknown or all alike, where it only concentrates the budget on fewer items. Training on
    what it picks is a curriculum: prompts that are solved or hopeless by prediction are left out, which is a bias.

    ``Plan.gap`` is against the Lagrangian bound over all such plans, and ``Plan.price`` that bound's price of a token.

    Builds on "Knapsack RL", arXiv 2509.25849; items without a pass rate count as 0.5.

    Args:
        low, high: least and most rollouts of an item that is not skipped, 2 <= low <= high.

    >>> items = Items(("a", "b", "c"), cost=np.full(3, 10.0), pass_rate=np.array([0.5, 0.98, 0.3]))
    >>> selective(3).allocate(90, items, (), rng=np.random.default_rng(0)).units
    array([4, 0, 5])
    """
    # a group of one cannot be mixed: it has no value, and nothing would be bought
    if not 2 <= whole("low", low) <= whole("high", high):
        raise InvalidInput(f"selective(low={low}, high={high}); needs 2 <= low <= high")

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        rate = items.column("pass_rate", "selective")
        p = np.where(np.isnan(rate), 0.5, rate)
        variance = p * (1 - p)

        def gain(i: int, have: int) -> float:
            return float(gains[i, have - low])

        have = np.arange(low, high + 1)
        q, r = p[:, None] ** have, (1 - p[:, None]) ** have
        gains = (variance / items.cost)[:, None] * (q * (1 - p)[:, None] + r * p[:, None])
        entry = variance * (1 - p**low - (1 - p) ** low) / (low * items.cost)
        order = np.lexsort((np.arange(len(p)), -entry))
        order = order[entry[order] > 0]
        place = np.full(len(p), len(p))
        place[order] = np.arange(len(order))
        # every single rollout beyond the blocks, best first; gains fall within an item, so its units keep their order
        single = np.argsort(-gains[:, :-1], axis=None, kind="stable") // max(high - low, 1)
        best, worth = np.zeros(len(p), np.int64), -1.0
        # the number of items that enter trades breadth for depth: try each, keep the most valuable
        for count in np.unique(np.linspace(min(1, len(order)), len(order), 16).round().astype(int)).tolist():
            units = np.zeros(len(p), np.int64)
            units[order[:count]] = low
            left = budget - float(units @ items.cost)
            if left < 0:
                break
            mine = single[place[single] < count]
            fits = int(np.searchsorted(np.cumsum(items.cost[mine]), left, side="right"))
            units += np.bincount(mine[:fits], minlength=len(p))
            units = grow(units, np.where(units > 0, high, 0), items.cost, budget, gain)
            value = float((variance * (1 - p**units - (1 - p) ** units))[units > 0].sum())
            if value > worth:
                best, worth = units, value
        # the bound: blocks and single rollouts by value per token, the last one in part; slopes fall within an item
        slope = np.concatenate([entry[:, None], gains[:, :-1]], axis=1)
        size = np.append(low, np.ones(high - low)) * items.cost[:, None]
        price = step_price(slope, size, budget)
        ideal = np.where(entry > price, low + np.sum(gains[:, :-1] > price, axis=1), 0)
        reached, bound = (np.where(n > 0, mixed_value(n, p), 0.0) for n in (best, ideal))
        gap = bound_gap(budget, items.cost, (best, reached), (ideal, bound), price)
        return Found(best, price, math.fsum(reached.tolist()), gap)

    return lift(rule)
