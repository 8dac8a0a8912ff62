"""Variants, which say what rollouts are asked with besides their prompts: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.variant._both_kinds import both_kinds
    from budgeteer.rl.variant._drawn_budget import drawn_budget
    from budgeteer.rl.variant._effort import effort
    from budgeteer.rl.variant._effort_modes import effort_modes
    from budgeteer.rl.variant._falling_budget import falling_budget
    from budgeteer.rl.variant._seele import seele
    from budgeteer.rl.variant._split_budgets import split_budgets

__all__ = [
    "both_kinds",
    "drawn_budget",
    "effort",
    "effort_modes",
    "falling_budget",
    "seele",
    "split_budgets",
]

__getattr__ = lazy(
    __name__,
    {
        "both_kinds": "_both_kinds",
        "drawn_budget": "_drawn_budget",
        "effort": "_effort",
        "effort_modes": "_effort_modes",
        "falling_budget": "_falling_budget",
        "seele": "_seele",
        "split_budgets": "_split_budgets",
    },
)
