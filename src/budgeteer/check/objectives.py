"""The objectives of the allocators that state a value, written from their docstrings and not from their code.

Each takes items and units [n] and returns the plan's value.
"""

from __future__ import annotations

import math

import numpy as np

from budgeteer.core.plan import F64, I64, Items


def neyman(items: Items, units: I64) -> float:
    """Minus the sum of the variances of the items' means."""
    return -math.fsum(items.column("std", "the objective") ** 2 / units)


def variance(items: Items, units: I64) -> float:
    """The same with the variance p (1 - p) of a reward; 1/2 for a pass rate that was never seen."""
    rate = _seen(items)
    return -math.fsum(rate * (1 - rate) / units)


def water_filling(items: Items, units: I64) -> float:
    """Minus the sum of the power curves ``scale * units^-decay``."""
    return -math.fsum(
        items.column("scale", "the objective") * units.astype(np.float64) ** -items.column("decay", "the objective")
    )


def exponential(items: Items, units: I64) -> float:
    """Minus the sum of the curves ``scale * exp(-decay * units)``."""
    return -math.fsum(items.column("scale", "the objective") * np.exp(-items.column("decay", "the objective") * units))


def clear(items: Items, units: I64) -> float:
    """The sum of ``(x / 64) exp(1 - x / 64)`` with x the units beyond the thresholds."""
    x = np.maximum(units - items.column("threshold", "the objective"), 0) / 64
    return math.fsum(x * np.exp(1 - x))


def knapsack(items: Items, units: I64) -> float:
    """Probability of a mixed group times p (1 - p)^2, summed (Knapsack RL)."""
    rate = _seen(items)
    return math.fsum(_mixed(units, rate) * rate * (1 - rate) ** 2)


def selective(items: Items, units: I64) -> float:
    """Probability of a mixed group times p (1 - p), summed."""
    rate = _seen(items)
    return math.fsum(_mixed(units, rate) * rate * (1 - rate))


def max_min(items: Items, units: I64) -> float:
    """The value of the worst item's option."""
    return float(items.options().at(units)[1].min())


def _seen(items: Items) -> F64:
    rate = items.column("pass_rate", "the objective")
    return np.where(np.isnan(rate), 0.5, rate)


def _mixed(units: I64, rate: F64) -> F64:
    """P(a group of so many has both a success and a failure)."""
    return np.where(units > 0, 1 - rate**units - (1 - rate) ** units, 0.0)
