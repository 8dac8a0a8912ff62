"""Arguments for methods whose factories need more than numbers: what :attr:`budgeteer.core.method.Method.arguments`
names."""

from __future__ import annotations

from typing import Any

import numpy as np

from budgeteer.allocate import Bank

ITEMS = tuple(f"item{i:02d}" for i in range(12))
"""Keys of the items of :func:`budgeteer.check.check_allocator`."""


def optimal_design() -> dict[str, Any]:
    """A bank of those items, with some slopes and difficulties."""
    turn = np.arange(float(len(ITEMS)))
    return {"bank": Bank(ITEMS, np.stack([1 + turn % 3, np.sin(turn)], 1), np.cos(turn))}


def programmatic() -> dict[str, Any]:
    """A function that likes short traces."""
    return {"check": lambda question, trace: 1 / (1 + len(trace))}
