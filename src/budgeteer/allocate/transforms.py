"""Corrections of a plan, chained after an allocator: ``chain(neyman(), floor(2), round_to_budget())``."""

from __future__ import annotations

import dataclasses

import numpy as np

from budgeteer.allocate.kit.solve import largest_remainder
from budgeteer.core.allocator import PlanTransform
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, Items, Plan, spend, whole

__all__ = ["cap", "floor", "round_to_budget"]

NAN = float("nan")
"""A corrected plan is no longer worth what its allocator said."""


def floor(units: int) -> PlanTransform:
    """At least ``units`` for every item. May exceed the budget: chain :func:`round_to_budget` after it."""
    whole("floor's units", units)
    return lambda plan, budget, items: _with(plan, np.maximum(plan.units, units), items)


def cap(units: int) -> PlanTransform:
    """At most ``units`` for every item; what this frees stays unspent."""
    whole("cap's units", units)
    return lambda plan, budget, items: _with(plan, np.minimum(plan.units, units), items)


def round_to_budget() -> PlanTransform:
    """Scale a plan that is over its budget down to it, by largest remainders.

    Units are multiplied by ``budget / expected_cost`` and rounded down; single units go back in the order of the
    largest fraction lost (then by key), skipping what does not fit. A plan within its budget is left alone. Every
    item loses the same share; a floor chained before it is therefore not kept.

    >>> items = Items(("a", "b", "c"), cost=np.array([1.0, 1.0, 1.0]))
    >>> plan = Plan(items.keys, np.array([5, 3, 2]), 10.0)
    >>> round_to_budget()(plan, 7, items).units
    array([4, 2, 1])
    """

    def transform(plan: Plan, budget: int, items: Items) -> Plan:
        budget, cost = whole("budget", budget), _cost(plan, items)
        total = spend(plan.units, cost)
        if total <= budget:
            return plan
        exact = np.asarray(plan.units * (budget / total), dtype=np.float64)
        return _with(plan, largest_remainder(exact, cost, budget, plan.keys), items)

    return transform


def _cost(plan: Plan, items: Items) -> F64:
    if items.menu is not None:
        raise InvalidInput("plan transforms change counts of units, not options of a menu; leave the transform out")
    by_key = dict(zip(items.keys, items.cost.tolist(), strict=True))
    return np.array([by_key[key] for key in plan.keys], dtype=np.float64)


def _with(plan: Plan, units: I64, items: Items) -> Plan:
    return dataclasses.replace(plan, units=units, expected_cost=spend(units, _cost(plan, items)), value=NAN, gap=NAN)
