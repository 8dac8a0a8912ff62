"""Importance ratios: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.ratio._clipped import clipped

__all__ = [
    "clipped",
]

__getattr__ = lazy(
    __name__,
    {
        "clipped": "_clipped",
    },
)
