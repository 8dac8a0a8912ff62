"""Cost-weighted Neyman allocation: the smallest variance of a mean that the tokens can buy (DUET's split)."""

from __future__ import annotations

import bisect
import math

import numpy as np

from budgeteer.allocate.kit.solve import Found, bound_gap, fill, grow, lift, scaled, times
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Items, spend, whole

LOST = 2.0**-800
"""Variance a token that, beside a largest std of 2^-300 or more, no sum of float64 shows."""
WIDE = 1e6
"""Where std / sqrt(cost) varies more, running sums over the items lose digits."""


def neyman(min_units: int = 1, max_units: int = 32, published: bool = False) -> Allocator:
    """Units in proportion to ``std / sqrt(cost)``, within bounds and within the budget, to the unit.

    Minimises ``sum_q s_q^2 / n_q`` subject to ``sum_q n_q L_q <= B`` and ``min_units <= n_q <= max_units``, with s the
    column ``std`` and L the column ``cost`` in tokens. Without bounds ``n_q = s_q / sqrt(lambda L_q)``. Whole units are
    bought in the order of variance removed per token, ``s^2 / (n (n + 1) L)``: exact when costs are equal, and within
    the gain of one unit otherwise. ``Plan.price`` is lambda of the continuous problem: variance removed by one
    more token; 0 when every item is at its maximum; NaN when not even the minimum fits (then ``min_units`` go to
    as many items as possible, largest ``s^2 / L`` first).

    When it helps: std / sqrt(cost) differs between items and is known better than within a factor of about two.
    When not: it is constant (same as uniform), or it is estimated from a handful of draws (noise costs variance).
    An item with std 0 stays at ``min_units``; give a floor to an std that is an estimate.

    Paper: "DUET: Optimize Token-Budget Allocation for Reinforcement Learning with Verifiable Rewards",
    arXiv 2605.08441; Neyman (1934).

    Args:
        min_units: least units an item, >= 1: the variance of no draw is infinite.
        max_units: most units an item, >= min_units.
        published: reproduce the official arithmetic instead: ten halvings of log lambda in [-20, 20],
            ``clip(round(n))``, then one unit at a time off the item with the largest cost while over budget.

    >>> items = Items(("easy", "hard", "long"), cost=np.array([10.0, 10.0, 40.0]), std=np.array([1.0, 3.0, 2.0]))
    >>> plan = neyman().allocate(280, items, (), rng=np.random.default_rng(0))
    >>> plan.units, plan.expected_cost
    (array([ 4, 12,  3]), 280.0)
    """
    if not 1 <= whole("min_units", min_units) <= whole("max_units", max_units):
        raise InvalidInput(f"neyman(min_units={min_units}, max_units={max_units}); needs 1 <= min_units <= max_units")
    solve = published_units if published else neyman_units

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        std = items.column("std", "neyman")
        units, price = solve(std, items.cost, budget, min_units, max_units)
        return certified(std, items.cost, budget, units, price, min_units, max_units)

    return lift(rule)


def certified(std: F64, cost: F64, budget: float, units: I64, price: float, low: int, high: int) -> Found:
    """The plan with its value, minus the variance left ``sum s^2 / n``, and its gap to the bound of low to high units.

    The bound is taken at the gain per token of the best unit not bought. Without a unit everywhere there is no value.
    """
    if np.any(units == 0):
        return Found(units, price)
    std, power = scaled(std)
    worth = std**2 / cost
    more = np.where(units < high, worth / (units * (units + 1.0)), 0.0)
    threshold = float(more.max())
    best = units
    if threshold > 0:
        with np.errstate(over="ignore"):
            best = np.clip(np.floor((1 + np.sqrt(1 + 4 * worth / threshold)) / 2), low, high).astype(np.int64)
    gap = bound_gap(budget, cost, (units, -(std**2) / units), (best, -(std**2) / best), threshold)
    value = -math.fsum((std**2 / units).tolist())
    return Found(units, price, times(value, -2 * power), times(gap, -2 * power))


