"""Variants, which say what rollouts are asked with besides their prompts: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.variant._effort import effort
    from budgeteer.rl.variant._falling_budget import falling_budget
    from budgeteer.rl.variant._seele import seele
    from budgeteer.rl.variant._split_budgets import split_budgets

__all__ = [
    "effort",
    "falling_budget",
    "seele",
    "split_budgets",
]

__getattr__ = lazy(
    __name__,
    {
        "effort": "_effort",
        "falling_budget": "_falling_budget",
        "seele": "_seele",
        "split_budgets": "_split_budgets",
    },
)
