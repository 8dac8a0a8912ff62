"""What becomes of the entries of a KV cache that are not kept: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.cache.rest._drop import drop
    from budgeteer.cache.rest._ema import ema
    from budgeteer.cache.rest._merge import merge

__all__ = [
    "drop",
    "ema",
    "merge",
]

__getattr__ = lazy(
    __name__,
    {
        "drop": "_drop",
        "ema": "_ema",
        "merge": "_merge",
    },
)
