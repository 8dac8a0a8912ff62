"""What the next unit of an item would gain, for the allocators that weigh it: the curves behind a plan of units."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from budgeteer.allocate._knapsack import group_gain
from budgeteer.allocate._selective import mixed_gain, mixed_value
from budgeteer.allocate._water_filling import exp_gain, power_gain
from budgeteer.core import registry
from budgeteer.core.plan import F64, I64, Items

WEIGHING = ("neyman", "variance", "water-filling", "knapsack-allocator", "selective")


class Margin(NamedTuple):
    """Gains and limits of units.

    Attributes:
        gain: units [k] or [n, 1] -> value a token [n, k] of one unit more than so many for each of the n items.
        low, high: least and most units of an item.
        names: what the method calls these limits.
        enter: value a token [n] of the first ``low`` units together, where an item may go without; else None, and
            every item has ``low`` before gains count.
    """

    gain: Callable[[I64], F64]
    low: int
    high: int
    names: tuple[str, str]
    enter: F64 | None = None


def margin_of(method: str, items: Items, settings: Mapping[str, Any]) -> Margin | None:
    """The margins of a registered allocator with these arguments; None if it weighs no gain of units."""
    if items.menu is not None or method not in WEIGHING:
        return None
    call = inspect.signature(registry.load(registry.get("allocator", method))).bind(**settings)
    call.apply_defaults()
    given, cost = call.arguments, items.cost[:, None]
    if method == "water-filling":
        scale, decay = (items.column(name, method)[:, None] for name in ("scale", "decay"))
        gain, low = (power_gain, 1) if given["curve"] == "power" else (exp_gain, 0)
        return Margin(lambda n: gain(scale, decay, n) / cost, low, given["max_units"], ("", "max_units"))
    if method == "neyman":
        std = items.column("std", method)[:, None]
        limits = given["min_units"], given["max_units"]
        return Margin(lambda n: std**2 / (n * (n + 1.0)) / cost, *limits, ("min_units", "max_units"))
    rate = np.nan_to_num(items.column("pass_rate", method), nan=0.5)[:, None]
    if method == "variance":
        limits = given["min_units"], given["max_units"]
        return Margin(lambda n: rate * (1 - rate) / (n * (n + 1.0)) / cost, *limits, ("min_units", "max_units"))
    low, high, names = given["low"], given["high"], ("low", "high")
    if method == "selective":
        enter = mixed_value(np.array(low), rate[:, 0]) / (low * items.cost)
        return Margin(lambda n: mixed_gain(n, rate) / cost, low, high, names, enter)
    return Margin(lambda n: group_gain(n, rate) / cost, low, high, names)
