"""budgeteer: spend language-model token budgets where they buy most."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budgeteer.allocator import Allocator, chain, named_chain, partition, scheduled, stateless
    from budgeteer.budget import Budget, Budgets
    from budgeteer.plan import Items, Menu, Outcomes, Plan
    from budgeteer.stopper import Stopper
    from budgeteer.usage import Usage

__version__ = "0.1.0"
__all__ = [
    "Allocator", "Budget", "Budgets", "Items", "Menu", "Outcomes", "Plan", "Stopper", "Usage", "chain", "named_chain",
    "partition", "scheduled", "stateless",
]  # fmt: skip

_HOME = {
    "Allocator": "allocator",
    "Budget": "budget",
    "Budgets": "budget",
    "Items": "plan",
    "Menu": "plan",
    "Outcomes": "plan",
    "Plan": "plan",
    "Stopper": "stopper",
    "Usage": "usage",
    "chain": "allocator",
    "named_chain": "allocator",
    "partition": "allocator",
    "scheduled": "allocator",
    "stateless": "allocator",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the registry and the command line start without numpy."""
    if name not in _HOME:
        raise AttributeError(f"module 'budgeteer' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"budgeteer.{_HOME[name]}"), name)
    globals()[name] = value
    return value
