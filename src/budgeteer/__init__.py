"""budgeteer: spend language-model token budgets where they buy most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.core.allocator import Allocator, chain, stateless
    from budgeteer.core.budget import Budget, Budgets
    from budgeteer.core.errors import BudgeteerError, BudgetExceeded, InvalidInput
    from budgeteer.core.plan import Items, Menu, Outcomes, Plan
    from budgeteer.core.steer import Steer
    from budgeteer.core.usage import Usage

__version__ = "0.1.0"
__all__ = [
    "Allocator",
    "Budget",
    "BudgetExceeded",
    "BudgeteerError",
    "Budgets",
    "InvalidInput",
    "Items",
    "Menu",
    "Outcomes",
    "Plan",
    "Steer",
    "Usage",
    "chain",
    "stateless",
]

__getattr__ = lazy(
    __name__,
    {
        "Allocator": "core.allocator",
        "Budget": "core.budget",
        "BudgetExceeded": "core.errors",
        "BudgeteerError": "core.errors",
        "Budgets": "core.budget",
        "InvalidInput": "core.errors",
        "Items": "core.plan",
        "Menu": "core.plan",
        "Outcomes": "core.plan",
        "Plan": "core.plan",
        "Steer": "core.steer",
        "Usage": "core.usage",
        "chain": "core.allocator",
        "stateless": "core.allocator",
    },
)
