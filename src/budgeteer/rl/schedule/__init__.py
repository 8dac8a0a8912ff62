"""Schedules of a run's settings: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.schedule._decay import decay
    from budgeteer.rl.schedule._linear import linear
    from budgeteer.rl.schedule._rex import rex
    from budgeteer.rl.schedule._staircase import staircase

__all__ = [
    "decay",
    "linear",
    "rex",
    "staircase",
]

__getattr__ = lazy(
    __name__,
    {
        "decay": "_decay",
        "linear": "_linear",
        "rex": "_rex",
        "staircase": "_staircase",
    },
)