def neyman_units(std: F64, cost: F64, budget: float, low: int, high: int) -> tuple[I64, float]:
    """Whole units [n] and the price, from std [n] and cost [n] in tokens; earlier items win ties."""
    least, given = np.full(len(cost), low), std
    std, power = scaled(given)
    worth = std**2 / cost
    alive = worth > LOST
    lost = np.zeros(0, np.int64) if alive.all() else np.flatnonzero(~alive & (given > 0))
    if spend(least, cost) > budget:
        return fill(np.lexsort((np.where(alive, 0.0, -std), -worth)), low, cost, budget), float("nan")
    top = np.where(alive, high, low)  # a unit that removes no variance is not bought

    def bought(threshold: float) -> I64:
        # The n-th unit removes s^2 / (n (n - 1)) of variance; count those worth the threshold per token or more.
        count = np.floor((1 + np.sqrt(1 + 4 * worth / threshold)) / 2)
        bounded: I64 = np.clip(count, low, top).astype(np.int64)
        return bounded

    units, price = top, 0.0
    if spend(top, cost) > budget:
        # The continuous price only makes the start fast; grow() finishes it: the result is that of buying one by one.
        # Flooring the continuous solution is not optimal: for large n it buys units worth less than others left.
        price = neyman_price(np.where(alive, std, 0.0) if len(lost) else std, cost, budget, low, high)
        threshold = max(price, float(worth[alive].min()) / (high * (high + 1)))
        while spend(bought(threshold), cost) > budget:
            threshold *= 1.05
        units = grow(bought(threshold), top, cost, budget, lambda i, n: float(worth[i]) / (n * (n + 1)))
        price = times(price, -2 * power)
    if len(lost):  # what the others leave over is for these
        left = budget - spend(units, cost) + spend(units[lost], cost[lost])
        more, next_price = neyman_units(given[lost], cost[lost], left, low, high)
        if not math.isnan(next_price):  # NaN: rounded below their minimum, which they have
            units[lost], price = more, price or next_price
    return units, price


def neyman_price(std: F64, cost: F64, budget: float, low: int, high: int) -> float:
    """Exact dual of the continuous problem, ``sum L clip(s / sqrt(lambda L), low, high) = budget``.

    In ``u = 1 / sqrt(lambda)`` the left side is piecewise linear with a slope that changes where an item leaves its
    lower bound and where it meets its upper one, so sorting those 2n points solves it without iteration.
    """
    alive = std > 0
    reach, slope = np.sqrt(cost[alive]) / std[alive], std[alive] * np.sqrt(cost[alive])
    points, change = np.concatenate([low * reach, high * reach]), np.concatenate([slope, -slope])
    order = np.argsort(points, kind="stable")
    points, slopes = points[order], np.cumsum(change[order])
    start = low * float(cost.sum())
    tokens = start + np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(points))]) if len(points) else points
    if not len(points) or budget >= tokens[-1]:
        return 0.0
    if points[-1] * low <= WIDE * high * points[0]:
        k = max(int(np.searchsorted(tokens, budget, side="right")) - 1, 0)
        u = points[k] + (budget - tokens[k]) / slopes[k]
        return float(1 / u**2)
    rest = low * math.fsum(cost[~alive].tolist())

    def spent(u: float) -> float:
        return rest + spend(np.clip(u / reach, low, high), cost[alive])

    u = float(points[max(bisect.bisect_right(points, budget, key=spent) - 1, 0)])
    rising = float(slope[(low * reach <= u) & (u < high * reach)].sum())
    return (u + (budget - spent(u)) / rising) ** -2 if rising else u**-2


def published_units(std: F64, cost: F64, budget: float, low: int, high: int) -> tuple[I64, float]:
    """The official code's arithmetic (for comparisons): coarse bisection, rounding, trimming the costliest item."""

    def rounded(log_price: float) -> I64:
        with np.errstate(over="ignore"):
            wanted = np.round(std / np.sqrt(np.exp(log_price) * cost))
        units: I64 = np.clip(wanted, low, high).astype(np.int64)
        return units

    under, over = -20.0, 20.0
    for _ in range(10):
        middle = (under + over) / 2
        under, over = (middle, over) if spend(rounded(middle), cost) > budget else (under, middle)
    log_price = (under + over) / 2
    units = rounded(log_price)
    while spend(units, cost) > budget and np.any(units > low):
        units[int(np.argmax(np.where(units > low, cost, 0.0)))] -= 1
    if spend(units, cost) > budget:
        return fill(np.argsort(-(scaled(std)[0] ** 2) / cost, kind="stable"), low, cost, budget), float("nan")
    return units, float(np.exp(log_price))
