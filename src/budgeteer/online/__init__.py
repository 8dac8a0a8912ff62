"""Decisions on a stream: each request is answered before the next one is seen."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.online._dual_descent import dual_descent
    from budgeteer.online._load_balance import load_balance
    from budgeteer.online._online_knapsack import online_knapsack
    from budgeteer.online._online_matching import online_matching

__all__ = [
    "dual_descent",
    "load_balance",
    "online_knapsack",
    "online_matching",
]

__getattr__ = lazy(
    __name__,
    {
        "dual_descent": "_dual_descent",
        "load_balance": "_load_balance",
        "online_knapsack": "_online_knapsack",
        "online_matching": "_online_matching",
    },
)
