"""Advantages: one a file, grouped by index, ragged by construction."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.advantage._group_norm import group_norm
    from budgeteer.rl.advantage._history_baseline import history_baseline

__all__ = [
    "group_norm",
    "history_baseline",
]

__getattr__ = lazy(
    __name__,
    {
        "group_norm": "_group_norm",
        "history_baseline": "_history_baseline",
    },
)
