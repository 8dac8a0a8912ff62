"""Budgets of a KV cache: which entries each layer and head keeps, on any decoder of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.cache.account import Account
    from budgeteer.cache.budgeted_cache import BudgetedCache
    from budgeteer.cache.every_call import budgeted
    from budgeteer.cache.protocol import Cells, Groups, Leaving, Rest, Score, Split
    from budgeteer.cache.selecting import Selection, selection

__all__ = [
    "Account",
    "BudgetedCache",
    "Cells",
    "Groups",
    "Leaving",
    "Rest",
    "Score",
    "Selection",
    "Split",
    "budgeted",
    "selection",
]

__getattr__ = lazy(
    __name__,
    {
        "Account": "account",
        "BudgetedCache": "budgeted_cache",
        "Cells": "protocol",
        "Groups": "protocol",
        "Leaving": "protocol",
        "Rest": "protocol",
        "Score": "protocol",
        "Selection": "selecting",
        "Split": "protocol",
        "budgeted": "every_call",
        "selection": "selecting",
    },
)
