"""Water-filling over error curves: the same gain per token everywhere."""

from __future__ import annotations

import math
import sys
from typing import Literal

import numpy as np

from budgeteer.allocate.kit.solve import Found, bound_gap, fill, grow, lift, scaled, times
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Items, spend, whole

Curve = Literal["power", "exponential"]


def water_filling(curve: Curve = "power", max_units: int = 1_000_000) -> Allocator:
    """Minimise ``sum_j e_j(b_j)`` subject to ``sum_j c_j b_j <= B``, for errors that fall ever more slowly.

    ``power``: ``e = scale * b^-decay``, ``b >= 1``: error curves of sampling and of thinking longer.
    ``exponential``: ``e = scale * exp(-decay * b)``, ``b >= 0``: chance of missing, or loss in bits.
    c is ``cost``, tokens a unit. In the continuous problem every item's next unit gains the same per token, lambda:
    for power, ``b = (scale decay / (lambda c))^(1 / (1 + decay))``. Whole units are bought in the order of their gain
    ``(e(b) - e(b + 1)) / c``: exact when costs are equal, and within the certified ``gap`` otherwise.
    ``Plan.price`` is the gain per token of the best unit not bought; ``Plan.value`` minus the error left.

    When it helps: parts of one problem differ in how hard they are and in how fast they yield. When not: the curves
    are guesses; the allocation then follows them wherever they lead, since nothing here checks them.
    If the budget does not pay a unit for everybody (power), items go without, smallest ``scale / c`` first.

    Paper: "Plan and Budget: Effective and Efficient Test-Time Scaling on Large Language Model Reasoning",
    arXiv 2505.16122 (power); BAQ, arXiv 2506.05664 (exponential, with ``decay = 2 ln 2`` a bit).

    Args:
        curve: ``"power"`` or ``"exponential"``.
        max_units: most units an item, >= 1.

    >>> items = Items(("a", "b"), np.ones(2), scale=np.array([8.0, 1.0]), decay=np.ones(2))
    >>> water_filling().allocate(23, items, (), rng=np.random.default_rng(0)).units  # 8 / a^2 = 1 / b^2
    array([17,  6])
    """
    if curve not in ("power", "exponential") or whole("max_units", max_units) < 1:
        raise InvalidInput(f"water_filling({curve!r}, {max_units}); curves: power, exponential; max_units >= 1")
    low = 1 if curve == "power" else 0
    error, gain, count = (power_error, power_gain, power_count) if low else (exp_error, exp_gain, exp_count)

    def rule(budget: int, items: Items, rng: np.random.Generator) -> Found:
        (scale, power), decay, cost = (
            scaled(items.column("scale", "water-filling")),
            items.column("decay", "water-filling"),
            items.cost,
        )
        least = np.full(len(cost), low)
        if spend(least, cost) > budget:
            return Found(fill(np.argsort(-scale / cost, kind="stable"), low, cost, budget))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            useful = np.minimum(count(scale, decay, sys.float_info.min, low), max_units)
        top = np.where((scale > 0) & (decay > 0), useful, low).astype(np.int64)  # what removes no error is not bought

        def bought(price: float) -> I64:
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                wanted = count(scale, decay, price * cost, low)
            return np.clip(np.where(top > low, wanted, low), low, top).astype(np.int64)

        if spend(top, cost) <= budget:
            return Found(top, 0.0, times(-math.fsum(error(scale, decay, top).tolist()), -power), 0.0)
        first = float((gain(scale, decay, least) / cost).max())
        under, over = -745.0, math.log(first) + 1e-9 if first > 0 else -744.0
        for _ in range(60):  # only makes the start fast: grow() below finishes to the unit
            middle = (under + over) / 2
            under, over = (under, middle) if spend(bought(math.exp(middle)), cost) <= budget else (middle, over)

        def next_gain(i: int, have: int) -> float:
            return float(gain(scale[i], decay[i], have)) / float(cost[i])

        units = grow(bought(math.exp(over)), top, cost, budget, next_gain)
        price = float(np.where(units < top, gain(scale, decay, units) / cost, 0.0).max())
        best = bought(price) if price > 0 else units
        worth, bound = (-error(scale, decay, n) for n in (units, best))
        gap = bound_gap(budget, cost, (units, worth), (best, bound), price)
        return Found(units, times(price, -power), times(math.fsum(worth.tolist()), -power), times(gap, -power))

    return lift(rule)


def power_error(scale: F64, decay: F64, units: I64) -> F64:
    """``scale * units^-decay``."""
    return np.asarray(scale * np.asarray(units, dtype=np.float64) ** -decay)


def power_gain(scale: F64, decay: F64, units: I64 | int) -> F64:
    """``e(b) - e(b + 1)``, without cancellation for large b."""
    have = np.asarray(units, dtype=np.float64)
    return np.asarray(-scale * have**-decay * np.expm1(-decay * np.log1p(1 / have)))


def power_count(scale: F64, decay: F64, worth: F64 | float, low: int) -> F64:
    """Units whose gain is ``worth`` or more each: within 2 of where the derivative is, hence found by trying."""
    near = np.floor((scale * decay / worth) ** (1 / (1 + decay)))
    units = np.maximum(near - 2, low)
    for _ in range(4):
        units = units + (power_gain(scale, decay, units) >= worth)
    return np.asarray(units)


def exp_error(scale: F64, decay: F64, units: I64) -> F64:
    """``scale * exp(-decay * units)``."""
    return np.asarray(scale * np.exp(-decay * units))


def exp_gain(scale: F64, decay: F64, units: I64 | int) -> F64:
    """``e(b) - e(b + 1)``."""
    return np.asarray(-scale * np.exp(-decay * np.asarray(units)) * np.expm1(-decay))


def exp_count(scale: F64, decay: F64, worth: F64 | float, low: int) -> F64:
    """Units whose gain is ``worth`` or more each."""
    near = np.floor(np.log(-scale * np.expm1(-decay) / worth) / decay)
    units = np.maximum(near - 1, low)
    for _ in range(3):
        units = units + (exp_gain(scale, decay, units) >= worth)
    return np.asarray(units)
