"""Splits of a KV cache over layers and heads: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.cache.split._ada_kv import ada_kv
    from budgeteer.cache.split._knapsack import knapsack
    from budgeteer.cache.split._layers import layers
    from budgeteer.cache.split._prefix import prefix
    from budgeteer.cache.split._profile import profile
    from budgeteer.cache.split._pyramid import pyramid
    from budgeteer.cache.split._uniform import uniform

__all__ = [
    "ada_kv",
    "knapsack",
    "layers",
    "prefix",
    "profile",
    "pyramid",
    "uniform",
]

__getattr__ = lazy(
    __name__,
    {
        "ada_kv": "_ada_kv",
        "knapsack": "_knapsack",
        "layers": "_layers",
        "prefix": "_prefix",
        "profile": "_profile",
        "pyramid": "_pyramid",
        "uniform": "_uniform",
    },
)
